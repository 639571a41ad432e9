"""Square Attack (Andriushchenko et al., ECCV 2020): random search by squares, from logits alone.

As in AutoAttack: margin loss, no restarts. Different from the published code: each image has windows
and signs of its own, every place of a window can be drawn, and any height and width will do.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import torch

from generalist.attacks.attack_target import AttackTarget
from generalist.attacks.fixed_batches import detached
from generalist.attacks.losses import Network
from generalist.errors import BadInput
from generalist.randomness import ImageStreams
from generalist.tensors import Images, Labels, Mask, PerImage
from generalist.threats import Threat
from generalist.threats.geometry.square_patterns import HALVED_AFTER, Candidates

AHEAD = ((2000, 8), (500, 6), (50, 3), (0, 1))
"""From which query on how many are tried at once: measured, 2 % are accepted up to the 1,500th, 0.5 % later."""
_BLOCK, _BLOCK_NUMBERS = 256, 2**21  # queries planned at a time, and about so many numbers for them at most


@dataclass(frozen=True)
class SquareResult:
    """What the search found, image by image.

    Attributes:
        broken: whether a point was misclassified.
        adversarial: that point, or the point of the lowest margin.
    """

    broken: Mask
    adversarial: Images


@torch.inference_mode(mode=False)
def square(
    network: Network | AttackTarget,
    images: Images,
    labels: Labels,
    threat: Threat,
    streams: ImageStreams,
    *,
    queries: int = 5000,
) -> SquareResult:
    """Search at random from given streams.

    Args:
        network: from images to logits, or an `AttackTarget`; asked in fixed tiles, never differentiated.
        images: float32 [batch, channels, height, width] in [0, 1], one at least.
        labels: int64 [batch].
        threat: the ball to stay in.
        streams: random numbers of each image.
        queries: forward passes per image at most, the first one for the start.

    Raises:
        BadInput: no queries; a network that fails, or gives no logits.
    """
    if queries < 1:
        raise BadInput(f"Square has {queries} queries; give it one at least")
    images, labels = detached(images), detached(labels)
    pattern = threat.geometry.squares(threat.ball(images), streams)
    target, points = AttackTarget.of(network), pattern.start()
    rows = torch.arange(len(labels), device=labels.device)
    margins = target.margins(points, labels, rows)
    adversarial, lowest, first = points.clone(), margins.clone(), margins.clone()
    least = dict(threat.geometry.square_give_up_above if threat.measured else ())
    for block in _blocks(queries, len(images) * sum(images.shape[1:])):
        active = margins > 0
        if block.start - 1 in least:
            active &= margins <= least[block.start - 1] * first[rows]
        if not bool(active.all()):
            rows, points, labels, margins = rows[active], points[active], labels[active], margins[active]
            pattern = threat.geometry.squares(threat.ball(images[rows]), streams[rows])
        if not len(rows):
            break
        ahead = next(count for start, count in AHEAD if block.start >= start)
        _search_(target, pattern.plan(block), len(block), ahead, points, labels, margins, rows)
        adversarial[rows], lowest[rows] = points, margins
    return SquareResult(~(lowest > 0), adversarial)


def _search_(
    target: AttackTarget,
    plan: Candidates,
    queries: int,
    ahead: int,
    points: Images,
    labels: Labels,
    margins: PerImage,
    owners: Labels,
) -> None:
    """Try the planned queries in turn, in place.

    Late in the search few queries are accepted. So each image tries its next few from where it is at once; those after
    an accepted one are forgotten and tried again from there: the course is that of one query after the other.
    """
    following = torch.zeros_like(labels)
    steps = torch.arange(ahead, device=labels.device)
    while True:
        # A broken image rests.
        going_on = ((following < queries) & (margins > 0)).nonzero()
        if not len(going_on):
            return
        index = following[going_on] + steps
        rows = going_on.expand_as(index)[index < queries]
        index = index[index < queries]
        candidates = plan(index, rows, points[rows])
        # So does one whose square has that sign already: half of them when squares are small.
        asked = (candidates != points[rows]).flatten(1).any(1).nonzero().squeeze(1)
        first = torch.full_like(following, queries)
        if len(asked):
            index, rows, candidates = index[asked], rows[asked], candidates[asked]
            reached = target.margins(candidates, labels[rows], owners[rows])
            # What is not a number is accepted as well: the confirmation decides.
            lower = (~(reached >= margins[rows])).nonzero().squeeze(1)
            first.scatter_reduce_(0, rows[lower], index[lower], "amin")
            accepted = lower[index[lower] == first[rows[lower]]]
            points[rows[accepted]], margins[rows[accepted]] = candidates[accepted], reached[accepted]
        following = torch.minimum(following + ahead, first + 1)


def _blocks(queries: int, numbers: int) -> Iterator[range]:
    """Yield queries 1, 2, … after the start, cut where the size of the squares changes."""
    longest = max(1, min(_BLOCK, _BLOCK_NUMBERS // max(numbers, 1)))
    edges = [1, *(edge + 1 for edge in HALVED_AFTER if edge + 1 < queries), queries]
    for first, end in pairwise(edges):
        for start in range(first, end, longest):
            yield range(start, min(start + longest, end))
