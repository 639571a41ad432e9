"""Random numbers per image: a function of the image, the seed and the purpose alone."""

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from generalist.randomness import ImageStreams
from tests.strategies import generator, images, seeds

DRAWS = ["uniform", "normal", "signs", "integers"]


def draw(streams: ImageStreams, kind: str, draws: int | range, *shape: int) -> torch.Tensor:
    """Numbers of one kind."""
    kinds = {
        "uniform": streams.uniform,
        "normal": streams.normal,
        "signs": streams.signs,
        "integers": lambda d, *s: streams.integers(d, *s, below=1000),
    }
    return kinds[kind](draws, *shape)


def some(count: int, seed: int = 0) -> ImageStreams:
    """Streams of so many different images."""
    pixels = torch.rand(count, 1, 4, 4, generator=generator(1))
    return ImageStreams.of(pixels, torch.arange(count), seed=seed)


@given(images(), seeds, st.sampled_from(DRAWS), st.randoms(use_true_random=False))
def test_neighbours_order_and_number_change_nothing(pixels, seed, kind, random):
    """An image alone, in any order and in any company draws the same numbers."""
    labels = torch.arange(len(pixels))
    everything = draw(ImageStreams.of(pixels, labels, seed=seed).child("x", 0), kind, 3, 2, 5)
    rows = torch.tensor(random.sample(range(len(pixels)), random.randint(1, len(pixels))))
    fewer = draw(ImageStreams.of(pixels[rows], labels[rows], seed=seed).child("x", 0), kind, 3, 2, 5)
    selected = draw(ImageStreams.of(pixels, labels, seed=seed)[rows].child("x", 0), kind, 3, 2, 5)
    assert torch.equal(everything[rows], fewer) and torch.equal(everything[rows], selected)


@given(st.sampled_from(DRAWS), st.integers(0, 50), st.integers(1, 5))
def test_a_block_of_draws_is_its_draws_one_by_one(kind, first, count):
    """So how many are drawn at a time changes nothing."""
    streams = some(3)
    block = draw(streams, kind, range(first, first + count), 4)
    assert block.shape == (3, count, 4)
    for index in range(count):
        assert torch.equal(block[:, index], draw(streams, kind, first + index, 4))


def test_everything_that_should_change_the_numbers_does():
    """One pixel's last bit, the label, the seed, the purpose, the draw."""
    pixels, labels = torch.rand(1, 1, 4, 4, generator=generator(1)), torch.zeros(1, dtype=torch.int64)
    nudged = pixels.clone()
    nudged[0, 0, 3, 3] = torch.nextafter(nudged[0, 0, 3, 3], torch.ones(()))
    base = ImageStreams.of(pixels, labels, seed=0)
    drawn = [
        base.uniform(0, 4),
        base.uniform(1, 4),
        base.child("square").uniform(0, 4),
        base.child("square", 1).uniform(0, 4),
        base.child("apgd-ce", 1).uniform(0, 4),
        ImageStreams.of(pixels, labels, seed=1).uniform(0, 4),
        ImageStreams.of(pixels, labels + 1, seed=0).uniform(0, 4),
        ImageStreams.of(nudged, labels, seed=0).uniform(0, 4),
    ]
    assert len(torch.cat(drawn).unique()) == 4 * len(drawn)


def test_the_layout_in_memory_does_not_matter():
    """Channels last or first, float32 or the same numbers in float64."""
    pixels, labels = torch.rand(3, 3, 4, 5, generator=generator(1)), torch.arange(3)
    plain = ImageStreams.of(pixels, labels, seed=0)
    for other in (pixels.contiguous(memory_format=torch.channels_last), pixels.double()):
        assert torch.equal(ImageStreams.of(other, labels, seed=0).keys, plain.keys)


def test_numbers_are_distributed_as_they_should_be():
    """Uniform, normal, fair; over images and over draws alike."""
    for numbers in (some(2000).uniform(0, 50), some(5).uniform(range(400), 50)):
        assert ((numbers >= 0) & (numbers < 1)).all()
        shares = torch.histc(numbers, bins=20, min=0, max=1) / numbers.numel()
        assert_close(shares, torch.full((20,), 0.05), atol=0.003, rtol=0)
    normal = some(1000).normal(0, 100)
    assert_close(normal.mean(), torch.tensor(0.0), atol=0.01, rtol=0)
    assert_close(normal.var(), torch.tensor(1.0), atol=0.02, rtol=0)
    assert_close(normal.pow(4).mean(), torch.tensor(3.0), atol=0.1, rtol=0)
    signs = some(1000).signs(0, 100)
    assert set(signs.unique().tolist()) == {-1.0, 1.0} and abs(signs.mean().item()) < 0.01
    integers = some(1000).integers(0, 70, below=7)
    counts = torch.bincount(integers.flatten(), minlength=7)
    assert len(counts) == 7
    assert_close(counts / integers.numel(), torch.full((7,), 1 / 7), atol=0.005, rtol=0)


def test_neighbouring_numbers_are_not_correlated():
    """Between elements, draws, images and purposes."""
    streams = some(300)
    numbers = streams.uniform(range(30), 30) - 0.5
    other = streams.child("other").uniform(range(30), 30) - 0.5
    for first, second in (
        (numbers[1:], numbers[:-1]),
        (numbers[:, 1:], numbers[:, :-1]),
        (numbers[..., 1:], numbers[..., :-1]),
        (numbers, other),
    ):
        correlation = torch.corrcoef(torch.stack([first.flatten(), second.flatten()]))[0, 1]
        assert abs(correlation.item()) < 0.01


def test_nothing_is_consumed_and_the_global_generator_rests():
    """Drawing twice gives the same."""
    before, streams = torch.get_rng_state(), some(3)
    for kind in DRAWS:
        assert torch.equal(draw(streams, kind, 2, 6), draw(streams, kind, 2, 6))
    assert torch.equal(torch.get_rng_state(), before)
