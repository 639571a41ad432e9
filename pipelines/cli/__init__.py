"""The command line `generalist`. Heavy imports wait inside the commands: `generalist --help` answers at once."""

import os
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer

from pipelines.cli import (
    attacking,
    beginning,
    configuration,
    databases,
    journey,
    models,
    remixing,
    service,
    storing,
    tuning,
)
from pipelines.cli.shell import CODE, Commands, leave, new_app

app = new_app(
    cls=Commands,
    no_args_is_help=True,
    help="Image classifiers that are both accurate and adversarially robust. The main job is `generalist run`.",
)

for command in (
    journey.run,
    journey.prepare,
    journey.train,
    journey.plan,
    journey.register,
    remixing.remix,
    tuning.tune,
    tuning.ablate,
    service.serve,
    models.predict,
    models.trace,
    attacking.attack,
    attacking.merge,
    models.download,
    models.promote,
    models.rollback,
    databases.relocate,
):
    app.command()(command)
app.command()(beginning.init)
app.command(hidden=True)(beginning.code)
app.add_typer(configuration.app, name="config")
app.add_typer(storing.app, name="store")


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
