"""What a deployment's parameters may reach: they come from all who may ask Prefect's server for a run."""

import os
from collections.abc import Sequence
from pathlib import Path

from generalist.config import Config, load
from generalist.errors import BadInput
from pipelines.workspace import Workspace

PATHS = "GENERALIST_PATHS"
"""Environment variable: `anywhere` lets the deployment's parameters lead out of the project."""


def check_within(path: Path, workspace: Workspace) -> Path:
    """Check a path to read from, and return it.

    Raises:
        BadInput: it leads out of the project, and `GENERALIST_PATHS` doesn't say `anywhere`.
    """
    return _check(path, workspace, (workspace.here,), "outside of the project, which the deployment may not leave")


def check_below(path: Path, workspace: Workspace) -> Path:
    """Check a folder to write to, and return it.

    Raises:
        BadInput: it does not lie in the folders for that, and `GENERALIST_PATHS` doesn't say `anywhere`.
    """
    folders = (workspace.runs, workspace.tuning)
    return _check(path, workspace, folders, "not in the folders that the deployment writes to")


def configuration(
    workspace: Workspace, *, params: str | None, preset: str | None, overrides: Sequence[str], trusted: bool
) -> Config:
    """Return the configuration that a flow's parameters mean.

    Args:
        workspace: whose params.yaml is meant where no other configuration is named.
        params: a file.
        preset: a name, or a file.
        overrides: dotted paths.
        trusted: whether this machine's user gives them, who may name any path.

    Raises:
        BadInput: something in it is wrong, or leads out of the project where it should not.
    """
    if not trusted:
        params = params and str(check_within(Path(params), workspace))
        if preset and preset.endswith((".yaml", ".yml")):  # a file in place of a name
            preset = str(check_within(Path(preset), workspace))
    path = None if preset else Path(params) if params else workspace.params
    config = load(path, preset=preset or None, overrides=overrides)
    if not trusted and overrides:
        for place in _paths_in(config) - _paths_in_file(path, preset):
            check_within(Path(place).expanduser(), workspace)
    return config


def _paths_in(config: Config) -> set[str]:
    """Return paths in a configuration."""
    trained = [
        threat for expert in config.experts.values() for threat in getattr(expert.objective, "trains_against", ())
    ]
    of_threats = [path for threat in (*config.evaluation.threats, *trained) for path in threat.paths]
    paths = (getattr(config.data, "path", None), config.data.unlabelled, config.training.initial_weights, *of_threats)
    return {str(place) for place in paths if place is not None}


def _paths_in_file(path: Path | None, preset: str | None) -> set[str]:
    """Return those that stand in the file, which is the project's own."""
    try:
        return _paths_in(load(path, preset=preset or None))
    except BadInput:  # the overrides mend it
        return set()


def _check(path: Path, workspace: Workspace, folders: tuple[Path, ...], fault: str) -> Path:
    place = (workspace.here / path).resolve()
    inside = any(place.is_relative_to(folder.resolve()) for folder in folders)
    if os.environ.get(PATHS) != "anywhere" and not inside:
        where = " or ".join(str(folder) for folder in folders)
        raise BadInput(
            f"{path} is {fault}: name a path within {where}, or start `generalist serve` with {PATHS}=anywhere"
        )
    return place
