"""Versions of the registered model: which there are, and how to get their files."""

import os
import tempfile
from pathlib import Path

from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from generalist.atomic_files import check_file, write_atomically
from generalist.errors import BadInput
from generalist.export import graph_digest
from generalist.records import Record
from pipelines.results import Results
from pipelines.tracking import (
    ONNX_SHA256,
    WEIGHTS_SHA256,
    connect,
    experiment_id,
    finished_runs,
    sha256_of,
    stored_file,
)
from pipelines.workspace import Workspace

CHAMPION, CHALLENGER = "champion", "challenger"
FORMER, PROTOCOL = "former_champion", "protocol_digest"
"""Tags of a version: the champion before it, where it became one; and what its accuracies mean."""
_MISSING = {"RESOURCE_DOES_NOT_EXIST", "NOT_FOUND"}


class Version(Record):
    """A version of a registered model.

    Attributes:
        name: of the registered model.
        version: from 1.
        aliases: such as champion.
        sha256: of its ONNX file; empty where another program registered it.
        run_id: the MLflow run that made it.
        source: where MLflow keeps its files.
        tags: all of them.
    """

    name: str
    version: int
    aliases: tuple[str, ...]
    sha256: str
    run_id: str
    source: str
    tags: dict[str, str]


class KnownModels(Record):
    """What MLflow knows of an ONNX file: ids of complete runs, newest first, and registered versions."""

    runs: tuple[str, ...]
    versions: tuple[Version, ...]


def find(workspace: Workspace, sha256: str) -> KnownModels:
    """Return the runs and versions of the ONNX file with this SHA-256 (hex)."""
    client = connect(workspace)
    runs = finished_runs(client, experiment_id(workspace, client), {ONNX_SHA256: sha256})
    return KnownModels(runs=tuple(str(run.info.run_id) for run in runs), versions=with_sha256(client, sha256))


def download(workspace: Workspace, target: Path, *, name: str, reference: str = CHAMPION) -> Path:
    """Copy the ONNX file of a version out of the registry, whole or not at all, and return its path.

    Args:
        workspace: whose MLflow.
        target: the file, or an existing folder for `model.onnx`.
        name: the registered model.
        reference: an alias or a number of a version.

    Raises:
        BadInput: there is no such version, its file is gone or was changed, or the target can't be written.
    """
    path = target / "model.onnx" if os.path.isdir(target) else target  # noqa: PTH112  no name is too long for it
    check_file(path, suffix=".onnx")
    version = version_of(client := connect(workspace), name, reference)
    with tempfile.TemporaryDirectory() as folder:
        source = _fetch(client, version, Path(folder))
        if sha256_of(source) != version.sha256:
            raise BadInput(
                f"the file of {name} version {version.version} was changed after it was registered: restore {source}"
            )
        write_atomically(path, source.read_bytes())
    return path


def drop(client: MlflowClient, version: Version) -> None:
    """Delete a version, unless that is done already."""
    try:
        client.delete_model_version(version.name, str(version.version))
    except MlflowException as error:
        if error.error_code not in _MISSING:
            raise


def version_of(client: MlflowClient, name: str, reference: str) -> Version:
    """Return the version with an alias or a number.

    Raises:
        BadInput: there is none; it says which there are.
    """
    try:
        if reference.isdecimal():
            return described(client, name, reference)
        version = with_alias(client, name, reference)
    except MlflowException as error:
        if error.error_code not in _MISSING:
            raise
        version = None
    if version is None:
        known = client.search_model_versions(f"name = '{name}'")
        numbers = ", ".join(str(number) for number in sorted(int(entry.version) for entry in known))
        aliases = ", ".join(sorted(_aliases(client, name)))
        hint = f"it has versions {numbers} and aliases {aliases or 'none'}" if known else "nothing is registered yet"
        raise BadInput(f"{name} has no version '{reference}': {hint}")
    return version


def with_alias(client: MlflowClient, name: str, alias: str) -> Version | None:
    """Return the version with an alias, if there is one."""
    number = _aliases(client, name).get(alias)
    return None if number is None else described(client, name, str(number))


def with_sha256(client: MlflowClient, sha256: str) -> tuple[Version, ...]:
    """Return the versions whose ONNX file has this SHA-256 (hex), of any registered model."""
    same = client.search_model_versions(f"tags.{ONNX_SHA256} = '{sha256}'")
    return tuple(described(client, version.name, str(version.version)) for version in same)


def with_equal(workspace: Workspace, results: Results, name: str) -> Version | None:
    """Return the version with the weights and the graph of these results, evaluated by the same protocol.

    Its file may be another one, made from another commit. Of several, it is the champion, or the last.

    Raises:
        BadInput: a file of the results is missing or damaged.
    """
    client, evaluation, graph = connect(workspace), results.read_evaluation(), graph_digest(results.onnx)
    weights, experiment = evaluation.headline.digest, experiment_id(workspace, client)
    ids = {run.info.run_id for run in finished_runs(client, experiment, {WEIGHTS_SHA256: weights})}
    alike = client.search_model_versions(f"name = '{name}' and tags.{PROTOCOL} = '{evaluation.protocol.digest()}'")
    versions = [described(client, name, str(version.version)) for version in alike if version.run_id in ids]
    versions.sort(key=lambda version: (CHAMPION in version.aliases, version.version), reverse=True)
    return next((version for version in versions if _graph_digest(client, version) == graph), None)


def described(client: MlflowClient, name: str, number: str) -> Version:
    """Return a version as it is now."""
    model_version = client.get_model_version(name, number)
    return Version(
        name=name,
        version=int(model_version.version),
        aliases=tuple(model_version.aliases),
        sha256=model_version.tags.get(ONNX_SHA256, ""),
        run_id=model_version.run_id or "",
        source=model_version.source,
        tags=dict(model_version.tags),
    )


def _aliases(client: MlflowClient, name: str) -> dict[str, str]:
    try:
        return dict(client.get_registered_model(name).aliases)
    except MlflowException as error:
        if error.error_code not in _MISSING:
            raise
        return {}


def _graph_digest(client: MlflowClient, version: Version) -> str | None:
    """Return the digest of the graph and the weights in a version's file; None where that is gone or was changed."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            file = _fetch(client, version, Path(folder))
            return graph_digest(file) if sha256_of(file) == version.sha256 else None
        except BadInput:
            return None


def _fetch(client: MlflowClient, version: Version, folder: Path) -> Path:
    try:
        return stored_file(client, version.source, folder)
    except (MlflowException, OSError):
        raise BadInput(
            f"the file of {version.name} version {version.version} is gone from {version.source}: restore it there"
        ) from None
