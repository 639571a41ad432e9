"""What a training does so that others, which differ from it in a few settings, find as much as possible done."""

from collections.abc import Sequence
from dataclasses import dataclass

from generalist.config import Config
from generalist.mixing import Course, courses


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


def companions(
    own: dict[str, Course], alternatives: Sequence[Config], *, total: int, common: int
) -> dict[str, tuple[Course, ...]]:
    """Return by expert the courses of alternatives that differ from its own, and each other, in the first steps.

    Args:
        own: each expert's course.
        alternatives: other configurations.
        total: optimizer steps of the training.
        common: those of them before the first hand-back.
    """
    found: dict[str, dict[bytes, Course]] = {name: {_bits(course, common): course} for name, course in own.items()}
    for config in alternatives:
        for name, course in courses(config, total).items():
            found[name].setdefault(_bits(course, common), course)
    return {name: tuple(known.values())[1:] for name, known in found.items()}


def _bits(course: Course, common: int) -> bytes:
    steps = slice(common + 1)
    return course.weight[steps].tobytes() + course.decay[steps].tobytes()
