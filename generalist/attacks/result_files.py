"""Verdicts as a file, which says what they are of, so that shards can be merged."""

import io
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from generalist.atomic_files import write_atomically
from generalist.attacks.result import AutoAttackResult, Passes, merge
from generalist.data.array_files import UnreadableArray, read_npz
from generalist.errors import BadInput

_MEND = "write it with `generalist attack … --out`"
_MOST_FACTS = 2**20  # bytes
_MOST_IMAGES = 2**48
_KINDS = {
    "index": np.dtype(np.int64),
    "robust": np.dtype(np.bool_),
    "clean": np.dtype(np.bool_),
    "margin": np.dtype(np.float32),
    "correct": np.dtype(np.float32),
    "forward": np.dtype(np.int64),
    "backward": np.dtype(np.int64),
}
"""Of the arrays with one number for each image."""


def write_verdicts(
    path: Path, result: AutoAttackResult, facts: Mapping[str, Any], *, adversarial: bool = False
) -> None:
    """Write verdicts image by image as `.npz`; no array in it is pickled.

    Args:
        path: the file.
        result: the verdicts.
        facts: what they are of: plain values, `first` (the place of the first image in the whole set) among them.
        adversarial: write the adversarial images, too.

    Raises:
        BadInput: the file can't be written.
    """
    first = int(facts["first"])
    arrays: dict[str, Any] = {
        "index": np.arange(first, first + len(result.robust)),
        "robust": result.robust.cpu().numpy(),
        "clean": result.clean.cpu().numpy(),
        "fooled_by": np.array([name or "" for name in result.fooled_by], dtype=np.str_),
        "margin": result.margins.cpu().numpy(),
        "correct": result.correct.cpu().numpy(),
        "forward": result.passes.forward.cpu().numpy(),
        "backward": result.passes.backward.cpu().numpy(),
        "facts": np.array(json.dumps({**facts, "doubts": dict(result.flag_counts)}, sort_keys=True)),
    }
    if adversarial:
        arrays["adversarial"] = result.adversarial.cpu().numpy()
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **arrays)
    write_atomically(path, buffer.getvalue())


def read_verdicts(path: Path) -> tuple[AutoAttackResult, dict[str, Any]]:
    """Return what `write_verdicts` wrote; adversarial images that it left out come back as images of no pixels.

    Raises:
        BadInput: the file is missing, damaged, of another kind, or larger than `array_files` reads.
    """
    try:
        arrays = read_npz(path, (*_KINDS, "fooled_by", "facts"), optional=("adversarial",))
        facts = _facts(arrays.pop("facts"))
        names = _checked(arrays, facts)
        counts = _counts(facts.pop("doubts"), len(names))
    except FileNotFoundError:
        raise BadInput(f"there are no verdicts {path}: {_MEND}") from None
    except UnreadableArray as error:
        raise BadInput(f"{path} holds no verdicts, or is damaged ({error.reason}): {_MEND}") from None
    except _RefusedError as error:
        raise BadInput(f"{path} holds no verdicts, or is damaged ({error}): {_MEND}") from None
    tensors = {name: torch.from_numpy(array) for name, array in arrays.items() if name != "fooled_by"}
    return AutoAttackResult(
        tensors["robust"],
        tensors["clean"],
        names,
        tensors.get("adversarial", torch.zeros(len(names), 0, 0, 0)),
        tensors["margin"],
        tensors["correct"],
        counts,
        Passes(tensors["forward"], tensors["backward"]),
    ), facts


class _RefusedError(Exception):
    """Why a file is refused."""


def _facts(array: NDArray[Any]) -> dict[str, Any]:
    """Return what a file says of itself: a JSON object with `first` and `flag_counts`."""
    if array.shape != () or array.dtype.kind != "U" or array.nbytes > _MOST_FACTS:
        raise _RefusedError("its facts are no text")
    try:
        facts = json.loads(str(array))
    except (ValueError, RecursionError):  # no JSON, an integer of 5,000 digits, nested a thousand times
        raise _RefusedError("its facts can't be read") from None
    if not isinstance(facts, dict) or not _count(facts.get("first"), _MOST_IMAGES) or "doubts" not in facts:
        raise _RefusedError("its facts don't tell which images they are of")
    if not all(_shown(name) and _plain(value) for name, value in facts.items() if name != "doubts"):
        raise _RefusedError("its facts are not plain values")
    return facts


