"""Square Attack: what it may ask, what it accepts, and that it finds what can be found."""

import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from generalist.attacks import margin, square
from generalist.attacks.attack_target import AttackTarget
from generalist.config.section import part_names
from generalist.errors import BadInput
from generalist.randomness import ImageStreams
from generalist.threats import Threat
from generalist.threats.geometry.square_patterns import Bumps, Corners, side
from tests.exact_linear import exact_distances
from tests.strategies import conv_net, generator, images, linear_net, norms, seeds, threats


def streams(pixels: torch.Tensor, labels: torch.Tensor, seed: int = 0) -> ImageStreams:
    """Streams of these images."""
    return ImageStreams.of(pixels, labels, seed=seed)


def zeros(pixels: torch.Tensor) -> torch.Tensor:
    """Return the label 0 for all."""
    return torch.zeros(len(pixels), dtype=torch.int64)


class Plateau:
    """A network for one image that never changes its mind, and remembers what it was asked."""

    def __init__(self):
        self.seen = []

    def __call__(self, points):
        self.seen.append(points[0].clone())
        return torch.tensor([1.0, 0.0]).repeat(len(points), 1)


@pytest.fixture
def one_by_one(monkeypatch):
    """One query at a time, so that each can be looked at."""
    monkeypatch.setattr(sys.modules["generalist.attacks.square"], "AHEAD", ((0, 1),))


def asked_on_a_plateau(pixels: torch.Tensor, threat: Threat, queries: int, seed: int = 0) -> torch.Tensor:
    """Return what is asked about one image: the start, and then candidates made from it alone."""
    network = Plateau()
    target, cost = AttackTarget(network).counted(pixels)
    result = square(target, pixels, zeros(pixels), threat, streams(pixels, zeros(pixels), seed), queries=queries)
    assert not result.broken.any() and torch.equal(result.adversarial[0], network.seen[0])
    assert cost.forward.item() == len(network.seen)
    return torch.stack(network.seen)


@settings(max_examples=20)
@given(images(), threats(), seeds)
def test_every_point_asked_is_allowed(pixels, threat, seed):
    """In ball and pixel range, for any height and width down to a pixel, one channel or three."""
    network = conv_net(tuple(pixels.shape[1:]), seed=seed)
    seen = []

    def recorded(points: torch.Tensor) -> torch.Tensor:
        seen.append(points.clone())
        return network(points)

    result = square(recorded, pixels, zeros(pixels), threat, streams(pixels, zeros(pixels), seed), queries=30)
    assert result.adversarial.shape == pixels.shape
    for points in [*seen, result.adversarial]:
        assert (points >= 0).all() and (points <= 1).all() and not points.isnan().any()
    assert (threat.distance(result.adversarial, pixels) <= float(threat.eps) * (1 + 1e-6)).all()
    for points in seen:
        # Rows are candidates of some image each: near enough to one of them.
        nearest = torch.stack([threat.distance(points, one.expand_as(points)) for one in pixels]).amin(0)
        assert (nearest <= float(threat.eps) * (1 + 1e-6)).all()


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (4, 4), (3, 12), (32, 12)])
def test_any_shape_can_be_attacked(norm, shape):
    """Tiny images and images that are not square, where the published code fails."""
    pixels = torch.rand(2, 3, *shape, generator=generator(0))
    network = conv_net((3, *shape))
    labels = network(pixels).argmax(1)
    threat = Threat(norm, 0.2)
    result = square(network, pixels, labels, threat, streams(pixels, labels), queries=40)
    assert (result.adversarial != pixels).flatten(1).any(1).all()
    start = threat.geometry.squares(threat.ball(pixels), streams(pixels, labels)).start()
    assert (margin(network(result.adversarial), labels) <= margin(network(start), labels) + 1e-6).all()


def test_the_squares_shrink_as_published():
    """Sides on 8 × 8 and 32 × 32 pixels after 0, 10, 50, 200, 500, 1000, 2000 and 4000 queries; never too large."""
    after = [1, 10, 11, 51, 201, 501, 1001, 2001, 4001, 6001, 8001]
    assert [side(query, 8, 8) for query in after] == [7, 7, 5, 4, 3, 2, 1, 1, 1, 1, 1]
    assert [side(query, 32, 32) for query in after] == [29, 29, 20, 14, 10, 7, 5, 4, 3, 2, 1]
    assert side(1, 12, 32) == 12 and side(1, 1, 9) == 1


