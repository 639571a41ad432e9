"""Options that several commands share, and what they mean."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from generalist.errors import BadInput

if TYPE_CHECKING:
    from generalist.config import Config
    from pipelines.workspace import Workspace

Params = Annotated[
    Path | None, typer.Option("--params", metavar="FILE", help="A configuration file; by default params.yaml.")
]
Preset = Annotated[
    str | None,
    typer.Option("--preset", metavar="NAME", help="A preset instead, of those that `generalist config presets` lists."),
]
Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "--set", "-S", metavar="KEY=VALUE", help="Change one key, such as mixing.interval=3; may be repeated."
    ),
]
Alias = Annotated[str, typer.Option("--alias", metavar="ALIAS", help="Which version: an alias, or its number.")]
Lambda = Annotated[
    float | None,
    typer.Option(
        "--lambda", metavar="L", help="In [0, 1], for a conditional model: 0 for natural, 1 for robust accuracy."
    ),
]
Width = Annotated[
    float | None, typer.Option("--width", metavar="W", help="Of a slimmable model: a width that it was trained at.")
]
Name = Annotated[
    str | None, typer.Option("--name", metavar="NAME", help="The registered model; by default the one of params.yaml.")
]


def configuration(
    workspace: "Workspace", params: Path | None, preset: str | None, overrides: list[str] | None
) -> "Config":
    """Return the configuration that the options mean.

    Raises:
        BadInput: both a file and a preset are given, or what they name is wrong.
    """
    from generalist.config import load

    only_one(params, preset)
    path = None if preset is not None else params or workspace.params
    return load(path, preset=preset, overrides=overrides or [])


def runnable(workspace: "Workspace", params: Path | None, preset: str | None, overrides: list[str] | None) -> "Config":
    """Return the configuration that the options mean, where this machine can train it.

    Raises:
        BadInput: it can't, as it lacks the device, or as for `configuration`.
    """
    config = configuration(workspace, params, preset, overrides)
    from generalist import engine

    engine.device(config.training.device)
    return config


def only_one(params: Path | None, preset: str | None) -> None:
    """Refuse two configurations.

    Raises:
        BadInput: both are given.
    """
    if params is not None and preset is not None:
        raise BadInput("--params and --preset each name a whole configuration: give one of them")


def registered_name(workspace: "Workspace", name: str | None) -> str:
    """Return the registered model that is meant: by default that of params.yaml, where there is one.

    Raises:
        BadInput: params.yaml is wrong, or what is given is no name.
    """
    from generalist.config import load
    from generalist.config.names import check_name
    from generalist.config.training import RegistryOptions

    if name is not None:
        return check_name(name, "--name")
    return load(workspace.params).registry.name if workspace.params.exists() else RegistryOptions().name
