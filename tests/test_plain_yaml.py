"""YAML from outside: whatever is in a file, there comes a value of plain parts, or one sentence, and soon."""

import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from generalist.config import Quantity, load
from generalist.config.plain_yaml import parse_plain, read_plain
from generalist.errors import BadInput
from tests.training_factory import PARAMS

ALIASES = "a0: &a0 [x, x]\n" + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 10))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("seed: " + "9" * 5000, "line 1: a number has 5,000 characters"),
        ("seed: 0x" + "f" * 5000, "a number has 5,002 characters"),
        (ALIASES, "there are more than 100,000 values"),
        ("a: &a [1, *a]", "alias 'a' stands for what it is in"),
        ("a: &a {b: *a}", "alias 'a' stands for what it is in"),
        ("a: *nothing", "alias 'nothing' stands for what it is in, or for nothing"),
        ("[" * 1000 + "]" * 1000, "more than 40 sections lie in each other"),
        ("a: " * 1000 + "1", "mapping values are not allowed here"),
        ("seed: !!int x", "tag tag:yaml.org,2002:int is not taken"),
        ("seed: !!timestamp x", "is not taken"),
        ("seed: !!python/object/apply:os.system [x]", "is not taken"),
        ("seed: !local 3", "tag !local is not taken"),
        ('seed: "\\ud800"', "half of a surrogate pair is no character"),
        ("? [a, b]\n: 1", "a key is a section or a list"),
        ("seed: 1\nseed: 2", "line 1: key 'seed' is given twice"),
        ("a: [1, 2", "line 1"),
        ("\x00", "is not YAML"),
    ],
)
def test_what_is_no_plain_value_is_refused_in_one_sentence(tmp_path: Path, text: str, reason: str) -> None:
    """By the limit that it goes beyond, and its line."""
    file = tmp_path / "params.yaml"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(BadInput) as error:
        load(file)
    assert reason in str(error.value)
    assert len(str(error.value).splitlines()) == 1


def test_dates_are_text_and_no_date_is_one_too() -> None:
    """There is nothing that a date could be for."""
    assert parse_plain("[2020-13-45, 2020-01-02]") == ["2020-13-45", "2020-01-02"]


def test_ordinary_anchors_are_followed() -> None:
    """DVC's users have them."""
    text = "base: &base {lr: 0.1}\none: *base\nother:\n  <<: *base\n  momentum: 0.9\n"
    assert parse_plain(text)["other"] == {"lr": 0.1, "momentum": 0.9}


@pytest.mark.parametrize("kind", ["fifo", "folder", "device", "large", "latin", "missing"])
def test_only_small_regular_text_files_are_read(tmp_path: Path, kind: str) -> None:
    """Nothing else is opened: it might never end."""
    file = tmp_path / "params.yaml"
    if kind == "fifo":
        os.mkfifo(file)
    elif kind == "folder":
        file.mkdir()
    elif kind == "device":
        file = Path("/dev/zero")
    elif kind == "large":
        file.write_bytes(b"# " + b"x" * 2**20)
    elif kind == "latin":
        file.write_bytes(b"seed: \xe7")
    with pytest.raises(BadInput) as error:
        read_plain(file)
    assert len(str(error.value).splitlines()) == 1


@pytest.mark.parametrize(
    "written", ["1e1000000000", "1/1e1000000000", "1e-9999", "9" * 70, "1e9_999", "0.1" * 40, "1/0", "nan", "inf"]
)
def test_numbers_that_would_never_end_are_none(written: str) -> None:
    """Fractions are exact, so a large exponent would be written out."""
    with pytest.raises(ValueError, match="is not"):
        Quantity(written)


@pytest.mark.parametrize(
    "override",
    [
        "training.epochs=1000000000",
        "training.threads=1000000000",
        "model.width=1000000",
        "experts.robust.objective.attack.steps=1000000000000000000",
        "experts.robust.objective.threat={norm: l2, eps: 1.0e+300}",
        "evaluation.square_queries=1000000000000",
        "tuning.trials=1000000000",
        "seed=" + "9" * 5000,
    ],
)
def test_options_beyond_any_use_are_refused(override: str) -> None:
    """When they are read, not when memory or patience is at its end."""
    with pytest.raises(BadInput) as error:
        load(PARAMS, overrides=[override])
    assert len(str(error.value).splitlines()) == 1
    assert str(error.value).startswith("override '")


def test_a_network_larger_than_the_memory_is_refused() -> None:
    """Before it is given any."""
    from generalist.models import build
    from tests.model_factory import RGB

    config = load(PARAMS, overrides=["model={name: wide_resnet, depth: 994, widen: 100, width: 8192}"])
    with pytest.raises(BadInput, match=r"a wide_resnet of these options needs [\d,]+ GiB .* choose a smaller one"):
        build(config.model, RGB)


@pytest.mark.parametrize(
    ("overrides", "blamed"),
    [
        (["training.epochs="], "override 'training.epochs='"),
        (["training.epochs=forty"], "override 'training.epochs=forty'"),
        (["training={epochs: 3, batch_size: none}"], "override 'training={epochs: 3, batch_size: none}'"),
        (["training.epochs=3", "mixing.intervall=3"], "override 'mixing.intervall=3'"),
    ],
)
def test_an_override_is_blamed_for_its_own_mistake(overrides: list[str], blamed: str) -> None:
    """Not the file, which is right."""
    with pytest.raises(BadInput) as error:
        load(PARAMS, overrides=overrides)
    assert str(error.value).splitlines()[0].startswith(blamed)


def test_a_file_is_blamed_for_its_own(tmp_path: Path) -> None:
    """Whatever else is overridden."""
    file = tmp_path / "params.yaml"
    file.write_text(PARAMS.read_text(encoding="utf-8").replace("epochs: 40", "epochs: forty"), encoding="utf-8")
    with pytest.raises(BadInput, match=r"params\.yaml: training\.epochs is"):
        load(file, overrides=["seed=1"])


TEXT = st.text(st.characters(exclude_categories=("C", "Zl", "Zp")), max_size=20)  # others YAML itself folds
PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**9), 10**9) | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=20,
)


@given(value=PLAIN)
def test_what_yaml_writes_is_read_back(value: Any) -> None:
    """Plain values are the same afterwards."""
    assert parse_plain(yaml.safe_dump(value, allow_unicode=True)) == value


@settings(max_examples=80, deadline=2000)
@given(data=st.data())
def test_any_text_is_a_value_or_an_error_of_yaml(data: st.DataObject) -> None:
    """Parts of YAML's syntax in any order, and damage to a real file."""
    parts = [
        "a: ",
        "- ",
        "[",
        "]",
        "{",
        "}",
        "&x ",
        "*x",
        "!!int ",
        "!y ",
        "|\n ",
        '"\\ud800"',
        "? ",
        ": ",
        "<<: ",
        "\n",
    ]
    syntax = st.lists(st.sampled_from([*parts, "1e999", "2020-13-45", "0b2", "1:2:3", "~", "  "]), max_size=30)
    real = PARAMS.read_text(encoding="utf-8")
    cut = st.tuples(st.integers(0, len(real)), st.integers(0, 40), st.text(max_size=5))
    text = data.draw(syntax.map("".join) | cut.map(lambda own: real[: own[0]] + own[2] + real[own[0] + own[1] :]))
    with suppress(yaml.YAMLError, UnicodeEncodeError):
        parse_plain(text)
