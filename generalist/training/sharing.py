"""What a training does so that others, which differ from it in a few settings, find as much as possible done."""

from collections.abc import Sequence
from dataclasses import dataclass

from generalist.config import Config
from generalist.mixing import MixingSchedule, mixing_schedules


@dataclass(frozen=True)
class Sharing:
    """A training among others in one store. It has the same bits as one of its own.

    Attributes:
        cuts: epochs after which states are stored, besides the configuration's.
        measured: the only epochs inside rounds at which the global learner is measured; experts are not measured.
        alternatives: configurations that differ in decay or mixing weights alone; their shares of the global learner
            are accumulated beside this one's as long as they have the trajectories in common.
    """

    cuts: frozenset[int] = frozenset()
    measured: frozenset[int] = frozenset()
    alternatives: tuple[Config, ...] = ()


def alternative_averages(
    own_schedules: dict[str, MixingSchedule], alternatives: Sequence[Config], *, total: int, common: int
) -> dict[str, tuple[MixingSchedule, ...]]:
    """Return by expert the mixing schedules of alternatives that differ from its own, and each other, at first.

    Args:
        own_schedules: each expert's mixing schedule.
        alternatives: other configurations.
        total: optimizer steps of the training.
        common: those of them before the first redistribution.
    """
    schedules: dict[str, dict[bytes, MixingSchedule]] = {
        name: {_bits(schedule, common): schedule} for name, schedule in own_schedules.items()
    }
    for config in alternatives:
        for name, schedule in mixing_schedules(config, total).items():
            schedules[name].setdefault(_bits(schedule, common), schedule)
    return {name: tuple(known.values())[1:] for name, known in schedules.items()}


def _bits(schedule: MixingSchedule, common: int) -> bytes:
    steps = slice(common + 1)
    return schedule.weight[steps].tobytes() + schedule.decay[steps].tobytes()
