"""Losses, and the fixed tile in which networks are asked."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.testing import assert_close

from generalist.attacks import cross_entropy, margin, misclassified
from generalist.attacks.fixed_batches import logits_of, loss_gradients_of, tile_size
from generalist.errors import BadInput
from tests.strategies import Recorder, conv_net, generator, seeds


def labels_for(pixels: torch.Tensor, classes: int = 4) -> torch.Tensor:
    """Return some labels."""
    return torch.arange(len(pixels)) % classes


# Losses.


def test_losses_in_closed_form():
    """Cross-entropy is -log softmax at the label; the margin is the label's lead over the best other class."""
    logits = torch.tensor([[2.0, 1.0, 0.0], [0.0, 3.0, 1.0]])
    labels = torch.tensor([0, 2])
    assert_close(cross_entropy(logits, labels), -logits.log_softmax(1)[[0, 1], [0, 2]])
    assert_close(margin(logits, labels), torch.tensor([1.0, -2.0]))
    assert misclassified(logits, labels).tolist() == [False, True]


def test_a_tie_counts_as_broken_and_so_does_what_is_not_a_number():
    """The label must win strictly, in any place of the row."""
    nan, inf = torch.nan, torch.inf
    logits = torch.tensor([[1.0, 1.0], [1.0, 0.5], [nan, 0.0], [1.0, nan], [inf, inf], [0.0, -inf]])
    assert misclassified(logits, torch.zeros(6, dtype=torch.int64)).tolist() == [True, False, True, True, True, False]


# The fixed tile.


def network_for_tiles() -> nn.Module:
    """Whose images have no power of two of pixels, so that kernels have remainders."""
    return conv_net((3, 6, 5))


@given(st.integers(1, 150), seeds)
def test_the_bits_of_an_image_do_not_depend_on_its_company(count, seed):
    """Logits, losses and gradients of an image are the same alone, in any order and in any number."""
    network, numbers = network_for_tiles(), generator(seed)
    pixels = torch.rand(count, 3, 6, 5, generator=numbers)
    labels = labels_for(pixels)
    logits, slopes = logits_of(network, pixels), loss_gradients_of(network, pixels, labels, cross_entropy)
    rows = torch.randperm(count, generator=numbers)[: max(count // 2, 1)]
    fewer = loss_gradients_of(network, pixels[rows], labels[rows], cross_entropy)
    assert torch.equal(logits_of(network, pixels[rows]), logits[rows])
    assert torch.equal(fewer.logits, slopes.logits[rows]) and torch.equal(fewer.losses, slopes.losses[rows])
    assert torch.equal(fewer.gradients, slopes.gradients[rows])


@pytest.mark.parametrize("count", [1, 63, 64, 65, 200])
def test_every_pass_has_a_whole_tile(count):
    """Also the last one, filled with copies of a real image."""
    network, tile = Recorder(network_for_tiles()), tile_size(torch.device("cpu"))
    pixels = torch.rand(count, 3, 6, 5, generator=generator(0))
    logits_of(network, pixels)
    loss_gradients_of(network, pixels, labels_for(pixels), cross_entropy)
    assert {len(seen) for seen in network.seen} == {tile}
    assert torch.equal(torch.cat(network.seen[: -(-count // tile)])[:count], pixels)
    assert all((seen[-1] == pixels[-1]).all() or len(pixels) % tile == 0 for seen in network.seen[-1:])


def test_slopes_are_what_autograd_gives():
    """Of the loss of each image by itself, to rounding."""
    network, pixels = network_for_tiles(), torch.rand(5, 3, 6, 5, generator=generator(0))
    slopes = loss_gradients_of(network, pixels, labels_for(pixels), cross_entropy)
    leaf = pixels.clone().requires_grad_()
    logits = network(leaf)
    losses = nn.functional.cross_entropy(logits, labels_for(pixels), reduction="none")
    assert_close(slopes.logits, logits.detach())
    assert_close(slopes.losses, losses.detach())
    assert_close(slopes.gradients, torch.autograd.grad(losses.sum(), leaf)[0])


def test_a_black_box_has_a_gradient_of_zero():
    """Whether nothing leads back to the input, or something else than the input."""
    weight = torch.ones(18, 2, requires_grad=True)
    pixels, labels = torch.rand(3, 2, 3, 3, generator=generator(0)), torch.zeros(3, dtype=torch.int64)
    for network in (lambda x: torch.zeros(len(x), 2), lambda x: x.detach().flatten(1) @ weight):
        assert torch.equal(
            loss_gradients_of(network, pixels, labels, cross_entropy).gradients, torch.zeros_like(pixels)
        )


def test_what_is_not_a_number_in_a_gradient_is_zero():
    """A norm has no gradient at the origin; its image stays where it is, the others move."""
    pixels = torch.stack([torch.zeros(1, 2, 2), torch.ones(1, 2, 2)])

    def network(points: torch.Tensor) -> torch.Tensor:
        length = points.square().sum((1, 2, 3)).sqrt()
        return torch.stack([length, -length], dim=1)

    gradients = loss_gradients_of(network, pixels, torch.zeros(2, dtype=torch.int64), cross_entropy).gradients
    assert torch.equal(gradients[0], torch.zeros(1, 2, 2)) and (gradients[1] != 0).all()


def test_half_precision_logits_are_judged_in_float32():
    """And double precision stays double."""
    pixels = torch.rand(3, 1, 2, 2, generator=generator(0))
    assert logits_of(lambda x: x.flatten(1).bfloat16(), pixels).dtype == torch.float32
    assert logits_of(lambda x: x.flatten(1).double(), pixels).dtype == torch.float64


@pytest.mark.parametrize("output", [lambda x: (x.flatten(1), x), lambda x: x, lambda x: x.flatten(1)[:1]])
def test_a_network_that_gives_no_logits_is_refused(output):
    """Tuples, images, too few rows."""
    with pytest.raises(BadInput, match="must map 64 images to logits"):
        logits_of(output, torch.rand(3, 1, 2, 2))
