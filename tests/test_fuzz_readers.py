"""Every reader of what comes from outside: a value or one sentence, whatever is in the file, and never a long wait."""

import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from generalist import untrusted
from generalist.config import plain_yaml
from tests.bad_inputs import KINDS, TOKENS, Edit, Reader, deliberate, edited, readers, special

NAMES = ("YAML", "manifest", "npy", "npz", "verdicts", "state", "weights", "ONNX", "sealed ONNX", "PNG")
NAMES += ("JPEG", "evaluation")
EDITS = st.lists(
    st.tuples(st.integers(0, KINDS - 1), st.floats(0, 1), st.sampled_from(TOKENS) | st.binary(max_size=8)),
    max_size=3,
)


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Reader]:
    """All readers by name."""
    return readers(tmp_path_factory.mktemp("readers") / "here")


def test_every_reader_takes_its_own_files(known: dict[str, Reader]) -> None:
    """But those whose example is of another kind."""
    assert set(known) == set(NAMES)
    assert {name for name, own in known.items() if not own.tried(own.whole)} == {"verdicts", "evaluation"}


@pytest.mark.parametrize("name", NAMES)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(edits=EDITS)
def test_any_file_is_a_value_or_one_sentence(name: str, known: dict[str, Reader], edits: list[Edit]) -> None:
    """Cut, overwritten, with more or less in it."""
    began = time.monotonic()
    known[name].tried(edited(known[name].whole, edits))
    assert time.monotonic() - began < 10


@pytest.mark.parametrize("name", NAMES)
def test_only_regular_files_are_read(name: str, known: dict[str, Reader]) -> None:
    """At once, by every reader."""
    for kind, ask in special(known[name]):
        began = time.monotonic()
        assert not ask() or kind == "empty", kind
        assert time.monotonic() - began < 5


@pytest.mark.long
def test_what_somebody_thought_of_is_handled(tmp_path: Path) -> None:
    """Facts, overrides, threats, addresses; for prepared data see test_data_edited."""
    for name, ask in deliberate(tmp_path):
        if name.startswith("prepared data"):
            continue
        began = time.monotonic()
        ask()
        assert time.monotonic() - began < 10, name


@given(st.text() | st.binary())
def test_any_text_is_json_or_a_value_error(text: str | bytes) -> None:
    """Nothing else."""
    try:
        value = untrusted.parse_json(text)
    except ValueError:
        return
    assert value is None or isinstance(value, bool | int | float | str | list | dict)


@pytest.mark.parametrize(
    "text", ["[" * 65 + "]" * 65, "1" * 65, '"\\ud800"', "[" * 10**6, '{"a":' * 10**5, b"\xff", b'"caf\xe9"']
)
def test_json_beyond_the_limits_is_refused(text: str | bytes) -> None:
    """By depth, digits and characters."""
    with pytest.raises(ValueError, match=r"."):
        untrusted.parse_json(text)
    assert untrusted.parse_json("[" * 64 + "]" * 64)
    assert untrusted.parse_json("1" * 64)


def test_the_stated_limits_are_those_of_the_code(root: Path) -> None:
    """The table of `docs/operations.md`."""
    table = (root / "docs" / "operations.md").read_text(encoding="utf-8")
    assert (
        f"{untrusted.LARGEST // 2**20} MiB, {untrusted.DEEPEST} levels, integers of {untrusted.LONGEST} digits" in table
    )
    yaml = f"{plain_yaml.LARGEST // 2**20} MiB, {plain_yaml.DEEPEST} levels, {plain_yaml.MOST:,} values"
    assert f"{yaml}, numbers of {plain_yaml.LONGEST} characters" in table
