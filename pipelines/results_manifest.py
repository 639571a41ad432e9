"""How results come to lie in their folder, and how readers know that they are whole: all of one training, or none.

Files come by one rename each, the manifest with the SHA-256 of all the others last. Where a training was killed in
between, the manifest is missing, or tells of the files that were there before.
"""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from generalist.atomic_files import write_atomically
from generalist.errors import BadInput
from generalist.records import Record
from generalist.untrusted import file_sha256
from pipelines.results import Results
from pipelines.workspace import Workspace


class ResultsManifest(Record):
    """The SHA-256 (hex) of each file by its name."""

    files: dict[str, str]


def write_manifest(results: Results) -> None:
    """Write the manifest of the files that lie in a folder of results.

    Raises:
        BadInput: a file is missing, or the folder can't be written.
    """
    files = {path.name: _sha256(path, results) for path in _listed_files(results)}
    write_atomically(results.manifest, (ResultsManifest(files=files).model_dump_json(indent=1) + "\n").encode())


@contextmanager
def writing(target: Results, workspace: Workspace) -> Iterator[Results]:
    """Be the one writer of a folder of results, and have another, empty one for those in the making.

    That one goes when the writer ends; those of killed writers go now.

    Raises:
        BadInput: another process is writing there.
    """
    with workspace.lock(target.folder):
        for left in workspace.staging.glob("*"):
            with suppress(Timeout), FileLock(workspace.locks / f"{left.name}.lock", timeout=0):
                shutil.rmtree(left, ignore_errors=True)
        staged = workspace.staging / workspace.lock_name(target.folder)
        shutil.rmtree(staged, ignore_errors=True)
        staged.mkdir(parents=True)
        try:
            yield Results(staged)
        finally:
            shutil.rmtree(staged, ignore_errors=True)


def move_into_place(staged: Results, target: Results) -> None:
    """Move finished files from the staging folder to their place, one rename each, their manifest last.

    Raises:
        BadInput: a file is missing, or the target can't be written.
    """
    write_manifest(staged)
    for stale in target.widths():
        stale.unlink(missing_ok=True)
    for source in staged.widths():
        write_atomically(target.folder / source.name, source.read_bytes())
        source.unlink()
    for source, destination in zip(staged.all(), target.all(), strict=True):
        write_atomically(destination, source.read_bytes())
        source.unlink()


def check_whole(results: Results) -> str:
    """Return the SHA-256 (hex) of the manifest, by which others know these very results.

    Raises:
        BadInput: the manifest is missing or damaged, or a file is not the one it tells of.
    """
    path = results.manifest
    try:
        digest, digests = file_sha256(path), ResultsManifest.read(path).files
    except FileNotFoundError:
        if not any(file.exists() for file in results.all()):
            raise BadInput(f"there are no results in {results.folder}: {_advice(results)}") from None
        raise BadInput(
            f"there is no {path}, so the results are not whole (a training was killed while it put them down) or of an"
            f" older version: {_advice(results)}"
        ) from None
    except (OSError, ValueError):
        raise BadInput(f"{path} can't be read or is damaged: {_advice(results)}") from None
    if digests.keys() != {file.name for file in _listed_files(results)}:
        raise BadInput(f"{path} doesn't tell of the files that results have: {_advice(results)}")
    for file in _listed_files(results):
        if _sha256(file, results) != digests[file.name]:
            raise BadInput(
                f"{file} is not the file that {path.name} tells of, so it was changed, or a training was killed while"
                f" it put results down: {_advice(results)}"
            )
    return digest


def _listed_files(results: Results) -> list[Path]:
    return [path for path in results.all() if path != results.manifest]


def _sha256(path: Path, results: Results) -> str:
    try:
        return file_sha256(path)
    except FileNotFoundError:
        raise BadInput(f"{path} is missing: {_advice(results)}") from None
    except OSError as error:
        raise BadInput(f"{path} can't be read ({error.strerror}): {_advice(results)}") from None


def _advice(results: Results) -> str:
    return f"make them again with `dvc repro`, or `generalist train --out {results.folder}`, from what is stored"
