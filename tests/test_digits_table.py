"""Figures of `make table` are one file's, in every place that shows them."""

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks import columns_table, digits_table
from benchmarks.digits_record import BEGIN, END, FILE, ROOT, Table, read, render, write
from generalist.config import load, preset_path
from generalist.errors import BadInput
from generalist.threats import threat_from

TABLE = read()
SHOWN = {str(path.relative_to(ROOT)): text for path, text in render(TABLE).items()}
RENDERED = re.compile(f"{BEGIN}.*{END}|# time:.*?# source: [^\n]*", re.DOTALL)


def shown_in(root: Path) -> dict[str, str]:
    """Read the places as they are."""
    return {name: (root / name).read_text(encoding="utf-8") for name in SHOWN}


def copied(root: Path, **changed: str) -> Path:
    """All places, up to date but for some."""
    for name, text in (SHOWN | changed).items():
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_text(text, encoding="utf-8")
    return root


def other_table() -> Table:
    """One whose figures differ in every row."""
    rows = [
        row.model_copy(
            update={
                "trained": tuple(
                    training.model_copy(update={"natural": training.headline.columns["pgd"]})
                    for training in row.trained
                ),
            }
        )
        for row in TABLE.rows
    ]
    return TABLE.model_copy(update={"rows": tuple(rows)})


@pytest.mark.parametrize("name", SHOWN)
def test_every_place_shows_what_is_recorded(name: str) -> None:
    """Rendered again, nothing changes; else `python benchmarks/digits_table.py --render` mends it."""
    assert (ROOT / name).read_text(encoding="utf-8") == SHOWN[name]


def test_the_places_are_all_that_quote_the_command() -> None:
    """Wherever `make table` and a day stand together, they are rendered; and each row has its preset."""
    files = [path for pattern in ("*.md", "docs/**/*.md", "*.yaml", "presets/**/*.yaml") for path in ROOT.glob(pattern)]
    dated = re.compile(r"`make table`, 20\d\d-")
    quoting = {str(path.relative_to(ROOT)) for path in files if dated.search(path.read_text("utf-8"))}
    assert quoting == {name for name, text in SHOWN.items() if dated.search(text)}  # a preset need not be a row
    assert {row.title: row.preset for row in TABLE.rows} == digits_table.ROWS


def test_the_record_is_of_the_presets_as_they_are() -> None:
    """Of their epochs, threat and attacks, over as many seeds as `make table` takes."""
    for row in TABLE.rows:
        config = load(preset=row.preset)
        options = config.evaluation
        assert [training.seed for training in row.trained] == list(range(digits_table.SEEDS))
        assert (
            {own.headline.threat for own in row.trained}
            == {str(threat_from(options.threats[0]))}
            == set(TABLE.protocol.threats)
        )
        assert TABLE.epochs == config.training.epochs
        assert TABLE.attacks == (f"PGD-{options.pgd.steps}", f"AutoAttack `{options.attack}`")


