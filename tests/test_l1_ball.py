"""The projection onto an L1 ball and the pixel range at once, against a slow exact one and the original's."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from generalist.threats import Threat
from tests import aa_reference
from tests.strategies import generator, images, seeds

RADII = [0.0, 1e-6, 0.01, 0.5, 1.5, 12.0, 1e4]
spreads = st.sampled_from([1e-4, 0.1, 1.0, 30.0])


def nearest_offset(image: np.ndarray, wanted: np.ndarray, eps: float) -> np.ndarray:
    """Return the offset u nearest to `wanted` with Σ|u| <= eps and image + u in [0, 1]: bisection on the threshold."""
    room = np.where(wanted > 0, 1 - image, image)

    def shrunk(threshold: float) -> np.ndarray:
        return np.clip(np.abs(wanted) - threshold, 0, room)

    low, high = 0.0, np.abs(wanted).max()
    if shrunk(low).sum() <= eps:
        return np.sign(wanted) * shrunk(low)
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if shrunk(middle).sum() > eps else (low, middle)
    return np.sign(wanted) * shrunk(high)


def far_from(pixels: torch.Tensor, seed: int, spread: float) -> torch.Tensor:
    """Points that lie anywhere, some pixels of which are where they were."""
    numbers = generator(seed)
    offsets = spread * torch.randn(pixels.shape, generator=numbers, dtype=torch.float64)
    return pixels + offsets * (torch.rand(pixels.shape, generator=numbers) < 0.8)


@given(images(), st.sampled_from(RADII), spreads, seeds)
def test_it_is_the_nearest_point_of_ball_and_range(pixels, eps, spread, seed):
    """To 1e-9 in float64: from no radius to one that holds everything, black and white images included."""
    pixels = pixels.double()
    points = far_from(pixels, seed, spread)
    projected = Threat("l1", eps).ball(pixels).project_(points.clone())
    for image, point, ours in zip(pixels.numpy(), points.numpy(), projected.numpy(), strict=True):
        theirs = image + nearest_offset(image, point - image, eps)
        np.testing.assert_allclose(ours, theirs, atol=1e-9, rtol=0)


@given(images(), st.sampled_from([0.01, 0.5, 1.5]), spreads, seeds)
def test_every_allowed_point_lies_behind_it(pixels, eps, spread, seed):
    """What makes a point the nearest of a convex set: the way on to any allowed point is no way towards the origin."""
    pixels, threat = pixels.double(), Threat("l1", eps)
    points = far_from(pixels, seed, spread)
    projected = threat.project(points, pixels)
    for other in range(20):
        allowed = threat.random_start(pixels, generator(other))
        towards = ((points - projected) * (allowed - projected)).flatten(1).sum(1)
        assert (towards <= 1e-9 * (1 + spread)).all()


@given(images(), st.sampled_from(RADII), spreads, seeds)
def test_float32_stays_in_ball_and_range(pixels, eps, spread, seed):
    """Within eps by float64 to 1e-6 of it, in [0, 1] exactly, near the exact point; and in place."""
    threat = Threat("l1", eps)
    points = far_from(pixels, seed, spread).float()
    exact = threat.project(points.double(), pixels.double())
    projected = threat.ball(pixels).project_(points)
    assert projected is points and projected.dtype == torch.float32
    assert (projected >= 0).all() and (projected <= 1).all()
    assert (threat.distance(projected, pixels) <= eps * (1 + 1e-6)).all()
    assert_close(projected.double(), exact, atol=1e-6, rtol=0)


@given(images(), st.sampled_from(RADII), spreads, seeds, st.sampled_from([torch.float32, torch.float64]))
def test_projecting_twice_is_projecting_once(pixels, eps, spread, seed, dtype):
    """To rounding."""
    ball = Threat("l1", eps).ball(pixels.to(dtype))
    once = ball.project_(far_from(pixels, seed, spread).to(dtype))
    assert_close(ball.project_(once.clone()), once, atol=2e-7 if dtype == torch.float32 else 1e-12, rtol=0)


def test_no_radius_leaves_the_image_and_a_large_one_the_clipped_point():
    """Exactly, in float32."""
    pixels = torch.rand(5, 3, 8, 8, generator=generator(0)).round(decimals=1)
    points = far_from(pixels, 1, 2.0).float()
    assert torch.equal(Threat("l1", 0.0).project(points, pixels), pixels)
    assert_close(Threat("l1", 192.0).project(points, pixels), points.clamp(0, 1), atol=1e-7, rtol=0)


@pytest.mark.parametrize("side", [32, 224])
def test_large_images_stay_in_the_ball(side):
    """Where half a unit of each of many pixels could add up to more than 1e-6 of eps."""
    pixels = torch.rand(2, 3, side, side, generator=generator(0))
    threat = Threat("l1", 12.0)
    projected = threat.project(pixels + torch.rand(pixels.shape, generator=generator(1)) - 0.5, pixels)
    distance = threat.distance(projected, pixels)
    assert (distance <= 12 * (1 + 1e-6)).all() and (distance >= 12 * (1 - 1e-2)).all()


@pytest.mark.parametrize("name", ["plain_at", "bn_at"])
def test_it_is_the_original_s(name):
    """Forty offsets, to 1e-9."""
    with np.load(aa_reference.folder() / f"golden_trajectories_{name}.npz") as arrays:
        given_ = {key: torch.from_numpy(arrays[f"l1proj_{key}"]) for key in ["x", "y", "u", "eps"]}
    pixels, wanted, expected = (given_[key][:, None, None] for key in "xyu")
    projected = Threat("l1", given_["eps"].item()).project(pixels + wanted, pixels)
    assert_close(projected - pixels, expected, atol=1e-9, rtol=0)
