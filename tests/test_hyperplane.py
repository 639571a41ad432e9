"""Projections onto a hyperplane inside the pixel range against a slow exact solver, and the original's."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from generalist.threats import ball_of
from generalist.threats.geometry.hyperplane_projection import project_onto_hyperplane
from tests import aa_reference
from tests.exact_linear import NORMS

LENGTHS = {"linf": lambda d: abs(d).max(initial=0), "l2": np.linalg.norm, "l1": lambda d: abs(d).sum()}
SLOPES = ["normal", "few", "equal", "uneven", "none"]
PLANES = ["through the point", "a little off", "reachable", "through the far corner", "beyond it"]


@st.composite
def planes(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Points, normals and offsets of some rows: on edges of the range, without slope, out of reach, and ordinary ones."""
    numbers = np.random.default_rng(draw(st.integers(0, 2**31)))
    rows, pixels = draw(st.integers(1, 4)), draw(st.integers(1, 12))
    points, normals, offsets = np.empty((rows, pixels)), np.empty((rows, pixels)), np.empty(rows)
    for row in range(rows):
        point = numbers.random(pixels)
        point = {"inside": point, "corner": point.round(), "some on an edge": np.clip(2 * point - 0.5, 0, 1)}[
            draw(st.sampled_from(["inside", "corner", "some on an edge"]))
        ]
        normal = numbers.standard_normal(pixels)
        kind = draw(st.sampled_from(SLOPES))
        normal *= {"few": numbers.random(pixels) < 0.3, "uneven": 10.0 ** numbers.integers(-6, 3, pixels)}.get(kind, 1)
        normal = {"equal": np.sign(normal), "none": 0 * normal}.get(kind, normal)
        far = np.where(normal > 0, 1.0, 0.0) if draw(st.booleans()) else np.where(normal > 0, 0.0, 1.0)
        here, there = normal @ point, normal @ far
        place = draw(st.sampled_from(PLANES))
        share = {"through the point": 0, "a little off": 1e-7, "reachable": numbers.random(), "beyond it": 1.5}
        points[row], normals[row] = point, normal
        offsets[row] = here + share.get(place, 1) * (there - here) + (place == "beyond it") * np.sign(there - here)
    return points, normals, offsets


def least_length(norm: str, point: np.ndarray, normal: np.ndarray, missing: float) -> float:
    """Return the length of the least offset that gains what is missing, or leads to the last corner.

    By bisection on how far each pixel moves, and for L1 by the corners of the dual: the largest of
    λ missing - Σ max(λ |w_i| - 1, 0) room_i.
    """
    steep = np.abs(normal)
    room = np.where(normal * missing > 0, 1 - point, point)
    missing = abs(missing)
    if steep @ room <= missing:
        return LENGTHS[norm](room * (steep > 0))
    if norm == "l1":
        corners = [0.0, *(1 / steep[steep > 0])]
        return max(price * missing - (np.maximum(price * steep - 1, 0) * room).sum() for price in corners)
    speed = steep if norm == "l2" else np.ones_like(steep)
    low, high = 0.0, 1 / min(speed[steep > 0], default=1)
    for _ in range(2000):
        middle = (low + high) / 2
        enough = (steep * np.minimum(middle * speed, room)).sum() >= missing
        low, high = (low, middle) if enough else (middle, high)
        if middle in {low, high} and high - low <= math.ulp(high):
            break
    return LENGTHS[norm](np.minimum(high * speed, room) * (steep > 0))


def between(norm: str, point: np.ndarray, normal: np.ndarray, missing: float, doubt: float, length: float, by: float):
    """Whether a length is the least one; where slopes are small it is only as certain as what is missing."""
    certain = np.sign(missing) * (abs(missing) + np.array([-doubt, doubt])).clip(0)
    shortest, longest = (least_length(norm, point, normal, gain) for gain in certain)
    return shortest - by <= length <= longest + by


@pytest.mark.parametrize("norm", NORMS)
@given(planes())
def test_the_offset_is_the_least_that_reaches_the_plane(norm, rows):
    """To 1e-9 in float64: on the plane, no longer than the slow solver's, inside the range; else the nearest corner."""
    moved = project_onto_hyperplane(ball_of(norm).fill, *(torch.from_numpy(array) for array in rows)).numpy()
    for point, normal, offset, d in zip(*rows, moved, strict=True):
        missing = offset - normal @ point
        room = np.where(normal * missing > 0, 1 - point, point)
        reach, size = np.abs(normal) @ room, np.abs(normal).max()
        assert ((point + d >= 0) & (point + d <= 1)).all()
        assert (d[normal == 0] == 0).all() and (d * normal * missing >= 0).all()
        if abs(missing) >= reach:
            assert np.abs(d) @ np.abs(normal) == pytest.approx(reach, abs=1e-9 * size)
        if abs(missing) <= reach:
            assert normal @ d == pytest.approx(missing, abs=1e-9 * size)
            assert between(norm, point, normal, missing, 1e-13 * size, LENGTHS[norm](d), 1e-9)


@pytest.mark.parametrize("norm", NORMS)
@given(planes())
def test_in_float32_it_is_as_exact_as_float32_is(norm, rows):
    """Inside the range exactly, and as long and as near to the plane as in float64: to 1e-5 of the sizes there."""
    single = [torch.from_numpy(array).float() for array in rows]
    moved = project_onto_hyperplane(ball_of(norm).fill, *single)
    assert moved.dtype == torch.float32 and moved.isfinite().all()
    assert (single[0] + moved >= 0).all() and (single[0] + moved <= 1).all()
    for point, normal, offset, d in zip(*(array.double().numpy() for array in (*single, moved)), strict=True):
        missing, size = offset - normal @ point, np.abs(normal).max()
        reach = np.abs(normal) @ np.where(normal * missing > 0, 1 - point, point)
        assert np.abs(normal) @ np.abs(d) == pytest.approx(min(abs(missing), reach), abs=1e-5 * size)
        assert between(norm, point, normal, missing, 1e-5 * size, LENGTHS[norm](d), 1e-5)


@pytest.mark.parametrize("norm", NORMS)
@given(planes())
def test_a_row_does_not_depend_on_the_others(norm, rows):
    """Alone or in company, bit for bit."""
    together = project_onto_hyperplane(ball_of(norm).fill, *(torch.from_numpy(array) for array in rows))
    for row in range(len(together)):
        alone = project_onto_hyperplane(ball_of(norm).fill, *(torch.from_numpy(array[row : row + 1]) for array in rows))
        assert torch.equal(alone[0], together[row])


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("name", ["plain_at", "bn_at"])
def test_it_is_the_original_s(norm, name):
    """Forty planes, some out of reach: the same offsets to 1e-9."""
    with np.load(aa_reference.folder() / f"golden_trajectories_{name}.npz") as arrays:
        given_, expected = [arrays[f"proj_{key}"] for key in "twb"], arrays[f"proj_{norm}"]
    moved = project_onto_hyperplane(ball_of(norm).fill, *(torch.from_numpy(array) for array in given_))
    assert_close(moved, torch.from_numpy(expected), atol=1e-9, rtol=0)
