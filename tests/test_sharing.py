"""Trainings that share a store: each has the bits of a training of its own, and what they have in common is done once."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from generalist.config import Config
from generalist.data import Dataset
from generalist.records import EpochRecord
from generalist.store import Store
from generalist.training import (
    CheckpointRefs,
    Cuts,
    Facts,
    InProcessRunner,
    Outcome,
    Round,
    Sharing,
    Trainer,
    drive,
    ignore,
)
from tests.training_factory import LeftError, digests, finish, leaving, small

pytestmark = pytest.mark.long

DECAYS = (0.1, 0.2)
"""Both below the ramp (s + 1) / (s + 10) before the warm-up ends: above it, all decays are one."""


def _trained(config: Config, dataset: Dataset, store: Path, sharing: Sharing) -> tuple[int, Outcome]:
    """Train among others; return how many epochs of experts were trained, and what came of it."""
    training, facts = Trainer(config, dataset, Store(store), sharing=sharing), Facts(ignore)
    counting = Counting(training, facts)
    found = drive(training, counting, facts)
    return counting.epochs, found


class Counting(InProcessRunner):
    """Counts the epochs of experts that are trained."""

    epochs = 0

    def advance_group(self, round_: Round, group: Sequence[str], positions: CheckpointRefs) -> Cuts:
        """Count, then train."""
        self.epochs += self.training.work(round_, group, positions).epochs * len(group)
        return super().advance_group(round_, group, positions)


def _alone(config: Config, dataset: Dataset, folder: Path) -> dict[str, str]:
    return digests(finish(config, dataset, folder)[1])


def test_another_decay_or_weight_finds_the_warm_up_done(dataset: Dataset, tmp_path: Path) -> None:
    """Its shares were accumulated beside the first training's, to the bits of a training of its own."""
    settings = [(DECAYS[0], 0.6), (DECAYS[1], 0.6), (DECAYS[0], 0.7)]
    configs = [small(f"mixing.decay={decay}", f"mixing.weights.robust={weight}") for decay, weight in settings]
    counts = []
    for index, config in enumerate(configs):
        others = tuple(configs[:index] + configs[index + 1 :])
        epochs, found = _trained(config, dataset, tmp_path / "shared", Sharing(alternatives=others))
        counts.append(epochs)
        assert digests(found) == _alone(config, dataset, tmp_path / f"alone {index}")
    assert counts == [10, 6, 6]


def test_a_longer_warm_up_goes_on_and_alternatives_go_with_it(dataset: Dataset, tmp_path: Path) -> None:
    """With another decay, too; the shorter one's shares lie where the longer one starts."""
    short, long = small("mixing.decay=0.3"), small("mixing.decay=0.6", "mixing.warm_up=4")
    first, _ = _trained(short, dataset, tmp_path / "shared", Sharing(alternatives=(small("mixing.decay=0.6"),)))
    second, found = _trained(long, dataset, tmp_path / "shared", Sharing(alternatives=(short,)))
    assert (first, second) == (10, 6)
    assert digests(found) == _alone(long, dataset, tmp_path / "alone")


@pytest.mark.parametrize("intervals", [(3, 1), (1, 3)])
def test_intervals_share_their_first_epochs_whichever_comes_first(
    dataset: Dataset, tmp_path: Path, intervals: tuple[int, int]
) -> None:
    """After the first redistribution, up to the end of the shorter interval."""
    sharing, counts = Sharing(cuts=frozenset({3, 5})), []
    for interval in intervals:
        config = small(f"mixing.interval={interval}")
        epochs, found = _trained(config, dataset, tmp_path / "shared", sharing)
        counts.append(epochs)
        assert digests(found) == _alone(config, dataset, tmp_path / f"alone {interval}")
    assert counts == [10, 4]


def test_coupled_experts_share_their_warm_up_alone(dataset: Dataset, tmp_path: Path) -> None:
    """Redistributing between steps parts an expert from its alternatives; its own share stays right."""
    configs = [small("mixing.interval={steps: 1}", f"mixing.decay={decay}") for decay in DECAYS]
    for config, other, epochs in ((*configs, 10), (*reversed(configs), 6)):
        trained, found = _trained(config, dataset, tmp_path / "shared", Sharing(alternatives=(other,)))
        assert trained == epochs
        assert digests(found) == _alone(config, dataset, tmp_path / str(epochs))


def test_only_what_is_asked_for_is_measured(dataset: Dataset, tmp_path: Path) -> None:
    """The global learner at the ends of rounds and at the given epochs; no expert anywhere."""
    sharing = Sharing(cuts=frozenset({3, 4}), measured=frozenset({4}))
    config = small("mixing.interval=3", "training.checkpoint_epochs=5")
    _, found = _trained(config, dataset, tmp_path, sharing)
    assert [record.epoch for record in found.history.course] == [2, 4, 5]
    assert all(record.validation is None for record in found.history.epochs if isinstance(record, EpochRecord))


def test_a_killed_warm_up_goes_on_with_its_alternatives(dataset: Dataset, tmp_path: Path) -> None:
    """What was stored on the way holds their shares, too, so the next one still finds them."""
    first, other = (small("training.checkpoint_epochs=5", f"mixing.decay={decay}") for decay in DECAYS)
    training = Trainer(first, dataset, Store(tmp_path / "shared"), sharing=Sharing(alternatives=(other,)))
    positions = training.start()
    for name in ("natural", "robust"):
        with pytest.raises(LeftError):
            training.advance(training.rounds[0], (name,), positions, leaving(1))  # after its first epoch
    counts = [
        _trained(config, dataset, tmp_path / "shared", Sharing(alternatives=(beside,)))[0]
        for config, beside in ((first, other), (other, first))
    ]
    assert counts == [10, 6]
    assert digests(_trained(other, dataset, tmp_path / "shared", Sharing())[1]) == _alone(other, dataset, tmp_path)
