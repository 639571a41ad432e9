"""Verdicts as a file, which says what they are of, so that shards can be merged."""

import io
import json
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from generalist.attacks.verdicts import Cascade, Passes, merge
from generalist.errors import BadInput
from generalist.store import write_atomically

_MEND = "write it with `generalist attack … --out`"


def write_verdicts(path: Path, result: Cascade, facts: Mapping[str, Any], *, adversarial: bool = False) -> None:
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
        "facts": np.array(json.dumps({**facts, "doubts": dict(result.doubts)}, sort_keys=True)),
    }
    if adversarial:
        arrays["adversarial"] = result.adversarial.cpu().numpy()
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **arrays)
    write_atomically(path, buffer.getvalue())


def read_verdicts(path: Path) -> tuple[Cascade, dict[str, Any]]:
    """What `write_verdicts` wrote; adversarial images that it left out come back as images of no pixels.

    Raises:
        BadInput: the file is missing, damaged or of another kind.
    """
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            facts = json.loads(str(arrays["facts"]))
            tensors = {name: torch.from_numpy(arrays[name]) for name in arrays.files if name not in _TEXTS}
            names = [name or None for name in arrays["fooled_by"].tolist()]
        doubts = {name: int(count) for name, count in facts.pop("doubts").items()}
        return Cascade(
            tensors["robust"],
            tensors["clean"],
            names,
            tensors.get("adversarial", torch.zeros(len(names), 0, 0, 0)),
            tensors["margin"],
            tensors["correct"],
            doubts,
            Passes(tensors["forward"], tensors["backward"]),
        ), facts
    except FileNotFoundError:
        raise BadInput(f"there are no verdicts {path}: {_MEND}") from None
    except (OSError, ValueError, TypeError, KeyError, EOFError, zipfile.BadZipFile, zlib.error):
        raise BadInput(f"{path} holds no verdicts, or is damaged: {_MEND}") from None


def merge_files(paths: Sequence[Path]) -> tuple[Cascade, dict[str, Any]]:
    """The verdicts of shards as one, in the order of their images.

    Raises:
        BadInput: a file is missing or damaged, the shards are of different evaluations, overlap or leave a gap.
    """
    shards = sorted(((path, *read_verdicts(path)) for path in paths), key=lambda shard: int(shard[2]["first"]))
    path, _, facts = shards[0]
    expected = int(facts["first"])
    for other, result, own in shards:
        differing = [name for name in facts if name != "first" and own.get(name) != facts[name]]
        if differing:
            told = ", ".join(f"{name} ({own.get(name)} and {facts[name]})" for name in differing)
            raise BadInput(f"{other} and {path} differ in {told}: merge shards of one evaluation")
        if int(own["first"]) != expected:
            raise BadInput(
                f"{other} begins with image {own['first']} instead of {expected}: merge shards without gaps or overlap"
            )
        expected += len(result.robust)
    return merge([result for _, result, _ in shards]), facts


_TEXTS = ("facts", "fooled_by", "index")
