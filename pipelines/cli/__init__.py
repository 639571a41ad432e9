"""The command line `generalist`. Heavy imports wait inside the commands: `generalist --help` answers at once."""

import os
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer

from pipelines.cli import (
    attack_commands,
    compare_command,
    config_commands,
    database_commands,
    init_command,
    model_commands,
    remix_command,
    serve_command,
    store_commands,
    train_commands,
    tune_commands,
)
from pipelines.cli.shell import CODE, Commands, leave, new_app

app = new_app(
    cls=Commands,
    no_args_is_help=True,
    help="Image classifiers that are both accurate and adversarially robust. The main job is `generalist run`.",
)

for command in (
    train_commands.run,
    train_commands.prepare,
    train_commands.train,
    train_commands.plan,
    train_commands.register,
    remix_command.remix,
    tune_commands.tune,
    tune_commands.ablate,
    compare_command.compare,
    serve_command.serve,
    model_commands.predict,
    model_commands.trace,
    attack_commands.attack,
    attack_commands.merge,
    attack_commands.verify,
    model_commands.download,
    model_commands.promote,
    model_commands.rollback,
    database_commands.relocate,
):
    app.command()(command)
app.command()(init_command.init)
app.command(hidden=True)(init_command.code)
app.add_typer(config_commands.app, name="config")
app.add_typer(store_commands.app, name="store")


def _say_version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        typer.echo(f"generalist {version('generalist')}")
        raise typer.Exit


@app.callback()
def _common(
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_say_version, help="Print the version.")
    ] = False,
) -> None:
    del version  # it has been said


def main() -> None:
    """Run the program `generalist`."""
    try:
        app(prog_name="generalist")
    except SystemExit as end:
        if end.code and (file := os.environ.get(CODE)):
            with suppress(OSError):  # a full disk; then the code is DVC's own
                Path(file).write_text(str(end.code), encoding="ascii")
        leave(end.code)
