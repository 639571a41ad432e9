"""`generalist tune`: a search over the tree."""

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from generalist.errors import BadInput
from pipelines.cli import options
from pipelines.cli.shell import going_on, same_command, say, starting, tell

if TYPE_CHECKING:
    from rich.table import Table

    from pipelines.trials import StudyRecord
    from pipelines.tuning.study import Search
    from pipelines.workspace import Workspace

Workers = Annotated[
    int | None, typer.Option("--workers", min=1, metavar="N", help="Processes that train; by default, the CPU cores.")
]
Storage = Annotated[
    str | None,
    typer.Option(
        "--storage", metavar="ADDRESS", help="A journal's path or postgresql://…; better in GENERALIST_TUNING."
    ),
]


def tune(
    params: options.Params = None,
    preset: options.Preset = None,
    overrides: options.Overrides = None,
    trials: Annotated[
        int | None, typer.Option("--trials", min=1, metavar="N", help="Instead of tuning.trials.")
    ] = None,
    workers: Workers = None,
    storage: Storage = None,
    name: Annotated[
        str | None, typer.Option("--name", metavar="NAME", help="Of the search; give it to resume one.")
    ] = None,
    join: Annotated[
        bool, typer.Option("--join", help="Only work on a search that was begun elsewhere; needs --name.")
    ] = False,
    json_file: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Write what was found, as JSON.")
    ] = None,
    promote: Annotated[
        bool, typer.Option("--promote", help="Train the best with several seeds, evaluate it, pass it to the gates.")
    ] = False,
) -> None:
    """Search the space of params.yaml for the best trade-off.

    Re-run the command to resume a search.
    """
    starting("searching")
    from pipelines.workspace import Workspace, quiet_telemetry

    quiet_telemetry()
    workspace = Workspace.find()
    with going_on(same_command()):
        if join:
            _join(workspace, name, storage, params or preset or overrides or promote or trials)
            return
        _check_json(json_file)
        given = [*(overrides or []), *([f"tuning.trials={trials}"] if trials else [])]
        config = options.configuration(workspace, params, preset, given)
        from pipelines.tuning import doors, summary
        from pipelines.tuning.searching import files_of

        search, record = doors.run(
            workspace, config, name=name, address=storage, workers=workers or os.cpu_count() or 1, tell=tell
        )
        for line in summary.lines(record):
            say(line)
        files = files_of(workspace, search)
        say(f"look at {files.page}")
        if record.best is not None:
            say(f"train it with: generalist train --preset {files.best.relative_to(workspace.here)}")
        if json_file is not None:
            _write_json(json_file, summary.as_json(record))
        if promote:
            _promote(workspace, search, record, address=storage, workers=workers or os.cpu_count() or 1)


def ablate(
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", help="In presets/ablations, or a file; without it, all are listed.")
    ] = None,
    preset: options.Preset = None,
    overrides: options.Overrides = None,
    workers: Workers = None,
    storage: Storage = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Write what was found, as JSON.")
    ] = None,
) -> None:
    """Train every point of a declared grid, and show the results."""
    from pipelines.tuning import ablation
    from pipelines.workspace import Workspace, quiet_telemetry

    quiet_telemetry()
    if name is None:
        for own in ablation.names():
            say(f"{own}: {ablation.about(own)}")
        return
    workspace = Workspace.find()
    with going_on(same_command()):
        _check_json(json_file)
        config = ablation.read(name, preset=preset, overrides=overrides or [])
        from pipelines.cli.showing import show
        from pipelines.tuning import doors, grid_figure, summary
        from pipelines.tuning.searching import files_of

        search, record = doors.run(
            workspace, config, name=None, address=storage, workers=workers or os.cpu_count() or 1, tell=tell
        )
        files = files_of(workspace, search)
        _write(files.table, ablation.as_csv(record))
        _write(files.picture, grid_figure.png(record, ablation.about(name)))
        show(_grid(ablation.rows(record), config.evaluation.threats[0].norm))
        for line in summary.lines(record):
            say(line)
        say(f"table: {files.table}\nplot: {files.picture}\nlook at {files.page}")
        if json_file is not None:
            _write_json(json_file, summary.as_json(record))


def _grid(rows: "list[dict[str, str]]", norm: str) -> "Table":
    from rich.table import Table

    columns = list(dict.fromkeys(name for row in rows for name in row))
    table = Table(caption=f"validation split, {norm}, 95 % intervals", box=None, pad_edge=False)
    for column in columns:
        table.add_column(column)
    for row in rows:
        table.add_row(*(row.get(column, "") for column in columns))
    return table


def _promote(
    workspace: "Workspace", search: "Search", record: "StudyRecord", *, address: str | None, workers: int
) -> None:
    """Train the best with several seeds; take the best of those to the test split, and to the gates."""
    if record.best is None:
        raise BadInput("no trial came to its end, so there is nothing to promote")
    from pipelines.cli.journey import run_flow
    from pipelines.tuning import doors, promotion
    from pipelines.tuning.searching import files_of
    from pipelines.tuning.study import best_config

    best = best_config(search, record.trials[record.best])
    config, name = promotion.over_seeds(best), f"{search.name}-trial-{record.best}-{best.tuning.seeds}-seeds"
    seeds, found = doors.run(workspace, config, name=name, address=address, workers=workers, tell=tell)
    params = promotion.put_down(files_of(workspace, search), seeds, found, search.space.config)
    run_flow(workspace, params, None, [], workspace.runs / f"tuned-{search.name}")


def _join(workspace: "Workspace", name: str | None, storage: str | None, others: object) -> None:
    if name is None or others:
        raise BadInput("--join takes the search's --name and its --storage, and nothing else: all the rest lies there")
    from pipelines.tuning import doors

    say(f"worked at {doors.join(workspace, name=name, address=storage)} trials of {name}")


def _check_json(path: Path | None) -> None:
    from generalist.writing import check_file

    if path is not None:
        check_file(path, suffix=".json")


def _write_json(path: Path, found: object) -> None:
    _write(path, (json.dumps(found, indent=1) + "\n").encode())


def _write(path: Path, content: bytes) -> None:
    from generalist.writing import write_atomically

    write_atomically(path, content)
