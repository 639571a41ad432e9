"""From a source to a folder of splits: written whole or not at all."""

import math
import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from generalist.atomic_files import check_writable, partial_name, rename, write_atomically
from generalist.config import DataOptions, canonical
from generalist.data.dataset import SPLITS, Source, SourceData, Split, Uint8
from generalist.data.manifest import (
    ARRAYS,
    MANIFEST,
    UNLABELLED,
    Manifest,
    digest_of_content,
    digest_of_test,
    request_digest,
)
from generalist.data.splits import count_copies, counts, stratified_split, stratified_subset, without_copies
from generalist.data.unlabelled import read_unlabelled, unlabelled_path, without_labels
from generalist.errors import BadInput
from generalist.untrusted import file_sha256


def prepare(options: DataOptions, target: Path, *, root: Path) -> Manifest:
    """Read a source, split it, and write arrays and manifest to the folder `target`.

    For each split, `<split>_images.npy` is uint8 [n, channels, height, width] and `<split>_labels.npy`
    int64 [n]; images without labels are in `unlabelled_images.npy`. The validation split is stratified and depends on
    `data.seed` alone. The same options and source give the same bytes. Prepared data that is already there is replaced
    once the new is complete.

    Args:
        options: the section `data`.
        target: the folder to write.
        root: where relative paths of the options start.

    Raises:
        BadInput: the source is missing or damaged, a class is too small for the splits, or `target` is
            a file, holds other things, or can't be written; or `data.images` asks for more than there is.
        TypeError: the options are not a source's.
    """
    if not isinstance(options, Source):
        raise TypeError(f"{type(options).__name__} is not a source of images")
    target = target.resolve()  # a link stays, and what it points to is written
    _check_target(target)
    raw = options.read(root)
    given, rest = raw.train, raw.train
    if options.images != "all":
        given, rest = stratified_subset(given, options.images, seed=options.seed, class_names=raw.class_names)
    if options.copies == "remove":
        given = without_copies(given, raw.test)
    train, validation = stratified_split(
        given, options.validation, seed=options.seed, class_names=raw.class_names, purpose="validation"
    )
    if options.copies == "remove":
        train = without_copies(train, validation)
    splits = dict(zip(SPLITS, (train, validation, raw.test), strict=True))
    unlabelled, checksum = _unlabelled(options, root, rest, raw.checksum, train)
    if unlabelled is not None:
        splits["unlabelled"] = without_copies(unlabelled, raw.test) if options.copies == "remove" else unlabelled
    try:
        return _write(target, splits, raw, options, checksum)
    except OSError as error:
        raise BadInput(
            f"{target} can't be written ({error.strerror or error}); mend that or name another folder"
        ) from None


def _unlabelled(
    options: Source, root: Path, rest: Split, checksum: str, like: Split
) -> tuple[Split | None, str | None]:
    """Return the images that `data.unlabelled` names, and a checksum of what was read for them."""
    path = unlabelled_path(options, root)
    if path is None:
        return (None, None) if options.unlabelled is None else (without_labels(rest.images), checksum)
    channels, height, width = map(int, like.images.shape[1:])
    images, checksum = read_unlabelled(path, shape=(channels, height, width))
    return without_labels(images), checksum


def _check_target(target: Path) -> None:
    """Refuse, before any work, what can't be written or is not ours to replace."""
    if target.is_dir():
        entries = {entry.name for entry in target.iterdir()}
        strangers = sorted(entries - {MANIFEST, UNLABELLED, *ARRAYS})
        if strangers or (entries and MANIFEST not in entries):
            what = f"'{strangers[0]}'" if strangers else f"files but no {MANIFEST}"
            raise BadInput(f"{target} holds {what}, so it is not prepared data to replace; name another folder")
    elif target.exists():
        raise BadInput(f"{target} is a file, but prepared data needs a folder; remove it or name another place")
    check_writable(target.parent)


def _write(
    target: Path, splits: dict[str, Split], raw: SourceData, options: Source, unlabelled: str | None
) -> Manifest:
    target.parent.mkdir(parents=True, exist_ok=True)
    with partial_name(target) as part:
        part.mkdir()
        for name, split in splits.items():
            _save(part / f"{name}_images.npy", split.images)
            if name in SPLITS:
                _save(part / f"{name}_labels.npy", split.labels)
        manifest = _manifest(part, splits, raw, options, unlabelled)
        write_atomically(part / MANIFEST, (manifest.model_dump_json(indent=2) + "\n").encode())
        _publish(part, target)
    return manifest


def _save(path: Path, array: NDArray[Any]) -> None:
    with path.open("wb") as handle:
        np.save(handle, np.ascontiguousarray(array), allow_pickle=False)
        handle.flush()
        os.fsync(handle.fileno())


def _manifest(
    folder: Path, splits: dict[str, Split], raw: SourceData, options: Source, unlabelled: str | None
) -> Manifest:
    written = ARRAYS if unlabelled is None else (*ARRAYS, UNLABELLED)
    files = {name: file_sha256(folder / name) for name in written}
    channels, height, width = splits["train"].images.shape[1:]
    shape = (int(channels), int(height), int(width))
    mean, std = pixel_moments(splits["train"].images)
    return Manifest(
        request=canonical(options),
        request_digest=request_digest(options),
        name=options.name,
        origin=raw.origin,
        checksum=raw.checksum,
        class_names=raw.class_names,
        shape=shape,
        mean=mean,
        std=std,
        counts={
            name: dict(zip(raw.class_names, counts(split, raw.class_names).tolist(), strict=True))
            for name, split in splits.items()
            if name in SPLITS
        },
        copies=count_copies(splits),
        files=files,
        unlabelled=unlabelled,
        digest=digest_of_content(files, raw.class_names, shape, mean, std),
        test_digest=digest_of_test(files, raw.class_names),
    )


def pixel_moments(images: Uint8) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return the mean and the standard deviation (population) per channel, in units of [0, 1].

    Sums of integers are exact whatever their order, so the result is the same on every machine.

    Args:
        images: uint8 [n, channels, height, width].
    """
    means, deviations = [], []
    for channel in range(images.shape[1]):
        pixels = images[:, channel]
        count, total = pixels.size, int(pixels.sum(dtype=np.int64))
        squares = int(np.square(pixels, dtype=np.uint16).sum(dtype=np.int64))  # 255² fits
        means.append(total / (255 * count))
        deviations.append(math.sqrt(count * squares - total**2) / (255 * count))
    return tuple(means), tuple(deviations)


def _publish(part: Path, target: Path) -> None:
    """Give the finished folder its name; what bore it before goes only then."""
    if not target.exists():
        rename(part, target)
        return
    with partial_name(target) as old:  # a rename can't replace a folder that holds files
        target.rename(old)
        try:
            rename(part, target)
        except BaseException:
            if not target.exists():
                old.rename(target)
            raise
