"""The algebra of mixing."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from generalist.config import Schedule, load
from generalist.mixing import RunningAverage, ema_decay_with_warmup, mixing_schedules, weighted_sum
from generalist.tensors import Weights

PARAMS = Path(__file__).parent.parent / "params.yaml"


def walk(steps: int, seed: int) -> list[Weights]:
    """Return a random trajectory in float64, with an integer buffer."""
    draw = torch.Generator().manual_seed(seed)
    position = torch.zeros(7, dtype=torch.float64)
    trajectory = []
    for step in range(steps + 1):
        position = position + torch.randn(7, dtype=torch.float64, generator=draw)
        trajectory.append({"w": position.clone(), "count": torch.tensor(step)})
    return trajectory


@settings(max_examples=10)
@given(st.integers(2, 4), st.integers(0, 10**6), st.floats(0, 0.9999))
def test_the_sum_of_shares_is_the_direct_recursion(experts: int, seed: int, decay: float) -> None:
    """theta_g(s) = a theta_g(s-1) + (1-a) sum_k w_k theta_k(s) to 1e-12 over 500 steps (DESIGN: linearity)."""
    steps = 500
    draw = np.random.default_rng(seed)
    weights = draw.dirichlet(np.ones(experts), size=steps + 1)
    decays = ema_decay_with_warmup(Schedule.model_validate(decay), steps)
    start = torch.randn(7, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    trajectories = [walk(steps, seed + k) for k in range(experts)]

    shares = [RunningAverage({"w": start, "count": torch.tensor(0)}, float(weights[0][k])) for k in range(experts)]
    direct = start.clone()
    for s in range(1, steps + 1):
        for k, share in enumerate(shares):
            share.update(trajectories[k][s], float(decays[s]), float((1 - decays[s]) * weights[s][k]))
        mixture = sum(weights[s][k] * trajectories[k][s]["w"] for k in range(experts))
        direct = decays[s] * direct + (1 - decays[s]) * mixture
    total = weighted_sum([share.weights for share in shares])
    scale = max(float(step["w"].abs().max()) for own in trajectories for step in own)
    assert float((total["w"] - direct).abs().max()) <= 1e-12 * max(1.0, scale)
    assert int(total["count"]) == steps


def test_mixing_equal_weights_changes_nothing() -> None:
    """The mixture of one and the same point is that point."""
    point = {"w": torch.randn(5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))}
    torch.testing.assert_close(weighted_sum([point, point, point], [0.2, 0.3, 0.5])["w"], point["w"])


def test_weight_one_returns_that_expert_exactly() -> None:
    """The others don't leave a trace."""
    one, other = walk(1, 0)[1], walk(1, 1)[1]
    assert torch.equal(weighted_sum([one, other], [1.0, 0.0])["w"], one["w"])


def test_an_average_copies_what_it_is_given() -> None:
    """The weights it started from stay as they were."""
    start = {"w": torch.ones(3)}
    RunningAverage(start).update({"w": torch.zeros(3)}, 0.5, 0.5)
    assert torch.equal(start["w"], torch.ones(3))


def test_the_decay_ramps_up() -> None:
    """(s + 1) / (s + 10), then the decay itself; entry 0 is the start."""
    values = ema_decay_with_warmup(Schedule.model_validate(0.9), 200)
    assert values[1] == pytest.approx(2 / 11)
    assert values[-1] == 0.9
    assert len(values) == 201


def test_courses_lie_on_the_simplex() -> None:
    """The experts' weights sum to one after every step, and follow the schedule to its end."""
    by_expert = mixing_schedules(load(PARAMS), 680)
    total = sum(course.weight for course in by_expert.values())
    np.testing.assert_allclose(total, 1)
    assert by_expert["robust"].weight[0] == 1
    assert by_expert["robust"].weight[-1] == pytest.approx(0.4)
