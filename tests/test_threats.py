"""Threats: balls, projections, starts and their spelling."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from generalist.config import Quantity, ThreatOptions
from generalist.errors import BadInput
from generalist.randomness import ImageStreams
from generalist.threats import Threat, threat_from
from tests.strategies import generator, images, norms, seeds, threats


def far_from(pixels: torch.Tensor, seed: int, spread: float = 3.0) -> torch.Tensor:
    """Points that lie anywhere."""
    return pixels + spread * torch.randn(pixels.shape, generator=generator(seed)).to(pixels.dtype)


def boundary_start(threat: Threat, pixels: torch.Tensor, streams: ImageStreams) -> torch.Tensor:
    """Return where APGD begins."""
    return threat.project(pixels + threat.ball(pixels).boundary_offset(streams), pixels)


def assert_allowed(points: torch.Tensor, pixels: torch.Tensor, threat: Threat) -> None:
    """In the ball by float64 and in the pixel range exactly."""
    assert (points >= 0).all() and (points <= 1).all()
    assert (threat.distance(points, pixels) <= float(threat.eps) * (1 + 1e-6)).all()


@given(images(), threats(), seeds, st.sampled_from([torch.float32, torch.float64]))
def test_a_projected_point_lies_in_the_ball_and_in_the_pixel_range(pixels, threat, seed, dtype):
    """Within eps in float64 to 1e-6 of it, and in [0, 1] exactly, wherever the point came from."""
    pixels = pixels.to(dtype)
    points = threat.project(far_from(pixels, seed), pixels)
    assert points.dtype == dtype
    assert_allowed(points, pixels, threat)


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("eps", [0.003, 1 / 255, 0.5])
def test_rounding_stays_in_the_ball_where_all_pixels_round_alike(norm, eps):
    """On flat images every pixel rounds the same way, which adds up in L2."""
    pixels = torch.linspace(0, 1, 101).view(-1, 1, 1, 1).repeat(1, 3, 32, 32)
    assert_allowed(Threat(norm, eps).project(pixels + 0.9, pixels), pixels, Threat(norm, eps))


@given(images(), threats(), seeds)
def test_projecting_twice_is_projecting_once(pixels, threat, seed):
    """To rounding, as L2 adds the image again; and the arguments are left as they are."""
    points = far_from(pixels, seed)
    before = points.clone()
    once = threat.project(points, pixels)
    assert torch.equal(points, before)
    assert_close(threat.project(once, pixels), once, atol=3e-7, rtol=0)


@given(images(), seeds, norms)
def test_a_point_that_is_allowed_stays_where_it_is(pixels, seed, norm):
    """To rounding: half the radius away from its border nothing needs to move."""
    threat = Threat(norm, 0.3)
    points = Threat(norm, 0.15).project(far_from(pixels, seed), pixels)
    assert_close(threat.project(points, pixels), points, atol=1e-7, rtol=0)


@given(images(), seeds)
def test_linf_projects_on_the_nearest_point(pixels, seed):
    """Which is pixel by pixel the nearest number of [x - eps, x + eps] in [0, 1]."""
    points = far_from(pixels, seed)
    nearest = points.clamp(pixels - 0.1, pixels + 0.1).clamp(0, 1)
    assert_close(Threat("linf", 0.1).project(points, pixels), nearest, atol=2e-7, rtol=0)


@given(images(), seeds)
def test_l2_projects_along_the_ray_and_then_on_the_pixel_range(pixels, seed):
    """x + eps (p - x) / |p - x|, clipped."""
    offsets = far_from(pixels, seed) - pixels
    expected = pixels + 0.4 * offsets / offsets.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
    points = pixels + offsets
    outside = offsets.flatten(1).norm(dim=1) > 0.4
    assert_close(Threat("l2", 0.4).project(points, pixels)[outside], expected.clamp(0, 1)[outside], atol=1e-5, rtol=0)


@given(images(), threats(), seeds)
def test_starts_are_allowed_points(pixels, threat, seed):
    """Of training and of APGD alike."""
    labels = torch.zeros(len(pixels), dtype=torch.int64)
    assert_allowed(threat.random_start(pixels, generator(seed)), pixels, threat)
    assert_allowed(boundary_start(threat, pixels, ImageStreams.of(pixels, labels, seed=seed)), pixels, threat)


@given(images(), threats(), seeds)
def test_a_radius_of_its_own_is_that_of_the_image_alone(pixels, threat, seed):
    """With a scale per image, each projection and each random point is that in a ball of that size."""
    scale = 0.2 + 2 * torch.rand(len(pixels), generator=generator(seed))
    ball, points = threat.ball(pixels, scale), far_from(pixels, seed)
    together, drawn = ball.project_(points.clone()), ball.project_(pixels + ball.random_offset(generator(seed)))
    for i, own in enumerate(scale.tolist()):
        alone = Threat(threat.norm, own * float(threat.eps))
        assert_close(together[i : i + 1], alone.project(points[i : i + 1], pixels[i : i + 1]), atol=1e-5, rtol=0)
        assert_allowed(drawn[i : i + 1], pixels[i : i + 1], alone)


def test_the_random_start_is_uniform_in_the_linf_ball():
    """Each tenth of [-eps, eps] gets a tenth of the pixels."""
    grey = torch.full((100, 1, 20, 20), 0.5)
    offsets = Threat("linf", 0.25).random_start(grey, generator(0)) - grey
    shares = torch.histc(offsets, bins=10, min=-0.25, max=0.25) / offsets.numel()
    assert_close(shares, torch.full((10,), 0.1), atol=0.01, rtol=0)


def test_the_random_start_is_uniform_in_the_l2_ball():
    """The share of points within r is (r / eps)^d, and no direction is preferred."""
    grey = torch.full((20_000, 1, 1, 3), 0.5)
    threat = Threat("l2", 0.3)
    points = threat.random_start(grey, generator(0))
    inner = (threat.distance(points, grey) / 0.3) ** 3
    assert_close(torch.histc(inner.float(), bins=10, min=0, max=1) / 20_000, torch.full((10,), 0.1), atol=0.01, rtol=0)
    assert_close((points - grey).mean(dim=0), torch.zeros(1, 1, 3), atol=0.005, rtol=0)


@given(norms, seeds)
def test_apgd_starts_at_the_border_of_the_ball(norm, seed):
    """Where the pixel range does not bind, the distance is eps; starts differ, but for those at corners of L1."""
    grey = torch.full((5, 2, 3, 4), 0.5)
    streams = ImageStreams.of(grey + torch.arange(5).view(-1, 1, 1, 1) / 100, torch.zeros(5).long(), seed=seed)
    threat = Threat(norm, 0.2)
    points = boundary_start(threat, grey, streams)
    assert_close(threat.distance(points, grey), torch.full((5,), 0.2, dtype=torch.float64), atol=1e-6, rtol=0)
    assert len(points.unique(dim=0)) > 1


@given(images(), seeds)
def test_the_steepest_step_gains_the_dual_norm(pixels, seed):
    """<g, s> is |g|_1 in Linf and |g|_2 in L2, for a step s of length 1."""
    gradient = torch.randn(pixels.shape, generator=generator(seed))
    for norm, order in (("linf", 1), ("l2", 2)):
        threat = Threat(norm, 1.0)
        step = threat.geometry.steepest_ascent(gradient)
        ones = torch.ones(len(pixels), dtype=torch.float64)
        assert_close(threat.distance(step, torch.zeros_like(step)), ones, atol=1e-6, rtol=0)
        assert_close((gradient * step).flatten(1).sum(1), gradient.flatten(1).norm(p=order, dim=1))


def test_no_gradient_gives_no_step():
    """Zero stays zero; a tiny gradient, whose squares vanish in float32, still gives a full step in Linf."""
    nothing = torch.zeros(2, 1, 2, 2)
    assert torch.equal(Threat("linf", 1.0).geometry.steepest_ascent(nothing), nothing)
    assert torch.equal(Threat("l2", 1.0).geometry.steepest_ascent(nothing), nothing)
    assert torch.equal(Threat("linf", 1.0).geometry.steepest_ascent(nothing + 1e-30), torch.ones_like(nothing))


def test_distances_in_closed_form():
    """Three pixels moved by 0.3, 0.4 and 0."""
    pixels = torch.zeros(1, 1, 1, 3)
    points = torch.tensor([0.3, 0.4, 0.0], dtype=torch.float64).view(1, 1, 1, 3)
    assert Threat("linf", 1.0).distance(points, pixels).item() == pytest.approx(0.4)
    assert Threat("l2", 1.0).distance(points, pixels).item() == pytest.approx(0.5)


def test_lengths_of_large_images_are_summed_in_float64():
    """Half a million float32 squares lose several digits otherwise, and with them the border of the ball."""
    offsets = torch.rand(1, 1, 700, 700, generator=generator(0))
    exact = offsets.double().square().sum().sqrt().item()
    assert Threat("l2", 1.0).ball(offsets).norm(offsets).item() == pytest.approx(exact, rel=1e-9)


@pytest.mark.parametrize("written", ["linf:8/255", "l2:0.5", "linf:1e-3", "l2:1"])
def test_a_threat_is_spelt_as_it_was_written(written):
    """parse and str are inverse, and a spelling is only a spelling."""
    threat = Threat.parse(written)
    assert str(threat) == written
    norm, eps = written.split(":")
    assert threat == Threat(norm, float(Quantity(eps))) and hash(threat) == hash(Threat(norm, float(Quantity(eps))))


def test_a_threat_from_the_configuration_keeps_its_spelling():
    """So verdicts of one threat have one name."""
    assert str(threat_from(ThreatOptions.model_validate({"norm": "linf", "eps": "8/255"}))) == "linf:8/255"
    assert str(Threat("linf", 0.25)) == "linf:0.25"


@pytest.mark.parametrize(
    ("written", "reason"),
    [
        ("linf", "not of the form"),
        ("linf:abc", "not a number"),
        ("linf:1/0", "not a number"),
        ("lnf:0.1", "did you mean 'linf'"),
        ("l2:-0.5", "can't be negative"),
    ],
)
def test_a_threat_that_makes_no_sense_is_refused(written, reason):
    """With one sentence that says what would."""
    with pytest.raises(BadInput, match=reason):
        Threat.parse(written)


@pytest.mark.parametrize("eps", [math.nan, math.inf])
def test_a_radius_must_be_finite(eps):
    """Whoever computed it."""
    with pytest.raises(BadInput, match="not finite"):
        Threat("l2", eps)
