"""`generalist compare`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipelines.cli import options
from pipelines.cli.shell import going_on, same_command, say, starting, tell

if TYPE_CHECKING:
    from generalist.comparison import Comparison


def compare(
    presets: Annotated[
        list[str] | None, typer.Argument(metavar="PRESET...", help="Presets, or paths of configurations.")
    ] = None,
    file: Annotated[
        str | None,
        typer.Option("--file", metavar="FILE", help="A declared comparison instead: its name, or its path."),
    ] = None,
    seeds: Annotated[int | None, typer.Option("--seeds", min=1, max=100, metavar="N", help="By default 3.")] = None,
    budget: Annotated[
        str | None,
        typer.Option("--budget", metavar="COST", help="Of each training: '2e6 passes' or '60 s'; else its own epochs."),
    ] = None,
    overrides: options.Overrides = None,
    name: Annotated[
        str | None, typer.Option("--name", metavar="NAME", help="Of the folder in comparisons/; give it to resume.")
    ] = None,
    workers: Annotated[
        int | None, typer.Option("--workers", min=1, metavar="N", help="Trainings at once; by default, the CPU cores.")
    ] = None,
) -> None:
    """Compare presets over several seeds, at equal cost.

    All are measured by one protocol; the page shows the front. Re-run the command to resume.
    """
    starting("comparing")
    from pipelines.workspace import Workspace, quiet_telemetry

    quiet_telemetry()
    workspace = Workspace.find()
    with going_on(same_command()):
        from pipelines.comparison.spec import asked

        spec = asked(presets or [], file, seeds, budget, overrides or [])
        from pipelines.comparison.run import default_name, folder_of, run
        from pipelines.tracking.comparisons import publish_comparison

        called = name or (Path(file).stem if file else default_name(spec))
        found = run(workspace, spec, name=called, command=same_command(), workers=workers, tell=tell)
        folder = folder_of(workspace, called)
        publish_comparison(workspace, found, folder.files)
    _show(found)
    say(f"look at {folder.page}")


def _show(comparison: "Comparison") -> None:
    from generalist.comparison import HARMONIC, NATURAL, ROBUST
    from pipelines.cli.tables import show, table_of

    front = {row.title for row in comparison.front()}
    rows = [
        {"row": row.title + (" *" if row.title in front else "")}
        | {column: str(row.spread(column)) for column in (NATURAL, ROBUST, HARMONIC)}
        for row in comparison.rows()
    ]
    protocol = comparison.trainings[0].protocol
    caption = (
        f"per cent on {protocol.n} {protocol.split} images, {' and '.join(protocol.headline_threats)},"
        f" {protocol.headline}; 95 % intervals over seeds; *: no row is better in both"
    )
    show(table_of(rows, caption=caption, box=None, pad_edge=False))
