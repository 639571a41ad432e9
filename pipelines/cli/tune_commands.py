"""`generalist tune`: a search over the tree."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from generalist.atomic_files import write_atomically
from generalist.errors import BadInput
from pipelines.cli import options
from pipelines.cli.shell import going_on, same_command, say, starting, tell

if TYPE_CHECKING:
    from pipelines.trial_records import StudyRecord
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

JsonFile = Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write what was found, as JSON.")]


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
    json_file: JsonFile = None,
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
        from pipelines.tuning.run_search import files_of, run

        search, record = run(workspace, config, name=name, address=storage, workers=workers, tell=tell)
        files = files_of(workspace, search)
        _say(record, f"look at {files.page}", json_file)
        if record.best is not None:
            say(f"train it with: generalist train --preset {files.best.relative_to(workspace.here)}")
        if promote:
            _promote(workspace, search, record, address=storage, workers=workers)


def ablate(
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", help="In presets/ablations, or a file; without it, all are listed.")
    ] = None,
    preset: options.Preset = None,
    overrides: options.Overrides = None,
    workers: Workers = None,
    storage: Storage = None,
    json_file: JsonFile = None,
) -> None:
    """Train every point of a declared grid, and show the results."""
    from pipelines.tuning import ablation
    from pipelines.workspace import Workspace, quiet_telemetry

    quiet_telemetry()
    if name is None:
        for ablation_name in ablation.names():
            say(f"{ablation_name}: {ablation.about(ablation_name)}")
        return
    workspace = Workspace.find()
    with going_on(same_command()):
        _check_json(json_file)
        config = ablation.read(name, preset=preset, overrides=overrides or [])
        from pipelines.cli.tables import show, table_of
        from pipelines.tuning import grid_figure
        from pipelines.tuning.run_search import files_of, run

        search, record = run(workspace, config, name=None, address=storage, workers=workers, tell=tell)
        files = files_of(workspace, search)
        write_atomically(files.table, ablation.as_csv(record))
        write_atomically(files.picture, grid_figure.png(record, ablation.about(name)))
        norms = " and ".join(threat.norm for threat in config.evaluation.headline_threats)
        caption = f"validation split, {norms}, 95 % intervals"
        show(table_of(ablation.rows(record), caption=caption, box=None, pad_edge=False))
        _say(record, f"table: {files.table}\nplot: {files.picture}\nlook at {files.page}", json_file)


def _promote(
    workspace: "Workspace", search: "Search", record: "StudyRecord", *, address: str | None, workers: int | None
) -> None:
    """Train the best with several seeds; take the best of those to the test split, and to the gates."""
    if record.best is None:
        raise BadInput("no trial came to its end, so there is nothing to promote")
    from pipelines.cli.train_commands import run_flow
    from pipelines.tuning import promotion
    from pipelines.tuning.run_search import files_of, run
    from pipelines.tuning.study import best_config

    best = best_config(search, record.trials[record.best])
    config, name = promotion.over_seeds(best), f"{search.name}-trial-{record.best}-{best.tuning.seeds}-seeds"
    seeds, seeds_record = run(workspace, config, name=name, address=address, workers=workers, tell=tell)
    params = promotion.put_down(files_of(workspace, search), seeds, seeds_record, search.space.config)
    run_flow(workspace, params, None, [], workspace.runs / f"tuned-{search.name}")


def _join(workspace: "Workspace", name: str | None, storage: str | None, others: object) -> None:
    if name is None or others:
        raise BadInput("--join takes the search's --name and its --storage, and nothing else: all the rest lies there")
    from pipelines.tuning.worker import join

    say(f"worked at {join(workspace, name=name, address=storage)} trials of {name}")


def _check_json(path: Path | None) -> None:
    from generalist.atomic_files import check_file

    if path is not None:
        check_file(path, suffix=".json")


def _say(record: "StudyRecord", where: str, json_file: Path | None) -> None:
    """Say what was found, and write it where JSON is wanted."""
    from pipelines.tuning import summary

    for line in summary.lines(record):
        say(line)
    say(where)
    if json_file is not None:
        write_atomically(json_file, (json.dumps(summary.as_json(record), indent=1) + "\n").encode())