@given(data=st.data())
def test_a_number_edited_by_hand_is_found_and_mended(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Whichever it is, in whichever place."""
    name = data.draw(st.sampled_from(sorted(SHOWN)))
    text = SHOWN[name]
    part = RENDERED.search(text)
    assert part is not None
    digit = data.draw(st.sampled_from([index for index in range(*part.span()) if text[index].isdigit()]))
    edited = text[:digit] + str((int(text[digit]) + data.draw(st.integers(1, 9))) % 10) + text[digit + 1 :]
    root = copied(tmp_path_factory.mktemp("edited"), **{name: edited})
    assert write(TABLE, root) == [root / name]
    assert shown_in(root) == SHOWN


def test_a_new_record_changes_every_place(tmp_path: Path) -> None:
    """Once; and it comes back from its file as it went."""
    copied(tmp_path)
    table = other_table()
    assert {str(path.relative_to(tmp_path)) for path in write(table, tmp_path)} == set(SHOWN)
    assert write(table, tmp_path) == []
    (tmp_path / "table.json").write_text(table.model_dump_json(), encoding="utf-8")
    assert read(tmp_path / "table.json") == table


@pytest.mark.parametrize("name", SHOWN)
def test_a_place_without_its_marks_is_told_and_none_is_written(tmp_path: Path, name: str) -> None:
    """Numbers that nothing renders would be anybody's."""
    unmarked = SHOWN[name].replace(END, "").replace("# expected:", "# figures:")
    copied(tmp_path, **{name: unmarked})
    with pytest.raises(BadInput, match=re.escape(str(tmp_path / name))):
        write(other_table(), tmp_path)
    assert shown_in(tmp_path) == SHOWN | {name: unmarked}


def test_another_configuration_in_params_yaml_is_left_as_it_is(tmp_path: Path) -> None:
    """Such as a preset for CIFAR-10, or one written from nothing."""
    for text in (preset_path("cifar10-trades").read_text(encoding="utf-8"), "seed: 1\n"):
        copied(tmp_path, **{"params.yaml": text})
        write(other_table(), tmp_path)
        assert shown_in(tmp_path)["params.yaml"] == text


@pytest.mark.parametrize("content", [b"", b"{}", b"[1]", b"\xff"])
def test_a_record_that_is_none_is_told(tmp_path: Path, content: bytes) -> None:
    """In a sentence."""
    (tmp_path / "table.json").write_bytes(content)
    for path in (tmp_path / "table.json", tmp_path / "missing.json"):
        with pytest.raises(BadInput, match="is no record of `make table`"):
            read(path)


def test_bad_settings_are_told_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also those that only the last row has."""
    monkeypatch.chdir(tmp_path)
    assert digits_table.main(["--set", "training.epochs=2"]) == 2
    assert "mixing.warm_up" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        digits_table.main(["--seeds", "0"])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.long
def test_other_settings_are_measured_and_not_recorded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A table in Markdown of one seed, on few images."""
    monkeypatch.chdir(tmp_path)
    before = FILE.read_bytes(), shown_in(ROOT)
    few = ("data.images=100", "evaluation.images=20", "evaluation.attack=quick")
    assert digits_table.main(["--seeds", "1", *(word for own in few for word in ("--set", own))]) == 0
    told = capsys.readouterr().out
    assert "Linf 0.15, test split, n = 20" in told and "Not recorded" in told
    assert len(re.findall(r"^\| .+ \| [\d.]+ \| [\d.]+ \| [\d.]+ \|$", told, re.MULTILINE)) == len(digits_table.ROWS)
    assert (FILE.read_bytes(), shown_in(ROOT)) == before


@pytest.mark.long
def test_columns_of_presets_are_shown_side_by_side(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Those of dummy classes beside those of a plain network, which lacks some."""
    monkeypatch.chdir(tmp_path)
    few = ("data.images=100", "evaluation.images=20", "evaluation.attack=quick", "training.epochs=2")
    assert columns_table.main(["--seeds", "1", *(word for own in few for word in ("--set", own))]) == 0
    head, _, plain, dummy = re.findall(r"^\|.*\|$", capsys.readouterr().out, re.MULTILINE)
    assert "quick through raw (non-adaptive)" in head and "PGD through joint-even" in head
    assert plain.count("|  |") and not dummy.count("|  |")
    assert columns_table.main(["digits-ducta"]) == 2
    assert "did you mean 'digits-ducat'" in capsys.readouterr().err


@pytest.mark.long
def test_a_conditional_preset_has_a_row_for_each_lambda(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In rising order, those that were not trained at marked, between the models for one lambda alone."""
    monkeypatch.chdir(tmp_path)
    few = ("data.images=100", "evaluation.images=20", "evaluation.attack=quick", "training.epochs=2")
    presets = ["digits-natural", "digits-oat", "digits-pgd-at"]
    assert columns_table.main([*presets, "--seeds", "1", *(word for own in few for word in ("--set", own))]) == 0
    rows = re.findall(r"^\| (digits-.*?) \|", capsys.readouterr().out, re.MULTILINE)
    unseen = " (not trained at)"
    lambdas = ["0", f"0.05{unseen}", "0.1", f"0.15{unseen}", "0.2", "0.3", "0.4", f"0.6{unseen}", "1"]
    assert rows == ["digits-natural", *(f"digits-oat, lambda {own}" for own in lambdas), "digits-pgd-at"]
