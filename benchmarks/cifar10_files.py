"""CIFAR-10 as it arrives: all official files or some, as they are or as lossless WebP, kept in one folder.

    python -m benchmarks.cifar10_files FOLDER[:FOLDER...] TARGET

Some of the six batches are enough to train on: `prepare_some` makes prepared data of those that are here.
"""

import hashlib
import importlib.util
import lzma
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from generalist.config import Config
from generalist.data import prepare
from generalist.data.sources.cifar10 import Cifar10
from generalist.errors import BadInput

TRAINING = tuple(f"data_batch_{index}" for index in range(1, 6))
BATCHES = (*TRAINING, "test_batch")
META = "batches.meta"
IMAGES = 10_000
"""Of a batch."""

BELOW = "cifar-10-batches-py"
UNPACKING = ("unpack.py", "index.tsv.xz")
"""What turns WebP into official files: a program, and the labels."""


def gathered(folders: Sequence[Path], target: Path) -> list[str]:
    """Copy what has come into `target`, unpack what is WebP, and return the batches that are there now.

    It is copied, not linked, as the folders may be gone when the next files come.

    Args:
        folders: may hold official files, themselves or in `cifar-10-batches-py`, or WebP with `unpack.py` and
            `index.tsv.xz`; those that don't exist are passed over.
        target: gets `cifar-10-batches-py`, the official files, and `webp`.
    """
    official, pictures = target / BELOW, target / "webp"
    names = [*(f"{batch}.webp" for batch in BATCHES), *UNPACKING]
    for folder in folders:
        for place in (folder, folder / BELOW):
            _copy_new(place, official, [*BATCHES, META])
        _copy_new(folder, pictures, names)
    packed = [name for name in BATCHES if (pictures / f"{name}.webp").is_file() and not (official / name).is_file()]
    if packed and all((pictures / name).is_file() for name in UNPACKING):
        _unpack(pictures, official, packed)
    return [name for name in BATCHES if (official / name).is_file()] if (official / META).is_file() else []


def _copy_new(source: Path, target: Path, names: Sequence[str]) -> None:
    for name in names:
        if (source / name).is_file() and not (target / name).exists():
            target.mkdir(parents=True, exist_ok=True)
            part = target / f".{name}.part"
            shutil.copyfile(source / name, part)
            part.replace(target / name)


def _unpack(pictures: Path, official: Path, names: Sequence[str]) -> None:
    """Write official files from WebP with the functions of `unpack.py`, whose `main` wants all batches at once."""
    spec = importlib.util.spec_from_file_location("unpack_cifar10", pictures / "unpack.py")
    assert spec is not None and spec.loader is not None
    unpack: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(unpack)
    index_text = lzma.decompress((pictures / "index.tsv.xz").read_bytes()).decode()
    rows = [row.split("\t") for row in index_text.splitlines()[1:]]
    contents = {META: unpack.meta()}
    for name in names:
        index = BATCHES.index(name)
        mine = rows[IMAGES * index : IMAGES * (index + 1)]
        title = "testing batch 1 of 1" if name == "test_batch" else f"training batch {index + 1} of 5"
        contents[name] = unpack.batch(name, title, [int(row[2]) for row in mine], [row[3] for row in mine])
    official.mkdir(parents=True, exist_ok=True)
    for name, content in contents.items():
        if hashlib.md5(content, usedforsecurity=False).hexdigest() != unpack.MD5[name]:
            raise BadInput(f"{name}, unpacked from WebP, is not the official file: bring {name}.webp again")
        part = official / f".{name}.part"
        part.write_bytes(content)
        part.replace(official / name)


def parted(here: Sequence[str]) -> tuple[list[str], list[str]]:
    """Part batches into those to train on and the one to test on: the last one, where the test batch isn't here."""
    test = [name for name in here if name == "test_batch"] or list(here[-1:])
    return [name for name in here if name not in test], test


def state(here: Sequence[str]) -> str:
    """Say which batches are here, what is made of them, and what to bring."""
    if len(here) == len(BATCHES):
        return "CIFAR-10: all 6 files are here"
    absent = [name for name in BATCHES if name not in here]
    found = f"CIFAR-10: {len(here)} of 6 files are here ({', '.join(here) or 'none'})"
    bring = f"missing: {', '.join(absent)}: bring them with the next call"
    if len(here) < 2:
        return f"{found}; {bring}; two are needed, one to train on and one to test on"
    training, (test,) = parted(here)
    use = f"{len(training) * IMAGES:,} images are trained on and {test} is tested on"
    return f"{found}; {bring}; meanwhile {use}"


def prepare_some(config: Config, folder: Path, here: Sequence[str]) -> None:
    """Prepare data from the batches that are here, to be found by a training with this configuration.

    Args:
        config: whose section `data` names CIFAR-10 and the folder of the official files.
        folder: gets the prepared data.
        here: two batches at least.
    """
    training, test = parted(here)

    class SomeOfCifar10(Cifar10):
        def reader(self) -> Any:
            whole = super().reader()
            sums = dict(whole.train_list + whole.test_list)
            lists = {"train_list": [[name, sums[name]] for name in training]}
            lists["test_list"] = [[name, sums[name]] for name in test]
            return type("Reader", (whole,), lists)

    prepare(SomeOfCifar10(**config.data.model_dump()), folder, root=Path.cwd())


def main(words: Sequence[str] | None = None) -> int:
    """Gather the files and say which are there."""
    folders, target = sys.argv[1:] if words is None else words
    try:
        print(state(gathered([Path(own) for own in folders.split(":")], Path(target))))
    except BadInput as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
