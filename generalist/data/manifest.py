"""What lies in a folder of prepared data, and the digests by which to recognise it."""

import hashlib
import json
from pathlib import Path
from typing import Any, Self

from pydantic import Field

from generalist.config import DataOptions, canonical, digest
from generalist.data.dataset import SPLITS
from generalist.errors import BadInput
from generalist.records import Record

MANIFEST = "manifest.json"
ARRAYS = tuple(f"{split}_{part}.npy" for split in SPLITS for part in ("images", "labels"))
UNLABELLED = "unlabelled_images.npy"
"""Where there are such images."""
MEND = "run `dvc repro --force prepare`"


class Damaged(BadInput):
    """A manifest that is there, and is not what `prepare` wrote."""


class Manifest(Record):
    """What was prepared, from what, and how to recognise it.

    Attributes:
        request: the options it was prepared for, canonical.
        request_digest: SHA-256 (hex) of `request`.
        name: of the source.
        origin: one line for people: what was read.
        checksum: SHA-256 (hex) over what the source read.
        class_names: by class index.
        shape: channels, height, width of every image.
        mean, std: of the training pixels in [0, 1], per channel, float64 from exact sums.
        counts: images by split and class name.
        copies: how many images lie in two splits, such as `test in train`.
        files: SHA-256 (hex) by name of the array files.
        unlabelled: SHA-256 (hex) over what `data.unlabelled` names; None where it names nothing.
        digest: SHA-256 (hex) over `files`, `class_names`, `shape`, `mean` and `std`.
        test_digest: the same over the test files and `class_names` alone.
    """

    request: dict[str, Any]
    request_digest: str
    name: str
    origin: str
    checksum: str
    class_names: tuple[str, ...]
    shape: tuple[int, int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    counts: dict[str, dict[str, int]]
    copies: dict[str, int] = Field(default_factory=dict)
    files: dict[str, str]
    unlabelled: str | None = None
    digest: str
    test_digest: str

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Read the manifest of a folder of prepared data; the arrays are not looked at.

        Raises:
            Damaged: it is not what `prepare` wrote.
            BadInput: there is none.
        """
        path = folder / MANIFEST
        try:
            manifest = super().read(path)
            intact = manifest._intact()
        except (FileNotFoundError, NotADirectoryError):
            raise BadInput(f"there is no prepared data in {folder}; run `dvc repro prepare`") from None
        except OSError as error:
            raise Damaged(f"{path} can't be read ({error.strerror}); {MEND}") from None
        except ValueError:
            raise Damaged(f"{path} is damaged or was written by another version; {MEND}") from None
        if not intact:
            raise Damaged(f"{path} has changed since it was prepared; {MEND}")
        return manifest

    def _intact(self) -> bool:
        return (
            self.request_digest == digest(self.request)
            and self.digest == digest_of_content(self.files, self.class_names, self.shape, self.mean, self.std)
            and self.test_digest == digest_of_test(self.files, self.class_names)
        )


def request_digest(options: DataOptions) -> str:
    """Return the SHA-256 (hex) of the options: a folder whose manifest has it was prepared for them."""
    return digest(canonical(options))


def digest_of_content(
    files: dict[str, str],
    class_names: tuple[str, ...],
    shape: tuple[int, int, int],
    mean: tuple[float, ...],
    std: tuple[float, ...],
) -> str:
    """Return the SHA-256 (hex) of all that a training can see of the data."""
    return digest({"files": files, "class_names": class_names, "shape": shape, "mean": mean, "std": std})


def digest_of_test(files: dict[str, str], class_names: tuple[str, ...]) -> str:
    """Return the SHA-256 (hex) of all that an evaluation on the test split can see."""
    return digest(
        {"files": {name: files.get(name) for name in ARRAYS if name.startswith("test_")}, "class_names": class_names}
    )


def combined_sha256(parts: dict[str, str]) -> str:
    """Return the SHA-256 (hex) over names and digests, in the order of the names."""
    return hashlib.sha256(json.dumps(sorted(parts.items())).encode()).hexdigest()
