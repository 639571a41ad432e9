"""`generalist config`: show, check and choose configurations."""

from pathlib import Path
from typing import Annotated

import typer

from generalist.atomic_files import write_atomically
from generalist.errors import BadInput
from pipelines.cli import options
from pipelines.cli.shell import new_app, printing, say

app = new_app(help="Show, check and choose configurations.", no_args_is_help=True)


@app.command()
def show(params: options.Params = None, preset: options.Preset = None, overrides: options.Overrides = None) -> None:
    """Print the whole configuration, every default written out."""
    from generalist.config import to_yaml
    from pipelines.workspace import Workspace

    config = options.configuration(Workspace.find(), params, preset, overrides)
    with printing():
        typer.echo(to_yaml(config), nl=False)


@app.command()
def check(params: options.Params = None, preset: options.Preset = None, overrides: options.Overrides = None) -> None:
    """Check a configuration, and that this machine has its device.

    One line if it is right, one for each mistake if it is not.
    """
    from pipelines.workspace import Workspace

    config = options.runnable(Workspace.find(), params, preset, overrides)
    from generalist import engine

    experts, on = ", ".join(config.experts), config.training.device
    where = f", on {engine.told(on)}" if on == "auto" else ""
    say(f"OK: {config.data.title}, {config.model.name}, {config.training.epochs} epochs of {experts}{where}")


@app.command()
def presets() -> None:
    """List the presets, each with its first line of comment."""
    from generalist.config import preset_names, preset_path

    for name in preset_names():
        say(f"{name}: {_first_comment(preset_path(name))}")


@app.command()
def use(
    preset: Annotated[str, typer.Argument(metavar="PRESET", help="Its name.", show_default=False)],
    force: Annotated[bool, typer.Option("--force", help="Replace a params.yaml that was edited.")] = False,
) -> None:
    """Write a preset to params.yaml, every option. Nothing that was trained is lost, and going back re-uses it."""
    from pipelines.whole_preset import whole_preset
    from pipelines.workspace import Workspace

    text, target = whole_preset(preset), Workspace.find().params
    if not force and not _is_a_preset(target):
        raise BadInput(f"{target.name} was edited, and no preset brings it back: copy it away, or add --force")
    write_atomically(target, text.encode())
    say(f"{target.name} is the preset {preset} now; go on with: dvc repro")


def _is_a_preset(path: Path) -> bool:
    from generalist.config import preset_names, preset_path
    from pipelines.whole_preset import whole_preset

    if not path.is_file():
        return True
    content = path.read_bytes()
    alike = [name for name in preset_names() if _first_line(preset_path(name).read_bytes()) == _first_line(content)]
    return any(content == whole_preset(name).encode() for name in alike)  # one at most: the first line tells which


def _first_line(content: bytes) -> bytes:
    return content.partition(b"\n")[0]


def _first_comment(path: Path) -> str:
    first = path.read_text(encoding="utf-8").partition("\n")[0]
    return first.lstrip("# ") if first.startswith("#") else "no description"
