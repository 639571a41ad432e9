"""The declared space: wrong ones get a sentence before any work, right ones configurations that the schema knows."""

import json
from functools import partial
from typing import Any

import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from generalist.config import Config, load, with_overrides
from generalist.errors import BadInput
from pipelines.tuning.samplers import Keyed, Untried
from pipelines.tuning.space import Point, Space
from tests.training_factory import PARAMS

SGD, ADAM = {"name": "sgd", "lr": 0.1}, {"name": "adam", "lr": 1e-3}
OPTIMIZER = "experts.natural.optimizer"


def _config(space: dict[str, Any]) -> Config:
    return load(PARAMS, overrides=[f"tuning.space={json.dumps(space)}"])


@pytest.mark.parametrize(
    ("space", "sentence"),
    [
        ({}, "tuning.space is empty"),
        ({"mixing.warm_upp": {"low": 1, "high": 3}}, "'warm_upp' is unknown; did you mean 'warm_up'?"),
        ({"evaluation.seed": {"low": 1, "high": 3}}, "evaluation.seed can't be searched"),
        ({"mixing.weights.robust.7.1": {"low": 0.1, "high": 0.3}}, "'7' is unknown; there are 3 values in its place"),
        ({"mixing.warm_up": {"low": 10, "high": 40}}, "mixing.warm_up=40 is wrong: mixing.warm_up is 40, but"),
        ({"mixing.decay": {"low": 0.5, "high": 1.5}}, "mixing.decay=1.5 is wrong"),
        ({"mixing.interval": {"choices": [1, "often"]}}, "mixing.interval=often is wrong"),
        ({OPTIMIZER: {"choices": {"a": {"name": "sdg", "lr": 1}}}}, "unknown name 'sdg'; did you mean 'sgd'?"),
        (
            {"mixing.decay": {"low": 0.5, "high": 0.9, "when": {"mixing.intervall": "1"}}},
            "mixing.decay depends on mixing.intervall, which is not searched",
        ),
        (
            {
                "mixing.decay": {"low": 0.5, "high": 0.9, "when": {"mixing.interval": "3"}},
                "mixing.interval": {"choices": [1, 2]},
            },
            "mixing.decay depends on mixing.interval being '3', which it can't be; known here: 1, 2",
        ),
        (
            {
                "mixing.decay": {"low": 0.5, "high": 0.9, "when": {"mixing.interval": "1"}},
                "mixing.interval": {"low": 1, "high": 2},
            },
            "has no choices to depend on",
        ),
        (
            {
                "mixing.decay": {"choices": [0.5, 0.9], "when": {"mixing.interval": "1"}},
                "mixing.interval": {"choices": [1, 2], "when": {"mixing.decay": "0.5"}},
            },
            "conditions go round in a circle",
        ),
        (
            {
                OPTIMIZER: {"choices": {"sgd": SGD, "adam": ADAM}},
                f"{OPTIMIZER}.momentum": {"low": 0.1, "high": 0.9, "when": {OPTIMIZER: "adam"}},
            },
            "momentum=0.1 is wrong",
        ),
    ],
)
def test_a_wrong_space_gets_one_sentence(space: dict[str, Any], sentence: str) -> None:
    """It says what, where and what would be right."""
    with pytest.raises(BadInput) as error:
        Space(_config(space))
    assert sentence in str(error.value)
    assert "\n" not in str(error.value)
    assert str(error.value).startswith("tuning.space")


@pytest.mark.parametrize(
    ("dimension", "sentence"),
    [
        ({"low": 5, "high": 1}, "low must be the smaller one"),
        ({"low": 1, "high": 5, "step": 0}, "greater than 0"),
        ({"low": 0, "high": 5, "log": True}, "log needs a low above 0"),
        ({"low": 1, "hihg": 5}, "unknown key 'hihg'; did you mean 'high'?"),
        ({"choices": []}, "at least 1 item"),
        ({"low": 1}, "'high' is missing"),
    ],
)
def test_a_wrong_dimension_is_told_when_the_configuration_is_read(dimension: dict[str, Any], sentence: str) -> None:
    """By its path, before anything else."""
    with pytest.raises(BadInput, match=r"override .*: tuning\.space\.mixing\.interval") as error:
        _config({"mixing.interval": dimension})
    assert sentence in str(error.value)


def test_a_dimension_is_searched_where_its_condition_holds() -> None:
    """And its value is written after that of what it lies inside of."""
    space = Space(
        _config(
            {
                f"{OPTIMIZER}.momentum": {"low": 0.5, "high": 0.9, "when": {OPTIMIZER: "sgd"}},
                OPTIMIZER: {"choices": {"sgd": SGD, "adam": ADAM}},
            }
        )
    )
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=1))
    points = [space.suggest(study.ask()) for _ in range(20)]
    assert {tuple(point) for point in points} == {(OPTIMIZER, f"{OPTIMIZER}.momentum"), (OPTIMIZER,)}
    for point in points:
        own = space.at(point).experts["natural"].optimizer
        assert own.name == point[OPTIMIZER]
        assert getattr(own, "momentum", None) == point.get(f"{OPTIMIZER}.momentum")


