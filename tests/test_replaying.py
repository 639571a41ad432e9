"""Attacks that are recorded once and repeated: the same images as step by step, whatever the recording does."""

import logging
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor

from generalist import engine
from generalist.attacks import pgd
from generalist.attacks.losses import Loss, cross_entropy, divergence
from generalist.config import EngineOptions
from generalist.engine import falling_back
from generalist.engine.replaying import Replays
from generalist.models import Classifier
from generalist.threats import Threat
from tests.model_factory import GREY, made, numbers, settle

LABELS = torch.arange(6) % 10
LINF = Threat("linf", 0.1)


def rerun(done: Callable[[], Tensor]) -> Callable[[], Tensor]:
    """What a graph does, on a CPU: nothing is computed while it records, the same buffers serve each time."""
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
    falling_back.warned.cache_clear()
    yield
    falling_back.warned.cache_clear()


@pytest.fixture
def model() -> Classifier:
    """With BatchNorm, whose folding must be repeated."""
    model = made("resnet18").eval().requires_grad_(False)
    settle(model)
    return model


def program_of(
    model: Classifier, record: Callable[[Callable[[], Tensor]], Callable[[], Tensor]] | None
) -> engine.Program:
    """A network's program, repeating attacks by this."""
    program = engine.fast_attack_network(model, GREY, EngineOptions())
    assert program is not None
    assert program.replays is None
    program.replays = None if record is None else Replays(record)
    return program


def attacked(
    program: engine.Program, seed: int, *, images: int = 6, threat: Threat = LINF, loss: Loss = cross_entropy
) -> Tensor:
    """Three steps on images that differ by seed."""
    pixels = numbers(images, seed=seed)
    reference = LABELS[:images] if loss is not divergence else numbers(images, seed=9).flatten(1)[:, :10].log_softmax(1)
    draw = torch.Generator().manual_seed(seed)
    return pgd(program, pixels, reference, threat, steps=3, loss=loss, generator=draw)


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What was told."""
    return [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]


@pytest.mark.parametrize("loss", [cross_entropy, divergence])
@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_repeated_attacks_find_what_others_find(model: Classifier, norm: str, loss: Loss) -> None:
    """To the bit, at the first call, at the second and after; what was found before stays as it is."""
    plain, repeating, threat = program_of(model, None), program_of(model, Asked(rerun)), Threat(norm, 0.2)
    found = [attacked(repeating, seed, threat=threat, loss=loss) for seed in range(4)]
    expected = [attacked(plain, seed, threat=threat, loss=loss) for seed in range(4)]
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))
    assert repeating.replays is not None
    assert repeating.replays.recordings == 1


def test_a_repeated_attack_takes_the_present_weights(model: Classifier) -> None:
    """Nobody tells a graph that they changed, so it folds them itself; eager calls after it do, too."""
    repeating = program_of(model, rerun)
    before = [attacked(repeating, 0) for _ in range(3)][-1]
    settle(model, seed=5)
    now = attacked(program_of(model, None), 0)
    assert not torch.equal(before, now)
    assert torch.equal(attacked(repeating, 0), now)
    settle(model, seed=6)
    assert torch.equal(repeating(numbers(2)), program_of(model, None)(numbers(2)))


def test_each_shape_and_each_attack_is_recorded_by_itself(model: Classifier) -> None:
    """The last batch of an epoch is smaller."""
    record = Asked(rerun)
    plain, repeating = program_of(model, None), program_of(model, record)
    for seed in range(3):
        for images, threat in ((6, LINF), (4, LINF), (6, Threat("l2", 0.5))):
            found = attacked(repeating, seed, images=images, threat=threat)
            assert torch.equal(found, attacked(plain, seed, images=images, threat=threat))
    assert record.times == 3


def test_what_cannot_be_recorded_is_computed_as_it_is(model: Classifier, caplog: pytest.LogCaptureFixture) -> None:
    """With one warning for all experts and rounds, and without another try."""

    def failing(done: Callable[[], Tensor]) -> Callable[[], Tensor]:
        done()
        raise RuntimeError("operation not permitted when stream is capturing\nand a page more")

    plain, asked = program_of(model, None), [Asked(failing), Asked(failing)]
    for record in asked:
        repeating = program_of(model, record)
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

    plain, repeating = program_of(model, None), program_of(model, record)
    for seed in range(4):
        assert torch.equal(attacked(repeating, seed), attacked(plain, seed))
    assert repeating.replays is not None
    assert repeating.replays.recordings == 0
    assert [told for told in warnings(caplog) if "gave other images" in told] == warnings(caplog) != []


def test_losses_made_anew_each_time_are_not_collected(model: Classifier) -> None:
    """They are computed as they are: what is remembered has an end."""
    record = Asked(rerun)
    repeating = program_of(model, record)
    for seed in range(40):
        attacked(repeating, seed, loss=lambda logits, labels: cross_entropy(logits, labels))
    assert record.times == 0
    assert repeating.replays is not None
    assert len(repeating.replays._met) < 20


def test_plain_engines_repeat_nothing(model: Classifier) -> None:
    """There is no program then, and on a CPU one that repeats nothing."""
    assert engine.fast_attack_network(model, GREY, EngineOptions(plain=True)) is None
    program = engine.fast_attack_network(model, GREY, EngineOptions())
    assert program is not None
    assert program.replays is None
