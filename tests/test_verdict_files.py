"""Files of verdicts that somebody changed: what they say, or one sentence."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from generalist.attacks.result import AutoAttackResult, Passes
from generalist.attacks.result_files import merge_files, read_verdicts, write_verdicts
from generalist.errors import BadInput

N = 5
FACTS = {"threat": "linf:0.1", "attack": "quick", "seed": 0, "first": 3, "model": "m"}


def verdicts(n: int = N) -> AutoAttackResult:
    """Of n images, the last of which is broken."""
    robust = torch.arange(n) < n - 1
    return AutoAttackResult(
        robust=robust,
        clean=torch.ones(n, dtype=torch.bool),
        fooled_by=[*[None] * (n - 1), "square"],
        adversarial=torch.rand(n, 1, 2, 2),
        margins=torch.rand(n),
        correct=robust.float(),
        flag_counts={"ties": 1},
        passes=Passes(torch.full((n,), 7), torch.zeros(n, dtype=torch.int64)),
    )


def written(path: Path, *, adversarial: bool = True, n: int = N, **facts: Any) -> Path:
    """Write a valid file."""
    write_verdicts(path, verdicts(n), {**FACTS, **facts}, adversarial=adversarial)
    return path


def changed(path: Path, **arrays: Any) -> Path:
    """Write a file with other arrays in place of its own."""
    with np.load(written(path)) as own:
        everything = {name: own[name] for name in own.files}
    np.savez(path, **{name: np.asarray(array) for name, array in {**everything, **arrays}.items()})
    return path


def told(**changes: Any) -> dict[str, str]:
    """Return the facts of a file with some changed."""
    return {"facts": json.dumps({**FACTS, "doubts": {"ties": 1}, **changes})}


@pytest.mark.parametrize("adversarial", [True, False])
def test_what_was_written_is_read(adversarial: bool, tmp_path: Path) -> None:
    """All of it."""
    found, facts = read_verdicts(written(tmp_path / "a.npz", adversarial=adversarial))
    own = verdicts()
    assert facts == FACTS
    assert found.fooled_by == own.fooled_by
    assert (found.robust.tolist(), found.flag_counts) == (own.robust.tolist(), own.flag_counts)
    assert found.adversarial.shape == ((N, 1, 2, 2) if adversarial else (N, 0, 0, 0))


@pytest.mark.parametrize(
    "arrays",
    [
        {"facts": "{"},
        {"facts": "[]"},
        {"facts": "null"},
        {"facts": "[" * 100_000},
        {"facts": '{"first": ' + "1" * 5_000 + "}"},
        {"facts": np.array(3)},
        {"facts": np.array(["{}", "{}"])},
        {"facts": json.dumps({"first": 3})},
        told(first=-1),
        told(first=10**30),
        told(first=None),
        told(first="3"),
        told(first=4),
        told(first=True),
        told(doubts=None),
        told(doubts={"ties": -1}),
        told(doubts={"ties": N + 1}),
        told(doubts={"ties": "x"}),
        told(doubts={"ties": 1.5}),
        told(seed=float("nan")),
        told(seed=10**400),
        told(threat={"a": {"b": 1}}),
        told(threat="two\nlines"),
        {"robust": np.ones(N)},
        {"robust": np.ones(N + 1, dtype=bool)},
        {"clean": np.zeros(N, dtype=bool)},
        {"margin": np.zeros((N, 1), dtype=np.float32)},
        {"correct": np.full(N, np.nan, dtype=np.float32)},
        {"forward": np.full(N, -1)},
        {"forward": np.zeros(N)},
        {"fooled_by": np.zeros(N)},
        {"fooled_by": np.array([], dtype=np.str_)},
        {"fooled_by": np.array(["\x1b[2J"] * N)},
        {"index": np.arange(N)},
        {"adversarial": np.full((N, 1, 2, 2), 2, dtype=np.float32)},
        {"adversarial": np.full((N, 1, 2, 2), np.nan, dtype=np.float32)},
        {"adversarial": np.zeros((N, 4), dtype=np.float32)},
        {"adversarial": np.zeros((N - 1, 1, 2, 2), dtype=np.float32)},
    ],
    ids=range(38),
)
def test_what_is_no_verdict_is_refused(arrays: dict[str, Any], tmp_path: Path) -> None:
    """Facts, counts and arrays are what they should be, or one sentence says which are not."""
    with pytest.raises(BadInput, match=r"a\.npz holds no verdicts, or is damaged \(.*\): write it with"):
        read_verdicts(changed(tmp_path / "a.npz", **arrays))


def test_pickled_objects_are_refused(tmp_path: Path) -> None:
    """Nothing in a file is executed."""
    path = tmp_path / "a.npz"
    with np.load(written(path)) as own:
        everything = {name: own[name] for name in own.files}
    np.savez(path, **{**everything, "fooled_by": np.array([print] * N, dtype=object)})
    with pytest.raises(BadInput, match="neither numbers nor text"):
        read_verdicts(path)


def test_shards_of_one_evaluation_agree_in_every_fact(tmp_path: Path) -> None:
    """Also in one that only the later shard tells, such as a normalisation; and in the size of their images."""
    first = written(tmp_path / "a.npz")
    second = written(tmp_path / "b.npz", first=3 + N, normalisation="--mean 0.5 --std 0.5")
    with pytest.raises(BadInput, match="differ in normalisation"):
        merge_files([first, second])
    without = written(tmp_path / "b.npz", first=3 + N, adversarial=False)
    with pytest.raises(BadInput, match="adversarial images of different sizes"):
        merge_files([first, without])
    merged, _ = merge_files([written(tmp_path / "b.npz", first=3 + N), first])
    assert len(merged.robust) == 2 * N