def test_a_point_that_was_chosen_stays() -> None:
    """A trial that is taken up again asks once more, and gets the same answers."""
    space, study = Space(load(PARAMS)), optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=1))
    trial = study.ask()
    first = space.suggest(trial)
    assert space.suggest(optuna.Trial(study, trial._trial_id)) == first


def test_a_grid_has_every_point_once() -> None:
    """Those of a dimension under a condition, where it holds."""
    space = Space(
        _config(
            {
                "mixing.interval": {"choices": [1, 2]},
                "mixing.warm_up": {"low": 10, "high": 20, "step": 5},
                "mixing.decay": {"choices": [0.5, 0.9], "when": {"mixing.interval": ["2"]}},
            }
        )
    )
    grid = space.grid()
    assert len(grid) == 3 + 3 * 2
    assert len({tuple(sorted((path, str(value)) for path, value in point.items())) for point in grid}) == len(grid)
    with pytest.raises(BadInput, match="a grid can't have all values"):
        Space(_config({"mixing.decay": {"low": 0.5, "high": 0.9}})).grid()


def test_alternatives_are_all_declared_decays_and_weights() -> None:
    """Of the configuration they are asked for, whatever else it has; a continuous range has none."""
    space = Space(
        _config(
            {
                "mixing.decay": {"choices": [0.5, 0.9]},
                "mixing.weights.robust.2.1": {"low": 0.4, "high": 0.8, "step": 0.2},
                "mixing.warm_up": {"low": 10, "high": 20},
            }
        )
    )
    found = space.alternatives(space.at({"mixing.warm_up": 17}))
    assert {own.mixing.warm_up for own in found if own.mixing} == {17}
    told = {(str(own.mixing.decay), str(own.mixing.weights["robust"])) for own in found if own.mixing}
    assert len(found) == len(told) == 6
    endless = Space(_config({"mixing.decay": {"low": 0.5, "high": 0.9}}))
    assert endless.alternatives(endless.config) == ()
    assert endless.endless() == ["mixing.decay"]


def test_the_spaces_of_all_presets_are_right() -> None:
    """Those that come with the project."""
    from generalist.config import preset_names

    for name in preset_names():
        assert Space(load(preset=name)).described()


def draw(config: Config, count: int, *, value: bool = True) -> list[Point]:
    """Return the points of so many trials, one after the other, of a search that stays in memory."""
    space = Space(config)
    study = optuna.create_study()
    study.sampler = Keyed(config.tuning, Untried(space, partial(study.get_trials, deepcopy=False)))
    points = []
    for number in range(count):
        trial = study.ask()
        points.append(space.suggest(trial))
        if value:
            study.tell(trial, float(number % 3))
    return points


def different(points: list[Point]) -> int:
    """How many of them."""
    told = [{path: round(v, 6) if isinstance(v, float) else v for path, v in point.items()} for point in points]
    return len({tuple(sorted(map(str, point.items()))) for point in told})


@given(
    sampler=st.sampled_from(["tpe", "nsga2", "random"]),
    seed=st.integers(0, 99),
    ended=st.booleans(),
    data=st.data(),
)
@settings(max_examples=8)
def test_no_point_is_tried_twice_while_others_are_left(
    sampler: str, seed: int, data: st.DataObject, *, ended: bool
) -> None:
    """By whatever sampler, with conditions and steps, whether trials have ended or run; the choices are the same again."""
    space: dict[str, Any] = {
        "mixing.interval": {"choices": data.draw(st.lists(st.integers(1, 9), min_size=1, max_size=3, unique=True))},
        OPTIMIZER: {"choices": {"sgd": SGD, "adam": ADAM}},
        f"{OPTIMIZER}.momentum": {"low": 0.1, "high": 0.3, "step": 0.1, "when": {OPTIMIZER: "sgd"}},
    }
    config = with_overrides(
        _config(space), [f"tuning.sampler={sampler}", f"tuning.seed={seed}", "tuning.startup_trials=3"]
    )
    size = len(Space(config).grid())
    points = draw(config, size + 2, value=ended)
    assert different(points[:size]) == size
    assert different(points) == size
    assert draw(config, size + 2, value=ended) == points


def test_points_are_drawn_as_a_whole_without_trying_one_twice() -> None:
    """By a sampler that draws all parameters at once."""
    config = _config({"mixing.interval": {"choices": [1, 2]}, "mixing.decay": {"choices": [0.5, 0.9]}})
    config = with_overrides(config, ["tuning.sampler=gp", "tuning.startup_trials=2"])
    points = draw(config, 5)
    assert different(points[:4]) == different(points) == 4


def test_values_without_end_are_always_left() -> None:
    """There is nothing to count then, and the sampler draws as it would."""
    config = _config({"mixing.interval": {"choices": [1]}, "mixing.decay": {"low": 0.5, "high": 0.9}})
    assert len({point["mixing.decay"] for point in draw(config, 12)}) == 12


def test_a_vast_space_costs_nothing_to_look_at() -> None:
    """Points come one by one; a range with more values than anybody names has no end of them."""
    wide = {"low": 1, "high": 4096}
    space = Space(_config({"training.batch_size": wide, "seed": wide, "mixing.interval": {"low": 1, "high": 10**9}}))
    assert space.endless() == ["mixing.interval"]
    points = space.points({"training.batch_size": 7})
    for seed in (1, 2):
        assert next(points) == {"seed": seed, "training.batch_size": 7, "mixing.interval": None}