def _plain(value: Any) -> bool:
    """Return whether it is null, a number or a line of text, or a list of such."""
    if isinstance(value, list):
        return all(not isinstance(part, list) and _plain(part) for part in value)
    if isinstance(value, int):
        return abs(value) < 2**64
    return value is None or (math.isfinite(value) if isinstance(value, float) else _shown(value))


def _shown(value: Any) -> bool:
    """Return whether it is text that a terminal shows as it is."""
    return isinstance(value, str) and value.isprintable()


def _checked(arrays: dict[str, NDArray[Any]], facts: dict[str, Any]) -> list[str | None]:
    """Return the names of the attacks; every array is of one kind and as long as the others."""
    fooled_by = arrays["fooled_by"]
    n = len(fooled_by) if fooled_by.ndim == 1 and fooled_by.dtype.kind == "U" and fooled_by.itemsize <= 400 else 0
    if not n or not all(map(_shown, set(fooled_by.tolist()))):
        raise _RefusedError("it names no attacks")
    for name, kind in _KINDS.items():
        array = arrays[name]
        if array.dtype != kind or array.shape != (n,):
            raise _RefusedError(f"{name} is {array.dtype} {list(array.shape)}, expected {kind} {[n]}")
    adversarial = arrays.get("adversarial")
    if adversarial is not None and (
        adversarial.dtype != np.float32 or adversarial.ndim != 4 or len(adversarial) != n or not _unit(adversarial)
    ):
        raise _RefusedError(f"adversarial is no {n} images float32 [n, C, H, W] in [0, 1]")
    if not np.array_equal(arrays["index"], facts["first"] + np.arange(n)):
        raise _RefusedError(f"its images are not {n} from {facts['first']} on")
    counts = min(arrays["forward"].min(), arrays["backward"].min())
    if counts < 0 or (arrays["robust"] & ~arrays["clean"]).any() or not _unit(arrays["correct"]):
        raise _RefusedError("its verdicts contradict each other")
    return [name or None for name in fooled_by.tolist()]


def _counts(counts: Any, n: int) -> dict[str, int]:
    if not isinstance(counts, dict) or not all(_shown(name) and _count(count, n) for name, count in counts.items()):
        raise _RefusedError(f"its doubts are no counts of {n} images")
    return counts


def _count(value: Any, most: int) -> bool:
    return type(value) is int and 0 <= value <= most


def _unit(array: NDArray[Any]) -> bool:
    """Return whether all are in [0, 1]; what is not a number is not."""
    return bool(array.size == 0 or (array.min() >= 0 and array.max() <= 1))


def merge_files(paths: Sequence[Path]) -> tuple[AutoAttackResult, dict[str, Any]]:
    """Return the verdicts of shards as one, in the order of their images.

    Raises:
        BadInput: a file is missing or damaged, the shards are of different evaluations, overlap or leave a gap.
    """
    shards = sorted(((path, *read_verdicts(path)) for path in paths), key=lambda shard: int(shard[2]["first"]))
    path, _, facts = shards[0]
    expected = int(facts["first"])
    for other, result, shard_facts in shards:
        names = sorted({*facts, *shard_facts} - {"first"})
        differing = [name for name in names if shard_facts.get(name) != facts.get(name)]
        if differing:
            differences = ", ".join(f"{name} ({shard_facts.get(name)} and {facts.get(name)})" for name in differing)
            raise BadInput(f"{other} and {path} differ in {differences}: merge shards of one evaluation")
        if int(shard_facts["first"]) != expected:
            raise BadInput(
                f"{other} begins with image {shard_facts['first']} instead of {expected}: merge shards without gaps or"
                " overlap"
            )
        if result.adversarial.shape[1:] != shards[0][1].adversarial.shape[1:]:
            raise BadInput(
                f"{other} and {path} have adversarial images of different sizes, or only one of them has any: write all"
                " shards with --adversarial, or none"
            )
        expected += len(result.robust)
    return merge([result for _, result, _ in shards]), facts
