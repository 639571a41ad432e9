"""The configuration tree: what is accepted, what is refused and with which sentence, what is printed back."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from generalist import config as configuration
from generalist.config import Config, Quantity, Schedule, load, params_digest
from generalist.config.plain_yaml import read_plain
from generalist.errors import BadInput

PARAMS = Path(__file__).parent.parent / "params.yaml"


def sentence(*overrides: str) -> str:
    """Return the sentence with which the default configuration refuses overrides."""
    with pytest.raises(BadInput) as refusal:
        load(PARAMS, overrides=overrides)
    return str(refusal.value)


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        (
            "mixing.intervall=3",
            "override 'mixing.intervall=3': mixing: unknown key 'intervall'; did you mean 'interval'?",
        ),
        (
            "experts.robust.optimizer.momentumm=0",
            "experts.robust.optimizer: unknown key 'momentumm'; did you mean 'momentum'?",
        ),
        (
            "experts.robust.objective.beta=6",
            "experts.robust.objective: unknown key 'beta'; known here: attack, name, threat",
        ),
        (
            "mixing.warm_up=50",
            "mixing.warm_up is 50, but training.epochs is 40: the warm-up must end before the last epoch",
        ),
        ("experts.robust.objective.threat.eps=-8/255", 'eps is "-8/255", but it should be greater than 0'),
        (
            "experts.robust.objective={name: adversarial}",
            "experts.robust.objective: 'threat' is missing: what this expert is trained against",
        ),
        ("mixing.weights.robust=1.2", "mixing.weights must not be negative and must sum to one"),
        ("mixing.weights={natural: 0.5, robust: 0.4}", "at progress 0.0 they sum to 0.9"),
        ("mixing.weights={other: 1}", "mixing.weights names 'other', but the experts are: natural, robust"),
        ("mixing.weights={}", "mixing.weights leaves out 2 experts; one at most may be left out"),
        (
            "mixing={burst: true, warm_up: 2, interval: {steps: 3}, weights: {robust: 1}}",
            "give mixing.interval in epochs",
        ),
        ("mixing.decay=1", "'decay' must lie in [0, 1)"),
        ("experts.natural.averaging=1.5", "'averaging' must lie in [0, 1)"),
        ("experts.natural.schedule=-1", "'schedule' must not fall below 0"),
        ("experts.natural.schedule=[[0.5, 1], [0.2, 0]]", "progress values between 0 and 1 in rising order"),
        ("experts.natural.schedule=[1, 2]", "a schedule is a number or a list of [progress, value] pairs"),
        ("model.name=smal_cnn", "model: unknown name 'smal_cnn'; did you mean 'small_cnn'?"),
        ("model={}", "model: 'name' is missing: one of"),
        (
            "deploy=expert:x",
            "deploy is 'expert:x', but this configuration has only: expert:natural, expert:robust, global",
        ),
        ("training.epochs=two", 'training.epochs is "two", but it should be a valid integer'),
        ("training.epochs=0", "training.epochs is 0, but it should be greater than or equal to 1"),
        ("data.seed=4294967296", "data.seed is 4294967296, but it should be less than 4294967296"),
        ("data.validation=1", "data.validation is 1, but it should be less than 1"),
        ("experts.robust.objective.attack={name: fgsm, steps: 5}", "fgsm takes one step"),
        ("experts.robust.optimizer.lr=fast", "'fast' is not a number such as 0.1, 8/255 or 1e-3"),
        ("experts.robust.optimizer.lr=.inf", "is not finite"),
        ("experts.robust.optimizer.lr=true", "True is not a number"),
        ("mixing.interval", "is not of the form section.key=value"),
        ("evaluation.threats.3.eps=0.1", "evaluation.threats is a list of 1"),
        ("seed.x=1", "seed is a single value and has no key 'x'"),
        ("experts.robust.optimizer={lr: 1}", "experts.robust.optimizer: 'name' is missing"),
        ("experts.robust.optimizer.name=sgdd", "unknown name 'sgdd'; did you mean 'sgd'?"),
        ("mixing.interval={step: 3}", "mixing.interval: unknown key 'step'; did you mean 'steps'?"),
        ("experts.Bad.x=1", "the name 'Bad' must be of lower-case letters, digits and _"),
        ("evaluation.threats=[]", "evaluation.threats is [], but"),
        ("seed=[", "the value is not YAML"),
    ],
)
def test_a_wrong_value_gets_one_sentence_that_names_it(override: str, expected: str) -> None:
    """Each mistake is told in one line: what, where, and how to mend it."""
    assert expected in sentence(override).splitlines()[0]


def test_one_wrong_threat_is_one_mistake() -> None:
    """It does not make the list too short as well."""
    assert sentence("evaluation.threats.0.eps=-1").splitlines() == [
        "override 'evaluation.threats.0.eps=-1': evaluation.threats.0.eps is -1, but it should be greater than 0"
    ]


def test_all_mistakes_are_told_at_once() -> None:
    """Two mistakes give two lines."""
    assert len(sentence("training.epochs=0", "mixing.intervall=3").splitlines()) == 2


def test_the_expert_named_global_is_refused() -> None:
    """The mixture has that name already."""
    expert = "{objective: {name: natural}, optimizer: {name: sgd, lr: 0.1}}"
    assert "name the expert otherwise" in sentence(
        f"experts.global={expert}", "mixing.weights.natural=0", "mixing.weights.robust=0"
    )


def test_fractions_and_exponents_are_numbers_and_are_shown_as_written() -> None:
    """`8/255` and `1e-3` come back as typed, and equal their values."""
    config = load(PARAMS, overrides=["experts.robust.objective.threat.eps=8/255", "experts.robust.optimizer.lr=1e-3"])
    shown = configuration.to_yaml(config)
    assert "eps: 8/255" in shown
    assert "lr: 1e-3" in shown
    assert configuration.flatten(config)["experts.robust.objective.threat.eps"] == "8/255"
    assert config.experts["robust"].objective.threat.eps == 8 / 255  # type: ignore[attr-defined]


@given(numerator=st.integers(1, 10**6), denominator=st.integers(1, 10**6))
def test_a_fraction_is_the_nearest_float(numerator: int, denominator: int) -> None:
    """Parsing rounds once."""
    assert Quantity(f"{numerator}/{denominator}") == numerator / denominator


def test_the_shown_tree_reads_back_as_the_same_configuration(tmp_path: Path) -> None:
    """Config to YAML to config is the identity, for every preset."""
    for name in configuration.preset_names():
        config = load(preset=name)
        path = tmp_path / f"{name}.yaml"
        path.write_text(configuration.to_yaml(config), encoding="utf-8")
        assert load(path) == config


def test_the_digest_ignores_spelling_and_sees_values() -> None:
    """`8/255` and its decimal value are the same; another value is another."""
    eps = "evaluation.threats.0.eps="
    digests = [
        configuration.digest(configuration.canonical(load(PARAMS, overrides=[eps + text])))
        for text in ("8/255", repr(8 / 255), "0.0314")
    ]
    assert digests[0] == digests[1] != digests[2]


def test_the_digest_ignores_the_spelling_of_schedules() -> None:
    """`1/4` and `0.25` are one decay, alone and in knots."""
    for one, other in (("1/4", "0.25"), ("[[0, 1/4], [1, 1e-3]]", "[[0.0, 0.25], [1.0, 0.001]]")):
        digests = {
            configuration.digest(configuration.canonical(load(PARAMS, overrides=[f"mixing.decay={text}"])))
            for text in (one, other)
        }
        assert len(digests) == 1


def test_yaml_mistakes_name_the_line(tmp_path: Path) -> None:
    """Broken YAML, a key given twice, a missing file, a folder, no text."""
    path = tmp_path / "params.yaml"
    for text, expected in [
        ("seed: 0\nseed: 1\n", "'seed' is given twice"),
        ("seed: [\n", "line"),
        ("- 1\n", "should be a valid dictionary"),
    ]:
        path.write_text(text, encoding="utf-8")
        with pytest.raises(BadInput, match=expected):
            load(path)
    path.write_bytes(b"\xff\xfe\xff")
    with pytest.raises(BadInput, match="it is not UTF-8 text"):
        load(path)
    with pytest.raises(BadInput, match="can't be read: No such file"):
        load(tmp_path / "none.yaml")
    with pytest.raises(BadInput, match=r"there is no preset 'digit'; did you mean 'digits'\?"):
        load(preset="digit")


def test_a_path_or_a_preset_is_needed() -> None:
    """Neither or both is a mistake of the caller."""
    with pytest.raises(TypeError, match="either a path or a preset"):
        load()


def test_params_yaml_is_the_digits_preset() -> None:
    """The embedded default and the preset of that name are one configuration."""
    assert load(PARAMS) == load(preset="digits")


def test_every_default_is_written_out_in_params_yaml() -> None:
    """`dvc exp run -S key=value` finds each key only if it is there."""
    written = read_plain(PARAMS)

    def keys(tree: object, prefix: str = "") -> set[str]:
        if not isinstance(tree, dict):
            return {prefix}
        return set().union(*(keys(value, f"{prefix}.{key}") for key, value in tree.items()), {prefix})

    assert keys(load(PARAMS).model_dump(mode="json")) <= keys(written)


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(-5, 5)), min_size=1, max_size=5), st.floats(0, 1))
def test_a_schedule_stays_between_its_extremes(knots: list[tuple[float, float]], progress: float) -> None:
    """Linear pieces never leave the range of the knots, and hit each knot."""
    knots = sorted(knots, key=lambda knot: knot[0])
    schedule = Schedule.model_validate([list(knot) for knot in knots])
    low, high = schedule.extremes()
    assert low - 1e-9 <= schedule.at(progress) <= high + 1e-9
    assert schedule.at(knots[-1][0]) == pytest.approx(knots[-1][1])


def test_a_schedule_jumps_to_the_later_value() -> None:
    """Two knots at one progress: the later one holds from there on."""
    schedule = Schedule.model_validate([[0, 1], [0.5, 1], [0.5, 0.1], [1, 0.1]])
    assert (schedule.at(0.4999), schedule.at(0.5)) == (1, pytest.approx(0.1))


def test_weights_of_a_left_out_expert_take_the_rest() -> None:
    """The natural expert's weight is one less the robust one's, at every progress."""
    weights = load(PARAMS).mixing_weights()
    for progress in (0.0, 0.3, 0.8, 1.0):
        assert weights["natural"].at(progress) + weights["robust"].at(progress) == pytest.approx(1)


def test_a_single_expert_needs_no_mixing() -> None:
    """Plain training is a valid configuration."""
    overrides = [
        "mixing=null",
        "deploy=expert:natural",
        "experts={natural: {objective: {name: natural}, optimizer: {name: adamw, lr: 1e-3}}}",
    ]
    assert isinstance(load(PARAMS, overrides=overrides), Config)


@given(
    st.lists(
        st.tuples(st.sampled_from([0.0, 0.1, 0.25, 1 / 3, 0.5, 0.9, 1.0]), st.floats(-5, 5)), min_size=1, max_size=5
    ),
    st.integers(1, 300),
)
def test_many_values_of_a_schedule_have_the_bits_of_single_ones(knots: list[tuple[float, float]], total: int) -> None:
    """Jumps, pieces and ends alike."""
    knots = sorted(knots, key=lambda knot: knot[0])
    schedule = Schedule.model_validate([list(knot) for knot in knots])
    single = [schedule.at(step / total) for step in range(total + 1)]
    assert schedule.values(0, total + 1, total).tolist() == single


def test_mixing_weights_along_the_training_have_the_bits_of_single_ones() -> None:
    """The one that takes the rest, too."""
    config = load(PARAMS)
    progress = np.arange(681, dtype=np.float64) / 680
    for weight in config.mixing_weights().values():
        assert weight.along(progress).tolist() == [weight.at(step / 680) for step in range(681)]


@pytest.mark.parametrize(
    ("override", "same"),
    [
        ("tuning.trials=7", True),
        ("training.processes=experts", True),
        ("training.images=mapped", True),
        ("training.checkpoint_minutes=3", True),
        ("evaluation.shards=2", True),
        ("evaluation.batch_size=64", True),
        ("seed=1", False),
        ("mixing.interval=3", False),
        ("evaluation.square_queries=7", False),
        ("training.threads=2", False),
    ],
)
def test_the_digest_of_parameters_leaves_out_what_has_no_effect(override: str, same: bool) -> None:
    """And nothing else."""
    assert (params_digest(load(PARAMS, overrides=[override])) == params_digest(load(PARAMS))) is same


def test_keys_that_are_dotted_paths_themselves_are_overridden() -> None:
    """Those of `tuning.space`, known or new, whole or a part of one, and conditions; and what is wrong is blamed on it."""
    before = load(PARAMS).tuning.space
    found = load(
        PARAMS,
        overrides=[
            "tuning.space.mixing.warm_up={low: 5, high: 9}",
            "tuning.space.mixing.warm_up.high=8",
            "tuning.space.mixing.decay.choices=[0.2, 0.5]",
            "tuning.space.experts.robust.optimizer.lr={low: 1e-3, high: 1, when: {experts.robust.optimizer: sgd}}",
            "tuning.space.experts.robust.optimizer.lr.when.experts.robust.optimizer=adam",
            "tuning.space.experts.robust.optimizer.lr.when.mixing.interval='2'",
        ],
    ).tuning.space
    assert found.keys() == before.keys() | {"mixing.decay", "experts.robust.optimizer.lr"}
    assert found["mixing.warm_up"].model_dump() == {"low": 5, "high": 8}
    assert found["experts.robust.optimizer.lr"].when == {"experts.robust.optimizer": "adam", "mixing.interval": "2"}
    assert all(found[path] == before[path] for path in before if path not in {"mixing.warm_up", "mixing.decay"})
    own = "tuning.space.mixing.warm_up={low: 9, high: 5}"
    assert sentence(own).startswith(f"override '{own}': tuning.space.mixing.warm_up: low is 9")
