"""What the attacks of a cascade share: what to attack and how, what an attack run is, and what it gives."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from generalist.attacks.apgd import STEPS
from generalist.attacks.attack_target import AttackTarget
from generalist.attacks.losses import Loss, Network, loss_through
from generalist.models import LossView
from generalist.randomness import ImageStreams
from generalist.tensors import Images, Labels, Mask
from generalist.threats import Threat

Claims = tuple[Mask, Images]
"""Which images of a batch some runs say that they broke, and by which points."""


@dataclass(frozen=True)
class AttackRun:
    """Searches from several starts for each image side by side; one that breaks the image ends the others.

    Attributes:
        name: of the random numbers, unlike that of every other run.
        starts: how many, for each image.
        attack_target: what to attack.
        attack: all of them on a batch of images, against the target, which may count their passes.
    """

    name: str
    starts: int
    attack_target: AttackTarget
    attack: Callable[[AttackTarget, Images, Labels, ImageStreams], Claims]


@dataclass(frozen=True)
class AutoAttackConfig:
    """What to attack, and how.

    Attributes:
        attack_target: searched through its view, if it has one.
        views: further differentiable functions to take gradients through, by name.
        threat: the ball.
        classes: how many logits there are.
        restarts: of runs that aim at no class.
        targets: classes to aim at, likeliest first; fewer where there are fewer others.
        steps, fab_steps, queries: of APGD, of FAB, of Square.
        keep_going_when_broken: let runs end only after all steps, and claim the point of the highest loss.
    """

    attack_target: AttackTarget
    views: Mapping[str, Network]
    threat: Threat
    classes: int
    restarts: int = 1
    targets: int = 9
    steps: int = STEPS
    fab_steps: int = 100
    queries: int = 5000
    keep_going_when_broken: bool = False

    def through(self, view: Network) -> "AutoAttackConfig":
        """Return the same setting, searched through a view."""
        return replace(self, attack_target=AttackTarget(self.attack_target.decision, view))

    def each_view(self) -> list[tuple[str, "AutoAttackConfig"]]:
        """Return this setting, then it through each view, with what tells their runs apart."""
        return [("", self), *((f" through {name}", self.through(view)) for name, view in self.views.items())]

    def each_view_of_logits(self) -> list[tuple[str, "AutoAttackConfig"]]:
        """Return the same for attacks on boundaries between classes, which are none of a `LossView`'s outputs."""
        logits = {name: view for name, view in self.views.items() if not isinstance(view, LossView)}
        return replace(self, views=logits).each_view()

    def loss(self, usual: Loss) -> Loss:
        """Return what is raised through the view that is searched: its own loss, or the attack's."""
        return loss_through(self.attack_target.view, usual)

    def ranks(self) -> list[range]:
        """Return ranks of classes to aim at: the likeliest alone breaks most; where it does, the others are spared."""
        count = min(self.targets, self.classes - 1)
        return [range(1), range(1, count)] if count > 1 else [range(1)]