@pytest.mark.parametrize("shape", [(8, 8), (5, 9)])
def test_in_linf_a_query_sets_one_square_to_one_sign_per_channel(shape, one_by_one):
    """From stripes on; whatever a query does not better is not kept, so each differs from the start in one square."""
    pixels = torch.full((1, 2, *shape), 0.5)
    points = asked_on_a_plateau(pixels, Threat("linf", 0.25), 100)
    signs = (points - pixels).div(0.25)
    assert_close(signs.abs(), torch.ones_like(signs), atol=1e-6, rtol=0)
    assert (signs[0] == signs[0, :, :1]).all(), "the start has vertical stripes"
    combinations = set()
    for query in signs[1:]:
        rows, columns = (query != signs[0]).any(0).nonzero().unbind(1)
        square_of_signs = query[:, rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
        assert max(square_of_signs.shape[1:]) <= side(1, *shape)
        assert (square_of_signs == square_of_signs[:, :1, :1]).all()
        combinations.add(tuple(square_of_signs[:, 0, 0].sign().tolist()))
    assert len(combinations) == 4


def test_squares_come_to_every_place():
    """Also to the last row and column, which the published code leaves out."""
    pixels = torch.full((1, 1, 6, 6), 0.5)
    labels = zeros(pixels)
    pattern = Corners(Threat("linf", 0.25).ball(pixels), streams(pixels, labels))
    for size in (1, 3, 5, 6):
        tops, lefts = pattern.window("window", range(600), size)
        assert tops.unique().tolist() == lefts.unique().tolist() == list(range(7 - size))


def test_squares_and_signs_are_drawn_per_image():
    """Two images in one batch are asked different things."""
    pixels = torch.tensor([0.4, 0.6]).view(2, 1, 1, 1).repeat(1, 1, 8, 8)
    for norm in ("linf", "l2"):
        threat = Threat(norm, 0.2)
        pattern = threat.geometry.squares(threat.ball(pixels), streams(pixels, zeros(pixels)))
        start = pattern.start()
        moves = (
            torch.stack(
                [pattern.plan(range(201, 208))(torch.full((2,), index), torch.arange(2), start) for index in range(7)]
            )
            - start
        )
        assert not torch.equal((start - pixels)[0], (start - pixels)[1])
        assert not torch.equal(moves[:, 0].abs() > 1e-6, moves[:, 1].abs() > 1e-6)


@pytest.mark.parametrize("channels", [1, 3])
def test_in_l2_the_whole_budget_is_always_used(channels, one_by_one):
    """Where the pixel range does not bind, every candidate is at distance eps, the start included."""
    pixels = torch.full((1, channels, 9, 7), 0.5)
    points = asked_on_a_plateau(pixels, Threat("l2", 0.4), 80)
    distances = Threat("l2", 0.4).distance(points, pixels.expand_as(points))
    assert_close(distances, torch.full_like(distances, 0.4), atol=1e-6, rtol=0)
    assert len(points.unique(dim=0)) > 60


def test_in_l2_what_is_outside_both_windows_stays():
    """The budget of one window comes from the other, and from nowhere else."""
    pixels = torch.full((1, 1, 16, 16), 0.5)
    labels, threat = zeros(pixels), Threat("l2", 0.5)
    pattern = Bumps(threat.ball(pixels), streams(pixels, labels))
    start, queries = pattern.start(), range(501, 540)
    size = side(501, 16, 16) + 1  # the next odd number
    plan, moved = pattern.plan(queries), []
    windows = [pattern.window(name, queries, size) for name in ("gain", "loss")]
    for index in range(len(queries)):
        inside = torch.zeros(16, 16, dtype=torch.bool)
        for tops, lefts in windows:
            top, left = tops[index].item(), lefts[index].item()
            inside[top : top + size, left : left + size] = True
        moved.append(plan(torch.tensor([index]), torch.tensor([0]), start) - start)
        assert_close(moved[-1][0, 0][~inside], torch.zeros((~inside).sum()), atol=1e-6, rtol=0)
    assert all((move.abs() > 1e-4).any() for move in moved)


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_trying_ahead_changes_nothing(monkeypatch, norm):
    """Bit for bit the points of one query after the other; only the passes that were forgotten come on top."""
    network = conv_net((1, 6, 6))
    pixels = torch.rand(12, 1, 6, 6, generator=generator(0))
    labels, threat = network(pixels).argmax(1), Threat(norm, {"linf": 0.06, "l2": 0.3, "l1": 1.5}[norm])
    found, costs = [], []
    for ahead in (((0, 1),), ((60, 7), (20, 3), (0, 1))):
        monkeypatch.setattr(sys.modules["generalist.attacks.square"], "AHEAD", ahead)
        target, cost = AttackTarget(network).counted(pixels)
        found.append(square(target, pixels, labels, threat, streams(pixels, labels), queries=150))
        costs.append(cost.forward)
    assert torch.equal(found[0].broken, found[1].broken) and torch.equal(found[0].adversarial, found[1].adversarial)
    assert (costs[0] <= costs[1]).all()


@pytest.mark.parametrize(("norm", "seed"), [*((norm, 0) for norm in part_names("threats")), ("linf", 1)])
def test_only_what_lowers_the_margin_is_kept(norm, seed, one_by_one):
    """So the margin of what is returned is the lowest that was seen, and no success is given up."""
    network, seen = conv_net((1, 6, 6), seed=seed), []
    pixels = torch.rand(1, 1, 6, 6, generator=generator(seed))
    labels = network(pixels).argmax(1)

    def recorded(points: torch.Tensor) -> torch.Tensor:
        seen.append(margin(network(points), labels.expand(len(points)))[0].item())
        return network(points)

    target, cost = AttackTarget(recorded).counted(pixels)
    result = square(target, pixels, labels, Threat(norm, 0.2), streams(pixels, labels), queries=100)
    assert margin(network(result.adversarial), labels).item() == pytest.approx(min(seen), abs=1e-5)
    assert bool(result.broken) == (min(seen) <= 0)
    assert cost.forward.item() == len(seen) and (len(seen) < 100 or not result.broken)
    assert all(earlier > 0 for earlier in seen[:-1]), "a broken image is asked nothing more"


@pytest.mark.parametrize(("norm", "shape", "slack"), [("linf", (3, 4), 0.999), ("l2", (8, 8), 0.65)])
def test_on_a_linear_model_it_breaks_what_can_be_broken(norm, shape, slack):
    """Never what is farther than eps; all that is nearer in Linf, as the worst corner is reached, and most in L2."""
    numbers = generator(0)
    pixels = torch.rand(40, 1, *shape, generator=numbers)
    weights = torch.randn(shape[0] * shape[1], generator=numbers)
    network = linear_net(torch.stack([weights, -weights]), torch.zeros(2))
    labels = network(pixels).argmax(1)
    exact = exact_distances(network[1].weight.detach(), network[1].bias.detach(), pixels, labels, norm)
    eps = exact.median().item() / slack
    result = square(network, pixels, labels, Threat(norm, eps), streams(pixels, labels), queries=1200)
    assert result.broken[exact < slack * eps].all()
    assert not result.broken[exact > eps].any()
    assert 10 < result.broken.sum() < 35


@settings(max_examples=2)
@given(seeds, norms, st.randoms(use_true_random=False))
def test_an_image_is_searched_alike_in_any_company(seed, norm, random):
    """Bit for bit, and in as many passes."""
    network = conv_net((1, 5, 6), seed=seed)
    pixels = torch.rand(70, 1, 5, 6, generator=generator(seed))  # more than go into one pass
    labels, threat = network(pixels).argmax(1), Threat(norm, 0.1 if norm == "linf" else 0.3)
    target, cost = AttackTarget(network).counted(pixels)
    together = square(target, pixels, labels, threat, streams(pixels, labels), queries=30)
    for count in (1, 20):
        rows = torch.tensor(random.sample(range(70), count))
        target, fewer_cost = AttackTarget(network).counted(pixels[rows])
        fewer = square(target, pixels[rows], labels[rows], threat, streams(pixels, labels)[rows], queries=30)
        assert torch.equal(fewer.broken, together.broken[rows])
        assert torch.equal(fewer.adversarial, together.adversarial[rows])
        assert torch.equal(fewer_cost.forward, cost.forward[rows])


def test_a_batch_that_the_start_already_breaks_needs_one_pass():
    """Nothing is asked after that."""
    pixels = torch.rand(3, 1, 4, 4, generator=generator(0))
    seen = []

    def wrong(points: torch.Tensor) -> torch.Tensor:
        seen.append(len(points))
        return torch.tensor([0.0, 1.0]).repeat(len(points), 1)

    target, cost = AttackTarget(wrong).counted(pixels)
    result = square(target, pixels, zeros(pixels), Threat("linf", 0.1), streams(pixels, zeros(pixels)))
    assert result.broken.all() and (cost.forward == 1).all() and len(seen) == 1


def test_logits_that_are_not_numbers_are_claimed_as_broken():
    """Whoever confirms the claim then says what is wrong; a search that hid them would call the image robust."""
    pixels = torch.full((1, 1, 4, 4), 0.5)

    def network(points: torch.Tensor) -> torch.Tensor:
        up = (points > 0.5).flatten(1).float().mean(1)
        return torch.stack([torch.where(up > 0.7, torch.nan, 1.0), torch.zeros(len(points))], dim=1)

    target, cost = AttackTarget(network).counted(pixels)
    result = square(target, pixels, zeros(pixels), Threat("linf", 0.1), streams(pixels, zeros(pixels)), queries=50)
    assert result.broken.all() and cost.forward.item() > 1


def test_a_search_without_queries_is_refused():
    """Even the start is a query; with one there is no more than that."""
    pixels = torch.rand(1, 1, 3, 3)
    threat = Threat("linf", 0.1)
    with pytest.raises(BadInput, match="0 queries"):
        square(Plateau(), pixels, zeros(pixels), threat, streams(pixels, zeros(pixels)), queries=0)
    assert len(asked_on_a_plateau(pixels, threat, 1)) == 1
