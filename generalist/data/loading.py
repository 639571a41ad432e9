"""Prepared data, verified and memory-mapped, and whether it is still what its source holds."""

import math
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from generalist.config import DataOptions
from generalist.data.array_files import UnreadableArray, map_npy
from generalist.data.dataset import Dataset, Source, Split
from generalist.data.manifest import ARRAYS, MANIFEST, MEND, UNLABELLED, Manifest
from generalist.data.unlabelled import read_unlabelled, unlabelled_path, without_labels
from generalist.errors import BadInput
from generalist.tensors import ImageShape
from generalist.untrusted import file_sha256


def load(folder: Path) -> Dataset:
    """Open what `prepare` wrote; every byte is checked against the manifest first, then whether it is what it should.

    Raises:
        BadInput: the folder is missing, a file in it has changed, is cut short or missing, or another program wrote it.
    """
    manifest = Manifest.read(folder)
    for name in {*ARRAYS, *manifest.files} & {*ARRAYS, UNLABELLED}:
        _verify(folder / name, manifest.files.get(name))
    if wrong := _wrong(manifest):
        raise BadInput(f"{folder / MANIFEST} {wrong}, so another program wrote it; {MEND}")
    channels, height, width = manifest.shape
    shape = ImageShape(
        channels=channels,
        height=height,
        width=width,
        classes=len(manifest.class_names),
        mean=manifest.mean,
        std=tuple(std or 1.0 for std in manifest.std),  # constant pixels need no scaling, and 0 can't divide
    )
    return Dataset(
        train=_split(folder, "train", manifest),
        validation=_split(folder, "validation", manifest),
        test=_split(folder, "test", manifest),
        shape=shape,
        class_names=manifest.class_names,
        digest=manifest.digest,
        test_digest=manifest.test_digest,
        copies=manifest.copies,
        unlabelled=without_labels(_images(folder / UNLABELLED, manifest)) if UNLABELLED in manifest.files else None,
    )


def _verify(path: Path, expected: str | None) -> None:
    try:
        digest = file_sha256(path)
    except FileNotFoundError:
        raise BadInput(f"{path} is missing from the prepared data; {MEND}") from None
    except OSError as error:
        raise BadInput(f"{path} can't be read ({error.strerror}); {MEND}") from None
    if digest != expected:
        raise BadInput(f"{path} has changed since it was prepared; {MEND}")


def _wrong(manifest: Manifest) -> str | None:
    """Return what a manifest says that no `prepare` does."""
    channels, numbers = manifest.shape[0], (*manifest.mean, *manifest.std)
    if min(manifest.shape) < 1:
        return f"tells of images of the shape {list(manifest.shape)}"
    if len(manifest.mean) != channels or len(manifest.std) != channels:
        return f"has {len(manifest.mean)} means and {len(manifest.std)} deviations for {channels} channels"
    if not all(math.isfinite(number) and 0 <= number <= 1 for number in numbers):
        return "has means or deviations outside of [0, 1]"
    if len(manifest.class_names) < 2:
        return f"names {len(manifest.class_names)} classes, and two are the least that can be told apart"
    if len({*manifest.class_names}) < len(manifest.class_names):
        return "names a class twice"
    return None


def _split(folder: Path, name: str, manifest: Manifest) -> Split:
    images = _images(folder / f"{name}_images.npy", manifest)
    labels = _checked(folder / f"{name}_labels.npy", np.dtype(np.int64), images.shape[:1])
    classes, lowest, highest = len(manifest.class_names), int(labels.min()), int(labels.max())
    if lowest < 0 or highest >= classes:
        raise BadInput(
            f"{folder / f'{name}_labels.npy'} has labels from {lowest} to {highest}, and there are {classes} classes;"
            f" {MEND}"
        )
    return Split(images, labels)


def _images(path: Path, manifest: Manifest) -> NDArray[np.uint8]:
    count = _mapped(path).shape[:1]
    return _checked(path, np.dtype(np.uint8), (*count, *manifest.shape))


def _checked(path: Path, dtype: np.dtype[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    array = _mapped(path)
    if array.dtype != dtype or array.shape != shape:
        raise BadInput(f"{path} is {array.dtype} {list(array.shape)}, expected {dtype} {list(shape)}; {MEND}")
    return array


def _mapped(path: Path) -> NDArray[Any]:
    try:
        return map_npy(path)
    except (FileNotFoundError, UnreadableArray) as error:
        reason = error.reason if isinstance(error, UnreadableArray) else "it is gone"
        raise BadInput(f"{path} is no array that `prepare` writes ({reason}); {MEND}") from None


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
    made = (folder / MANIFEST).stat().st_mtime

    def is_newer(path: Path | None) -> bool:
        return path is not None and path.exists() and any(changed > made for changed in _times(path))

    manifest, unlabelled = Manifest.read(folder), unlabelled_path(options, root)
    own_is_newer = is_newer(own_path(options, root))
    if own_is_newer and isinstance(options, Source) and options.read(root).checksum != manifest.checksum:
        return True
    if unlabelled is None or not is_newer(unlabelled):
        return False
    return read_unlabelled(unlabelled, shape=manifest.shape)[1] != manifest.unlabelled


def check_watched(options: DataOptions, *, root: Path, watched: Path) -> None:
    """Refuse a source whose changes DVC would not see.

    Args:
        options: the section `data`.
        root: where relative paths of the options start.
        watched: the folder that DVC looks at.

    Raises:
        BadInput: the source may change, and lies elsewhere.
    """
    for key, path in (("path", own_path(options, root)), ("unlabelled", unlabelled_path(options, root))):
        if path is None or path.resolve().is_relative_to(watched.resolve()) or path.is_relative_to(watched):
            continue
        raise BadInput(
            f"data.{key} is {path}, outside of {watched}, where DVC would not see that images change: copy it there (or"
            f" `dvc import-url {path} {watched / path.name}`) and name that, or train without DVC by `generalist train`"
        )


def own_path(options: DataOptions, root: Path) -> Path | None:
    """Return the place of a source whose content is not known by checksums from elsewhere; None where there is none."""
    written = getattr(options, "path", None)
    if not isinstance(options, Source) or not options.may_change or written is None:
        return None
    return root / Path(written).expanduser()


def _times(path: Path) -> Iterator[float]:
    """Yield when the images below a place were changed, and the folders that hold them."""
    from generalist.data.image_files import find  # needs Pillow, which a training that reads prepared data does not

    listing = find(path)
    for place in (path, *(path.joinpath(*parts) for parts in listing.folders), *listing.files):
        with suppress(OSError):  # a link that leads nowhere
            yield place.stat().st_mtime
