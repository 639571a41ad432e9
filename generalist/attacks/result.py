"""What an evaluation by attacks says about each image, and what makes it doubtful."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch

from generalist.errors import BadInput
from generalist.tensors import Images, Labels, Mask, PerImage

FEW = 3
"""Images: no share of so few raises a flag."""


def _beyond(share: float) -> Callable[[int, int], bool]:
    return lambda count, n: count > max(FEW, share * n)


FLAGS: dict[str, Callable[[int, int], bool]] = {
    "random": _beyond(0.01),
    "batch-dependent": _beyond(0.01),
    "softmax outputs": _beyond(0.5),
    "unused outputs": _beyond(0.25),
    "gradient mismatch": _beyond(0.1),
    "robust at a huge eps": _beyond(0.02),
    "zero gradients": _beyond(0.01),
    "square beats gradients": _beyond(0.002),
    "ties": _beyond(0.01),
    "unconfirmed successes": _beyond(0.01),
}
"""From how many of n images on a flag is raised. What each means: `docs/methods.md`."""


def flags(counts: Mapping[str, int], n: int) -> tuple[str, ...]:
    """Return the names of the flags that are raised by enough of n images."""
    return tuple(name for name, raised in FLAGS.items() if raised(counts.get(name, 0), n))


@dataclass(frozen=True)
class AttackProgress:
    """How far an attack is, before its first batch or after one.

    Attributes:
        attack: its name.
        images: in the batch that has just been attacked; 0 before the first.
        done: share of the attack's runs, in [0, 1]; what is left is less where images break.
        robust: how many images are not broken so far.
        n: how many images there are.
    """

    attack: str
    images: int
    done: float
    robust: int
    n: int


@dataclass(frozen=True)
class Passes:
    """Passes that each image needed up to its verdict, int64 [n]: the clean one, checks, attacks, confirmations.

    Copies that fill a tile, and images that wait for their tile, are not counted.
    """

    forward: Labels
    backward: Labels


@dataclass(frozen=True)
class AutoAttackResult:
    """The verdict on each of n images.

    Attributes:
        robust: classified correctly, and no attack changed that.
        clean: classified correctly without attack.
        fooled_by: the attack that broke the image, `clean` where none was needed, None where none could.
        adversarial: float32, the confirmed success, or the image itself where there is none.
        margins: float32, by how much the label wins at `adversarial`; 0 or less where the image is broken. Of one
            draw where the model draws random numbers.
        correct: float32, the share of fresh draws in which the worst point found is classified correctly; 1 or 0
            for a deterministic model.
        flag_counts: for each name in `FLAGS`, how many images give reason to it.
        passes: what it cost.
    """

    robust: Mask
    clean: Mask
    fooled_by: list[str | None]
    adversarial: Images
    margins: PerImage
    correct: PerImage
    flag_counts: Mapping[str, int]
    passes: Passes

    @property
    def flags(self) -> tuple[str, ...]:
        """What makes the verdicts doubtful; empty is good."""
        return flags(self.flag_counts, len(self.robust))


def merge(parts: Sequence[AutoAttackResult]) -> AutoAttackResult:
    """Return the verdicts of shards, in their order, as one run over all their images would give them.

    Raises:
        BadInput: there are no parts.
    """
    if not parts:
        raise BadInput("there are no verdicts to merge: name the result of one shard at least")
    return AutoAttackResult(
        robust=torch.cat([part.robust for part in parts]),
        clean=torch.cat([part.clean for part in parts]),
        fooled_by=[name for part in parts for name in part.fooled_by],
        adversarial=torch.cat([part.adversarial for part in parts]),
        margins=torch.cat([part.margins for part in parts]),
        correct=torch.cat([part.correct for part in parts]),
        flag_counts={name: sum(part.flag_counts.get(name, 0) for part in parts) for name in FLAGS},
        passes=Passes(
            torch.cat([part.passes.forward for part in parts]), torch.cat([part.passes.backward for part in parts])
        ),
    )
