"""Whether prepared data is still what its source holds."""

import os
from collections.abc import Iterator
from pathlib import Path

from generalist.config import DataOptions
from generalist.data.contract import Source
from generalist.data.manifest import MANIFEST, Manifest
from generalist.errors import BadInput


def changed_since(options: DataOptions, folder: Path, *, root: Path) -> bool:
    """Return whether the source holds something else than was prepared from it.

    Times are looked at first: content is read where something is newer than the manifest.

    Args:
        options: the section `data`.
        folder: prepared data.
        root: where relative paths of the options start.

    Raises:
        BadInput: the source changed and can't be read any more.
    """
    path = own_path(options, root)
    if path is None or not isinstance(options, Source) or not path.exists():
        return False
    made = (folder / MANIFEST).stat().st_mtime
    if all(changed <= made for changed in _times(path)):
        return False
    return options.read(root).checksum != Manifest.read(folder).checksum


def check_watched(options: DataOptions, *, root: Path, watched: Path) -> None:
    """Refuse a source whose changes DVC would not see.

    Args:
        options: the section `data`.
        root: where relative paths of the options start.
        watched: the folder that DVC looks at.

    Raises:
        BadInput: the source may change, and lies elsewhere.
    """
    path = own_path(options, root)
    if path is None or path.resolve().is_relative_to(watched.resolve()) or path.is_relative_to(watched):
        return
    raise BadInput(
        f"data.path is {path}, outside of {watched}, where DVC would not see that images change: copy it there (or"
        f" `dvc import-url {path} {watched / path.name}`) and name that, or train without DVC by `generalist train`"
    )


def own_path(options: DataOptions, root: Path) -> Path | None:
    """Return the place of a source whose content is not known by checksums from elsewhere; None where there is none."""
    written = getattr(options, "path", None)
    if not isinstance(options, Source) or not options.may_change or written is None:
        return None
    return root / Path(written).expanduser()


def _times(path: Path) -> Iterator[float]:
    """Yield when files and folders below a place were changed, also behind links; each folder once."""
    seen: set[tuple[int, int]] = set()
    for above, folders, files in os.walk(path, followlinks=True):
        here = Path(above).stat()
        if (here.st_dev, here.st_ino) in seen:  # a loop of links
            folders.clear()
            continue
        seen.add((here.st_dev, here.st_ino))
        yield here.st_mtime
        for name in files:
            try:
                yield (Path(above) / name).stat().st_mtime
            except OSError:  # a link that leads nowhere
                continue
