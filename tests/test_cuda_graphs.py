"""Attacks that are recorded once and repeated: the same images as step by step, whatever the recording does."""

import logging
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor

from generalist import engine
from generalist.attacks import pgd
from generalist.attacks.losses import Loss, cross_entropy, kl_divergence
from generalist.config import EngineOptions
from generalist.config.section import part_names
from generalist.engine import fallback
from generalist.engine.cuda_graphs import GraphCache, cuda_graph
from generalist.models import Classifier
from generalist.threats import Threat
from tests.cuda_double import Cuda
from tests.model_factory import made, numbers, settle

LABELS = torch.arange(3)
LINF = Threat("linf", 0.1)


def rerun(done: Callable[[], Tensor]) -> Callable[[], Tensor]:
    """Return what a graph does, on a CPU: nothing is computed while it records, the same buffers serve each time."""
    result = torch.full_like(done(), torch.nan)
    return lambda: result.copy_(done())


class Asked:
    """Counts what is recorded by another."""

    def __init__(self, record: Callable[[Callable[[], Tensor]], Callable[[], Tensor]]) -> None:
        self.record, self.times = record, 0

    def __call__(self, done: Callable[[], Tensor]) -> Callable[[], Tensor]:
        """Record."""
        self.times += 1
        return self.record(done)


@pytest.fixture(autouse=True)
def _nobody_was_warned() -> Iterator[None]:
    """Each warning comes once in a process."""
    fallback.warn_once.cache_clear()
    yield
    fallback.warn_once.cache_clear()


@pytest.fixture
def model() -> Classifier:
    """With BatchNorm, whose statistics change as the weights do."""
    model = made("resnet18").eval()
    settle(model)
    return model


def frozen(
    model: Classifier, record: Callable[[Callable[[], Tensor]], Callable[[], Tensor]] | None
) -> engine.FrozenNetwork:
    """Return the network that attacks see, repeating them by this."""
    network = engine.FrozenNetwork(model, EngineOptions())
    assert network.graphs is None
    network.graphs = None if record is None else GraphCache(record)
    return network


def attacked(
    network: engine.FrozenNetwork, seed: int, *, images: int = 3, threat: Threat = LINF, loss: Loss = cross_entropy
) -> Tensor:
    """Two steps on images that differ by seed."""
    pixels = numbers(images, seed=seed)
    reference = (
        LABELS[:images] if loss is not kl_divergence else numbers(images, seed=9).flatten(1)[:, :10].log_softmax(1)
    )
    draw = torch.Generator().manual_seed(seed)
    return pgd(network, pixels, reference, threat, steps=2, loss=loss, generator=draw)


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return what was told."""
    return [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]


@pytest.mark.parametrize("loss", [cross_entropy, kl_divergence])
@pytest.mark.parametrize("norm", part_names("threats"))
def test_repeated_attacks_find_what_others_find(model: Classifier, norm: str, loss: Loss) -> None:
    """To the bit, at the first call, at the second and after; what was found before stays as it is."""
    plain, repeating, threat = frozen(model, None), frozen(model, Asked(rerun)), Threat(norm, 0.2)
    found = [attacked(repeating, seed, threat=threat, loss=loss) for seed in range(4)]
    expected = [attacked(plain, seed, threat=threat, loss=loss) for seed in range(4)]
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))
    assert repeating.graphs is not None
    assert repeating.graphs.recordings == 1


def test_a_repeated_attack_takes_the_present_weights(model: Classifier) -> None:
    """Nobody tells a graph that they changed: it reads them where they lie."""
    repeating = frozen(model, rerun)
    before = [attacked(repeating, 0) for _ in range(3)][-1]
    settle(model, seed=5)
    now = attacked(frozen(model, None), 0)
    assert not torch.equal(before, now)
    assert torch.equal(attacked(repeating, 0), now)


def test_each_shape_and_each_attack_is_recorded_by_itself(model: Classifier) -> None:
    """The last batch of an epoch is smaller."""
    record = Asked(rerun)
    plain, repeating = frozen(model, None), frozen(model, record)
    for seed in range(3):
        for images, threat in ((3, LINF), (2, LINF), (3, Threat("l2", 0.5))):
            found = attacked(repeating, seed, images=images, threat=threat)
            assert torch.equal(found, attacked(plain, seed, images=images, threat=threat))
    assert record.times == 3


def test_what_cannot_be_recorded_is_computed_as_it_is(model: Classifier, caplog: pytest.LogCaptureFixture) -> None:
    """With one warning for all experts and rounds, and without another try."""

    def failing(done: Callable[[], Tensor]) -> Callable[[], Tensor]:
        done()
        raise RuntimeError("operation not permitted when stream is capturing\nand a page more")

    plain, asked = frozen(model, None), [Asked(failing), Asked(failing)]
    for record in asked:
        repeating = frozen(model, record)
        for seed in range(4):
            assert torch.equal(attacked(repeating, seed), attacked(plain, seed))
    assert [record.times for record in asked] == [1, 1]
    (told,) = warnings(caplog)
    assert "can't be recorded as a CUDA graph (RuntimeError: operation not permitted when stream is capturing)" in told


@pytest.mark.parametrize("wrong", [torch.zeros_like, lambda found: found + 0.01, lambda found: found * torch.nan])
def test_a_recording_that_gives_other_images_is_refused(
    model: Classifier, wrong: Callable[[Tensor], Tensor], caplog: pytest.LogCaptureFixture
) -> None:
    """Results are right all the same, also that of the call in which it was found out."""

    def record(done: Callable[[], Tensor]) -> Callable[[], Tensor]:
        return lambda: wrong(done())

    plain, repeating = frozen(model, None), frozen(model, record)
    for seed in range(4):
        assert torch.equal(attacked(repeating, seed), attacked(plain, seed))
    assert repeating.graphs is not None
    assert repeating.graphs.recordings == 0
    assert [told for told in warnings(caplog) if "gave other images" in told] == warnings(caplog) != []


def test_losses_made_anew_each_time_are_not_collected(model: Classifier, caplog: pytest.LogCaptureFixture) -> None:
    """They are computed as they are, which is told: what is remembered has an end."""
    record = Asked(rerun)
    repeating = frozen(model, record)
    for seed in range(40):
        attacked(repeating, seed, loss=lambda logits, labels: cross_entropy(logits, labels))
    assert record.times == 0
    assert repeating.graphs is not None
    assert len(repeating.graphs._met) < 20
    assert [told.endswith("go on without CUDA graphs") for told in warnings(caplog)] == [True]


@pytest.mark.parametrize("fails", [False, True])
def test_a_graph_is_captured_on_a_stream_of_its_own(monkeypatch: pytest.MonkeyPatch, fails: bool) -> None:
    """By a double of CUDA's: the stream of before is current again, also where the capture fails."""
    cuda, result = Cuda(monkeypatch), torch.zeros(2)
    cuda.fails, around = fails, cuda.current
    if fails:
        with pytest.raises(RuntimeError, match="capturing"):
            cuda_graph(lambda: result)
    else:
        again = cuda_graph(lambda: result)
        assert again() is result and again() is result
        assert cuda.noted == ["own waits for around", "captured", "around waits for own", "replay", "replay"]
    assert cuda.current is around
