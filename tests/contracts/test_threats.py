"""What every file of `generalist/threats` keeps, by being there."""

import pytest
import torch
from torch.testing import assert_close

from generalist.attacks import autoattack
from generalist.config.section import part_names
from generalist.randomness import ImageStreams
from generalist.threats import Threat, ball_of
from tests.strategies import generator, linear_net

pytestmark = pytest.mark.parametrize("norm", part_names("threats"))


def pictures(count: int = 40) -> torch.Tensor:
    """Around the middle of the pixel range, which then does not bind."""
    return 0.45 + 0.1 * torch.rand(count, 1, 4, 6, generator=generator(0))


def test_no_step_gains_more_than_the_dual_norm(norm: str) -> None:
    """A step of length 1 gains at most that and something; of any length, no more than it in proportion."""
    gradient = torch.randn(40, 1, 4, 6, generator=generator(1))
    ball = ball_of(norm)
    step, most = ball.steepest_ascent(gradient), ball.dual_norm(gradient)
    assert (ball.norm(step) <= 1 + 1e-6).all()
    gained = (gradient.double() * step.double()).flatten(1).sum(1)
    assert (gained > 0).all() and (gained <= most * (1 + 1e-6)).all()
    other = Threat(norm, 0.2).ball(pictures()).random_offset(generator(2))
    assert ((gradient.double() * other.double()).flatten(1).sum(1) <= most * ball.norm(other) * (1 + 1e-6)).all()
    assert not ball.steepest_ascent(torch.zeros_like(gradient)).any()


def test_a_ball_of_some_images_is_a_part_of_the_ball_of_all(norm: str) -> None:
    """To the bit: projected and drawn image by image."""
    images, rows = pictures(), torch.tensor([7, 0, 39])
    far = images + torch.randn(images.shape, generator=generator(3))
    threat = Threat(norm, 0.3)
    whole, labels = threat.ball(images), torch.zeros(40, dtype=torch.int64)
    assert torch.equal(whole.of(rows).project_(far[rows]), whole.project_(far.clone())[rows])
    streams = ImageStreams.of(images, labels, seed=4)
    assert torch.equal(whole.of(rows).boundary_offset(streams[rows]), whole.boundary_offset(streams)[rows])


def test_the_whole_range_allows_every_image(norm: str) -> None:
    """From that radius on, black may become white; a radius just below it is taken as one."""
    black = torch.zeros(1, 1, 4, 6)
    most = ball_of(norm).whole_range(24.0)
    assert ball_of(norm).norm(black + 1).item() <= most * (1 + 1e-6)
    Threat(norm, most * 0.999).check_plausible(24)


def test_a_start_is_drawn_from_its_generator_alone(norm: str) -> None:
    """Inside the ball; the images and torch's global generator are left as they are."""
    images, threat, before = pictures(), Threat(norm, 0.1), torch.get_rng_state()
    kept = images.clone()
    first, second, other = (threat.random_start(images, generator(seed)) for seed in (7, 7, 8))
    assert torch.equal(first, second) and not torch.equal(first, other)
    assert (threat.distance(first, images) <= 0.1 * (1 + 1e-6)).all()
    assert torch.equal(images, kept) and torch.equal(torch.get_rng_state(), before)


@pytest.mark.usefixtures("short_gradients")
@pytest.mark.parametrize(("attack", "share"), [("apgd-ce", 1.01), ("fab-t", 1.01), ("square", 2.5)])
def test_on_a_linear_model_attacks_break_what_can_be_broken(norm: str, attack: str, share: float) -> None:
    """Farther than its hyperplane, by the dual norm, nothing is; nearer all is, for Square far nearer."""
    images = pictures()
    weights = 8 * torch.randn(3, 24, generator=generator(5))
    network = linear_net(weights, -weights.sum(1) / 2)
    logits, labels = network(images).detach().double(), network(images).argmax(1)
    own = logits.gather(1, labels[:, None])
    slopes = (weights[labels][:, None] - weights).view(120, 1, 4, 6).double()
    dual = ball_of(norm).dual_norm(slopes).view(40, 3)
    exact = torch.where(dual > 0, (own - logits) / dual, torch.inf).amin(1)
    eps = float(exact.median())
    result = autoattack(network, images, labels, Threat(norm, eps), attacks=[attack], square_queries=200)
    assert result.robust[exact > 1.01 * eps].all()
    assert not result.robust[share * exact < eps].any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_measuring_and_stepping_leave_their_arguments_alone(norm: str, dtype: torch.dtype) -> None:
    """In float64, too, where converting makes no copy."""
    points = pictures().to(dtype)
    before, threat = points.clone(), Threat(norm, 0.1)
    threat.distance(points, points)
    threat.geometry.steepest_ascent(points)
    threat.geometry.dual_norm(points)
    threat.project(points, points)
    threat.ball(points).norm(points)
    assert torch.equal(points, before)


def test_symbols_tell_norms_apart(norm: str) -> None:
    """For readers of the report."""
    symbols = {name: ball_of(name).symbol for name in part_names("threats")}
    assert symbols[norm] and list(symbols.values()).count(symbols[norm]) == 1


def test_filling_gains_what_is_missing(norm: str) -> None:
    """By the least offset along all slopes; where all the room is too little, by all of it."""
    steepness = torch.rand(20, 24, generator=generator(6), dtype=torch.float64) + 0.1
    room = torch.rand(20, 24, generator=generator(7), dtype=torch.float64)
    most = (steepness * room).sum(1, keepdim=True)
    missing = most * torch.linspace(0.1, 1.5, 20, dtype=torch.float64)[:, None]
    offset = ball_of(norm).fill(steepness, room, missing)
    assert (offset >= 0).all() and (offset <= room + 1e-9).all()
    assert_close((steepness * offset).sum(1, keepdim=True), torch.minimum(missing, most), rtol=1e-6, atol=1e-9)
