"""What torch.compile has made, kept as one file, so that another process or machine need not compile it again.

torch unpickles it, so it is for files of one's own alone: nothing but the scripts for GPU machines reads it.
"""

import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

FILE = "compile-cache.zip"
"""A member for each part that compiles: torch gives out only what the own process has used."""

LARGEST = 15 * 2**20
"""Bytes of a file that is left in the folder of the results."""


@contextmanager
def kept(part: str, *, out: Path, work: Path) -> Iterator[None]:
    """Load what an earlier call has compiled, from either folder, and add what is compiled inside.

    Before torch 2.6 there is nothing to load or save with: then everything is compiled here.

    Args:
        part: under whose name it is kept.
        out: folder of the results, where the file is left if it is small enough.
        work: folder where it is kept in any case.
    """
    load = getattr(torch.compiler, "load_cache_artifacts", None)
    save = getattr(torch.compiler, "save_cache_artifacts", None)
    members = _members([work / FILE, out / FILE])
    if load is not None:
        for content in members.values():
            load(content)
    try:
        yield
    finally:
        artifacts = None if save is None else save()  # None where nothing was compiled
        if artifacts is not None:
            members[part] = artifacts[0]
            _write(members, out=out, work=work)


def _members(files: list[Path]) -> dict[str, bytes]:
    """Return the members of the first of these files that is there and whole."""
    for file in files:
        if zipfile.is_zipfile(file):
            with zipfile.ZipFile(file) as archive:
                return {name: archive.read(name) for name in archive.namelist()}
    return {}


def _write(members: dict[str, bytes], *, out: Path, work: Path) -> None:
    scratch = work / f".{FILE}.part"  # renamed once it is whole, as calls may be killed
    with zipfile.ZipFile(scratch, "w", compression=zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    size = scratch.stat().st_size
    if size <= LARGEST:
        (out / FILE).write_bytes(scratch.read_bytes())
    else:
        print(f"{FILE} has {size / 2**20:.0f} MiB, too many to leave it in {out}: it is in {work} alone")
    scratch.replace(work / FILE)
