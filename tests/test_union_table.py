"""The table of methods against several norms: equal work is counted right, and a small one has all its rows."""

import re
from pathlib import Path

import pytest

from benchmarks import union_table
from benchmarks.union_table import EVALUATED, REFERENCE, ROWS, work
from generalist.config import load
from tests.training_factory import small


def test_work_is_counted_with_attacks_and_every_expert() -> None:
    """Twice the steps are twice the attack; three attacks and training passes cost three times as much as one."""
    one, two, four = (work(small(f"experts.robust.objective.attack.steps={steps}")) for steps in (1, 2, 4))
    assert four - two == 2 * (two - one) > 0
    avg, single = (load(preset=ROWS[title][0], overrides=["model.width=4"]) for title in (REFERENCE, "PGD-AT, Linf"))
    assert work(avg) == 3 * work(single)


def test_rows_are_evaluated_alike() -> None:
    """Whatever the preset says of its own."""
    found = {str(load(preset=preset, overrides=[*own, *EVALUATED]).evaluation) for preset, *own in ROWS.values()}
    assert len(found) == 1


@pytest.mark.long
def test_a_small_table_has_its_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With a difference from the reference, and an interval."""
    monkeypatch.chdir(tmp_path)
    few = ["data.images=200", "model.width=4", "evaluation.pgd.steps=2", "evaluation.selection_attack.steps=2"]
    words = [word for one in few for word in ("--set", one)]
    monkeypatch.setattr("sys.argv", ["union_table.py", "--quick", "--rows", "E-AT", *words])
    union_table.main()
    told = capsys.readouterr().out
    assert "n = 100, worst of PGD-2 and quick, 2 seeds" in told
    assert re.search(r"^\| AVG \| 4 \|( [\d.]+ ± [\d.]+ \|){5}  \|$", told, re.MULTILINE)
    assert re.search(
        r"^\| E-AT \| \d+ \|( [\d.]+ ± [\d.]+ \|){5} [+-][\d.]+ \[-?[\d.]+, [\d.]+\] \|$", told, re.MULTILINE
    )
