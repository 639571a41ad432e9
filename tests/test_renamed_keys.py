"""Keys that have another name now are refused with a sentence that says it, wherever they come from."""

from pathlib import Path

import pytest
import yaml

from generalist.config import Config, check, load
from generalist.config.plain_yaml import read_plain
from generalist.config.renamed import RENAMED, renamed
from generalist.errors import BadInput
from tests.command_line import refused

PARAMS = Path(__file__).parent.parent / "params.yaml"
EXAMPLE = ("mixing.speed", "mixing.interval")


@pytest.fixture(autouse=True)
def _one_row_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """A row that is only for these tests."""
    monkeypatch.setitem(RENAMED, *EXAMPLE)


def known(key: str) -> bool:
    """Whether the present configuration has a key."""
    tree = load(PARAMS).model_dump(mode="json")
    for part in key.split("."):
        if part not in tree:
            return False
        tree = tree[part]
    return True


every_row = pytest.mark.parametrize(("old", "new"), [EXAMPLE, *(row for row in RENAMED.items() if not known(row[0]))])


def written(old: str, inside: str = "") -> dict[str, object]:
    """Return the default configuration as a tree, with an old key beside the others."""
    tree = read_plain(PARAMS)
    section, key = old.split(".")
    tree[section][key] = {inside: 1} if inside else 1
    return tree


@pytest.mark.parametrize(("old", "new"), RENAMED.items())
def test_one_of_both_names_is_known(old: str, new: str) -> None:
    """A row leads from a key that is gone to one that is there, in the same section, which is a section of the tree."""
    assert known(old) != known(new)
    assert old.split(".")[0] == new.split(".")[0] in Config.model_fields


@every_row
@pytest.mark.parametrize("inside", ["", "steps"])
def test_a_file_with_an_old_key_is_refused(old: str, new: str, inside: str, tmp_path: Path) -> None:
    """In one sentence that names the file, also where the old key was a section; so old results say what is wrong."""
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(written(old, inside)), encoding="utf-8")
    with pytest.raises(BadInput) as refusal:
        load(tmp_path / "params.yaml")
    assert str(refusal.value) == f"params.yaml: {old} is now {new}"


@every_row
def test_an_override_of_an_old_key_is_refused(old: str, new: str) -> None:
    """And blamed on the override, not on the file; a key inside of an old one, too."""
    for override in (f"{old}=1", f"{old}.steps=1"):
        with pytest.raises(BadInput) as refusal:
            load(PARAMS, overrides=["seed=1", override])
        assert str(refusal.value) == f"override '{override}': {old} is now {new}"


@every_row
def test_a_search_over_an_old_key_is_refused(old: str, new: str) -> None:
    """A dimension of `tuning.space` is named as the configuration is."""
    from pipelines.tuning.space import SEARCHABLE, Space

    if old.split(".")[0] not in SEARCHABLE:
        return
    config = load(PARAMS, overrides=[f"tuning.space={{{old}: {{choices: [1]}}}}"])
    with pytest.raises(BadInput) as refusal:
        Space(config)
    assert str(refusal.value) == f"tuning.space: {old} is now {new}"


@every_row
def test_the_command_line_ends_with_exit_code_2(old: str, new: str) -> None:
    """One sentence, no traceback."""
    assert f"{old} is now {new}" in refused("config", "check", "--params", str(PARAMS), "--set", f"{old}=1")


def test_other_unknown_keys_are_refused_as_before() -> None:
    """Also inside of an unknown section, whose override is blamed."""
    assert renamed("mixing.interval") is None
    with pytest.raises(BadInput, match=r"^override 'evaluation.chioce.steps=1': evaluation: unknown key 'chioce'"):
        load(PARAMS, overrides=["evaluation.chioce.steps=1"])
    with pytest.raises(BadInput, match="mixing: unknown key 'hand'"):
        check(written("mixing.hand"))
