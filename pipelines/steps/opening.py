"""Where the data, the store and the training of a configuration come from."""

import logging
import os
from pathlib import Path

from generalist import engine
from generalist.config import Config
from generalist.data import Dataset, Manifest, changed_since, load, prepare, request_digest
from generalist.data.manifest import MANIFEST
from generalist.store import Remote, Store
from generalist.training import Trainer
from pipelines.workspace import Workspace

STORE = "GENERALIST_STORE"
"""Environment variable: where the store is."""


def prepare_data(config: Config, workspace: Workspace) -> Path:
    """Return the folder of prepared data for a configuration: DVC's where it fits, else one made beside the store.

    Raises:
        BadInput: the source is missing or damaged, or so is the manifest of what DVC prepared.
    """
    wanted = request_digest(config.data)
    if _request_of(workspace.prepared) == wanted:
        if not changed_since(config.data, workspace.prepared, root=workspace.here):
            return workspace.prepared
        logging.getLogger("generalist").warning(
            "images have changed since %s was made, so they are read anew; `dvc repro` brings it up to date",
            workspace.prepared,
        )
    # Nobody watches these sources for changes, so they are read again: that takes seconds.
    prepare(config.data, workspace.data_cache / wanted, root=workspace.here)
    return workspace.data_cache / wanted


def check_source(config: Config, workspace: Workspace) -> None:
    """Read the source where nothing was ever prepared from it: missing data is told before anything else is made.

    Raises:
        BadInput: the source is missing or damaged.
    """
    wanted = request_digest(config.data)
    if all(_request_of(folder) != wanted for folder in (workspace.prepared, workspace.data_cache / wanted)):
        prepare_data(config, workspace)


def _request_of(folder: Path) -> str | None:
    """Return what a folder was prepared for; None where nothing was prepared there."""
    return Manifest.read(folder).request_digest if os.path.lexists(folder / MANIFEST) else None


def training(config: Config, workspace: Workspace, *, data: Path | None = None) -> Trainer:
    """Return the training of a configuration over prepared data, which is checked here, and this workspace's store.

    Raises:
        BadInput: the data changed after it was prepared, or the configured device is not there.
    """
    return Trainer(config, dataset(config, workspace, data=data), open_store(workspace), root=workspace.here)


def dataset(config: Config, workspace: Workspace, *, data: Path | None = None) -> Dataset:
    """Return prepared data, read and checked; `data` is its folder where that is known.

    Raises:
        BadInput: the data changed after it was prepared, or the configured device is not there.
    """
    engine.device(config.training.device)
    return load(data or prepare_data(config, workspace))


def open_store(workspace: Workspace) -> Store:
    """Return the workspace's store, or what `GENERALIST_STORE` names: a folder, or an address that machines share.

    Raises:
        BadInput: nothing here can open that address.
    """
    named = os.environ.get(STORE, "").strip()
    if not named:
        return Store(workspace.store)
    if "://" in named:
        return Store(workspace.store, Remote(named))
    return Store((workspace.root / Path(named).expanduser()).resolve())
