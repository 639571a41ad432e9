"""The journey from params.yaml to a registered model: prepare, train, register, and run, which is all of it."""

from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipelines.cli import options
from pipelines.cli.shell import going_on, same_command, say, starting, tell, told_by_parent

if TYPE_CHECKING:
    from generalist.config import Config
    from generalist.data import Dataset
    from pipelines.registry import Registration
    from pipelines.results import Results
    from pipelines.workspace import Workspace


def prepare() -> None:
    """Read, split and write the images to data/prepared."""
    starting("preparing the images")
    from pipelines.workspace import Workspace

    workspace = Workspace.find()
    with going_on(_dvc_command() or same_command()), _stage(workspace):
        config = options.configuration(workspace, None, None, None)
        from generalist.data import check_watched
        from generalist.data import prepare as write

        if _dvc_command():
            check_watched(config.data, root=workspace.here, watched=workspace.here / "data" / "raw")
        manifest = write(config.data, workspace.prepared, root=workspace.here)
    sizes = ", ".join(f"{split} {sum(counts.values()):,}" for split, counts in manifest.counts.items())
    say(f"{manifest.name}: {sizes} images of {len(manifest.class_names)} classes in {workspace.prepared}")
    copies = ", ".join(f"{count} {where}" for where, count in manifest.copies.items() if count)
    if copies:
        say(
            f"the same pixels lie in two splits ({copies}), so accuracies are too high: data.copies=remove takes them"
            " out of training"
        )


def train(
    params: options.Params = None,
    preset: options.Preset = None,
    overrides: options.Overrides = None,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help="Where the results go; by default outputs.")
    ] = None,
    plan: Annotated[
        bool, typer.Option("--plan", help="Only say what would be done, and what the store holds of it.")
    ] = False,
) -> None:
    """Run the whole flow in this process.

    Warm-up of each expert, mixing rounds, evaluation, ONNX export, registration.
    """
    options.only_one(params, preset)
    starting("planning a training" if plan else "training")
    from pipelines.workspace import Workspace

    workspace = Workspace.find()
    with going_on(_dvc_command() or same_command()), nullcontext() if plan else _stage(workspace):
        if plan:
            from pipelines.cli.plan_command import planned

            for line in planned(options.runnable(workspace, params, preset, overrides), workspace):
                say(line)
            return
        run_flow(workspace, params, preset, overrides or [], out or workspace.outputs)


def plan(params: options.Params = None, preset: options.Preset = None, overrides: options.Overrides = None) -> None:
    """Say what a training would do and how long it takes.

    What the store holds is not trained again.
    """
    train(params, preset, overrides, plan=True)


def register(
    outputs: Annotated[
        Path | None, typer.Option("--outputs", metavar="DIR", help="Results of a training; by default outputs.")
    ] = None,
) -> None:
    """Register the model among some results, once."""
    from pipelines.results import Results
    from pipelines.workspace import Workspace

    workspace = Workspace.find()
    with going_on(same_command()):
        say(_register(workspace, Results(outputs or workspace.outputs)).sentence)


def run() -> None:
    """Run the whole pipeline; skip what is up to date.

    Runs `dvc repro`, registers the model unless it is registered already, and shows the results.
    """
    starting("running the pipeline; what is up to date is skipped")
    from pipelines.cli import dvc_repro
    from pipelines.cli.database_commands import being_made
    from pipelines.early_imports import uncollected
    from pipelines.workspace import Workspace, quiet_telemetry

    quiet_telemetry()
    workspace = Workspace.find()
    with going_on(dvc_repro.run_command(), within=2 * dvc_repro.ENDS_WITHIN):
        with uncollected():
            config = options.runnable(workspace, None, None, None)
        dvc_repro.check_repository(workspace.here)
        with dvc_repro.alone(workspace), being_made(workspace):
            say(_requirements(config))
            dvc_repro.reproduce(workspace)
        from pipelines.cli.tables import closing, show
        from pipelines.results import Results

        results = Results(workspace.outputs)
        registration = _register(workspace, results)
    show(*closing(workspace, results, registration))


def run_flow(
    workspace: "Workspace", params: Path | None, preset: str | None, overrides: list[str], outputs: Path
) -> None:
    """Run the whole flow in this process, with a server beside it, and say what came of it."""
    from pipelines import orchestration
    from pipelines.early_imports import uncollected
    from pipelines.results import Results, check_target

    check_target(Results(outputs), workspace)
    # The server starts first: it needs the seconds in which everything else is imported.
    with orchestration.server(workspace, warn=tell) as ready:
        with uncollected():
            config = options.runnable(workspace, params, preset, overrides)  # wrong input needs no server
            from pipelines import steps

            steps.check_source(config, workspace)
            from pipelines import flows
            from pipelines.progress import Progress
            from pipelines.tracking.mlflow_database import migrate

        migrate(workspace)  # while the server starts
        ready()
        with Progress() as progress:
            made = flows.run(watch=progress, params=params, preset=preset, overrides=overrides, outputs=outputs)
    if not told_by_parent():
        from pipelines.cli.tables import accuracies, show
        from pipelines.results import Results

        show(accuracies(Results(Path(made["outputs"])).read_evaluation()))
    say(f"{made['registered']}\nresults in {made['outputs']}, weights {made['weights']}")


def _register(workspace: "Workspace", results: "Results") -> "Registration":
    """Return the registration of results; made from the results themselves where the registry doesn't know them."""
    from pipelines import registry

    def reevaluate(champion: "Results") -> "Results":
        from generalist.config import load
        from pipelines import steps

        return steps.reevaluation(steps.training(load(results.params), workspace))(champion)

    def data(config: "Config") -> "Dataset":
        from generalist.data import load
        from pipelines import steps

        return load(steps.prepare_data(config, workspace))

    return registry.register(workspace, results, data=data, reevaluate=reevaluate)


def _requirements(config: "Config") -> str:
    from pipelines.cli import dvc_repro

    rounds = "" if config.mixing is None else f", mixed from epoch {config.mixing.warm_up}"
    steps = (
        f"{config.data.title}, {config.model.name}: {config.training.epochs} epochs of {' and '.join(config.experts)}"
        f"{rounds}, then {config.evaluation.attack} on the test split, ONNX, the registry."
    )
    if dvc_repro.run_command() == "make run":  # make has said what it takes
        return steps
    if config.data.name == "digits":
        return f"{steps}\nThe default on digits takes 3 minutes of two CPU cores, 1 GB of memory and 100 MB of disk."
    return f"{steps}\nHow long that takes here is estimated by: generalist plan"


def _stage(workspace: "Workspace") -> AbstractContextManager[None]:
    """Let others know from the start that a stage of DVC's is under way."""
    return workspace.stage() if _dvc_command() else nullcontext()


def _dvc_command() -> str | None:
    from pipelines.cli import dvc_repro

    return dvc_repro.dvc_command()
