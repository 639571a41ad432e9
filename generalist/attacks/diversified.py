"""Output-diversified starts (Tashiro et al., NeurIPS 2020): ascend a random direction of the logits first."""

from jaxtyping import Float
from torch import Tensor

from generalist.attacks.tiles import slopes_of
from generalist.attacks.victim import Victim
from generalist.tensors import Images, Labels, Logits, PerImage
from generalist.threats import Threat

STEPS = 7
"""Steps of length eps, as in A3 (Liu et al., CVPR 2022)."""


def odi_start(
    victim: Victim, images: Images, labels: Labels, threat: Threat, starts: Images, directions: Logits
) -> Images:
    """Return where `STEPS` steps of length eps lead that raise directions · logits of the view.

    Args:
        victim: whom to attack.
        images: around which the ball lies.
        labels: int64 [batch].
        threat: the ball.
        starts: where to begin; projected.
        directions: one for each start, [batch, classes].
    """
    ball = threat.ball(images)
    points = ball.project_(starts.clone())
    for _ in range(STEPS):
        slopes = slopes_of(victim.view or victim.decision, points, labels, _along, directions)
        ball.project_(points.add_(ball.steepest_ascent(slopes.gradients), alpha=float(threat.eps)))
    return points


def _along(logits: Float[Tensor, "batch outputs"], _: Labels, directions: Logits) -> PerImage:
    return (logits[:, : directions.shape[1]] * directions).sum(1)  # a view may have more than the classes
