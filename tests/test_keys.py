"""Keys of states: what does the same has the same key, however it is written; what doesn't has another."""

from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from generalist import platform_fingerprint
from generalist.config import Config, Schedule
from generalist.data import Dataset
from generalist.objectives import Objective
from generalist.store import Store
from generalist.training import Trainer
from tests.training_factory import small

ATTACK = "experts.robust.objective.attack"
TRADES = "experts.robust.objective={name: trades, threat: {norm: linf, eps: 0.15}, attack: {steps: 2%s}}"


def last_key(config: Config, dataset: Dataset, name: str = "robust") -> str:
    """Of an expert's trajectory at the end of the warm-up; nothing is trained."""
    training = Trainer(config, dataset, Store(Path("nowhere")))
    ahead = training._keys.ahead(training.rounds[0], (name,), {name: training._keys.start(name)})
    return ahead[name][config.mixing.warm_up if config.mixing else config.training.checkpoint_epochs].trajectory


SAME: list[tuple[list[str], list[str]]] = [
    ([f"{ATTACK}={{name: fgsm}}"], [f"{ATTACK}={{name: fgsm, random_start: false}}"]),
    ([f"{ATTACK}={{name: fgsm}}"], [f"{ATTACK}={{name: fgsm, steps: 1}}"]),
    ([f"{ATTACK}={{name: fgsm}}"], [f"{ATTACK}={{steps: 1, step_size: 0.15, random_start: false}}"]),
    ([f"{ATTACK}={{steps: 2}}"], [f"{ATTACK}={{steps: 2, step_size: 0.1875}}"]),
    ([f"{ATTACK}={{steps: 2, step_size: 8/255}}"], [f"{ATTACK}={{steps: 2, step_size: 0.03137254901960784}}"]),
    ([TRADES % ""], [TRADES % ", random_start: false"]),
    (
        ["experts.robust.optimizer.lr=0.05", "experts.robust.schedule=2"],
        ["experts.robust.optimizer.lr=0.1", "experts.robust.schedule=1"],
    ),
    (["experts.robust.schedule=1"], ["experts.robust.schedule=[[0, 1], [0.5, 1], [1, 1]]"]),
    (["experts.robust.averaging=0.9"], ["experts.robust.averaging=[[0, 0.9], [1, 0.9]]"]),
    (["engine.compile=auto"], ["engine.compile=false"]),
    (["engine.eager=true", "engine.compile=true"], ["engine.eager=true"]),
    (["engine.tf32=true"], ["engine.tf32=false"]),
    (
        ["engine.precision=bfloat16", "engine.attack_precision=bfloat16"],
        ["engine.precision=bfloat16", "engine.attack_precision=float32"],
    ),
    (["training.processes=experts", "training.images=mapped"], []),
    (["evaluation.precision=bfloat16", "evaluation.attack=standard"], []),
]


@pytest.mark.parametrize(("one", "other"), SAME, ids=lambda own: ", ".join(own) or "default")
def test_what_does_the_same_has_the_same_key(dataset: Dataset, one: list[str], other: list[str]) -> None:
    """Options without effect on bits, and numbers that are written otherwise, train nothing anew."""
    assert last_key(small(*one), dataset) == last_key(small(*other), dataset)


@pytest.mark.parametrize(
    "override",
    [
        f"{ATTACK}={{name: fgsm}}",
        f"{ATTACK}={{steps: 2, random_start: false}}",
        f"{ATTACK}={{steps: 2, step_size: 0.1}}",
        TRADES % "",
        TRADES % ", step_size: 0.1",
        "experts.robust.schedule=2",
        "engine.eager=true",
        "engine.compile=true",
        "engine.precision=bfloat16",
        "engine.attack_precision=bfloat16",
        "training.divergence={retries: 2}",
    ],
)
def test_what_does_something_else_has_another_key(dataset: Dataset, override: str) -> None:
    """Each of these may change bits."""
    assert last_key(small(override), dataset) != last_key(small(f"{ATTACK}={{steps: 2}}"), dataset)


def test_how_images_are_attacked_is_of_no_concern_to_who_attacks_none(dataset: Dataset) -> None:
    """The natural expert's key knows no attack's precision, and not the robust one's objective."""
    others = ("engine.attack_precision=bfloat16", TRADES % "")
    assert {last_key(small(own), dataset, "natural") for own in others} == {last_key(small(), dataset, "natural")}


def test_on_a_gpu_tf32_and_the_compiler_count(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    """There they change bits."""
    monkeypatch.setattr(platform_fingerprint, "_card", lambda: {"device": "a GPU"})
    ways = ("engine.tf32=true", "engine.tf32=false", "engine.compile=false")
    assert len({last_key(small("training.device=cuda", way), dataset) for way in ways}) == 3


class Scheduled(Objective):
    """An objective with an option that changes over the training."""

    name: Literal["scheduled"] = "scheduled"
    beta: Schedule = Schedule.model_validate(1)

    def loss(self, *_: Any) -> Any:
        raise NotImplementedError


def with_beta(beta: Any, *overrides: str) -> Config:
    """Return a configuration whose robust expert has that objective."""
    config = small(*overrides)
    objective = Scheduled.model_validate({"beta": beta})
    robust = config.experts["robust"].model_copy(update={"objective": objective})
    return config.model_copy(update={"experts": {**config.experts, "robust": robust}})


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (1, [[0, 1], [1, 1]], True),
        (1, [[0, 1], [0.5, 1], [1, 9]], True),  # they part after the warm-up, which ends at two fifths
        (1, [[0, 1], [0.1, 1], [1, 9]], False),
        (1, 2, False),
    ],
)
def test_an_option_over_time_counts_by_its_values(dataset: Dataset, one: Any, other: Any, same: bool) -> None:
    """At the steps that were made, not by how the schedule is written or how it goes on."""
    assert (last_key(with_beta(one), dataset) == last_key(with_beta(other), dataset)) == same


def test_trainings_of_other_length_share_no_key_where_an_option_runs_over_progress(dataset: Dataset) -> None:
    """The same schedule is at other values there; a constant is not."""
    short, long = "training.epochs=5", "training.epochs=6"
    rising = [[0, 1], [1, 2]]
    assert last_key(with_beta(rising, short), dataset) != last_key(with_beta(rising, long), dataset)
    assert last_key(with_beta(1, short), dataset) == last_key(with_beta(1, long), dataset)


@settings(max_examples=30, deadline=None)
@given(rate=st.floats(1e-4, 1.0), factor=st.sampled_from([0.25, 0.5, 2.0, 4.0]))
def test_only_the_product_of_rate_and_schedule_counts(dataset: Dataset, rate: float, factor: float) -> None:
    """By powers of two the products are the same floats."""
    one = small(f"experts.robust.optimizer.lr={rate!r}", "experts.robust.schedule=1")
    other = small(f"experts.robust.optimizer.lr={rate / factor!r}", f"experts.robust.schedule={factor}")
    assert last_key(one, dataset) == last_key(other, dataset)
