"""`generalist remix`: other mixtures of a finished training."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipelines.cli.shell import going_on, same_command, say, starting

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.table import Table

    from generalist.training import MeasuredMixture
    from pipelines.remix import RemixSweep


def remix(
    run: Annotated[
        Path, typer.Argument(metavar="RUN", help="Results of a training, such as outputs.", show_default=False)
    ],
    natural_at_least: Annotated[
        float | None,
        typer.Option(
            "--natural-at-least",
            metavar="ACCURACY",
            help="Take the most robust mixture of at least this natural accuracy, not the best by registry.criterion.",
        ),
    ] = None,
    points: Annotated[int, typer.Option("--points", metavar="N", help="Mixtures between any two experts.")] = 21,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help="Where the results go; by default runs/remix-DIGEST.")
    ] = None,
    only_look: Annotated[
        bool, typer.Option("--only-look", help="Stop before the test split: the table and the picture alone.")
    ] = False,
) -> None:
    """Mix the experts of a finished training anew, without training.

    A sweep over their weights on the validation split; the best mixture is evaluated on the test split, exported and
    registered, if it is better than the learner as it was trained.
    """
    starting("mixing the experts anew")
    from pipelines import remix
    from pipelines.cli.tables import accuracies, show
    from pipelines.results import Results, check_target
    from pipelines.workspace import Workspace

    workspace = Workspace.find()
    with going_on(same_command()):
        if out is not None:
            check_target(Results(out), workspace)
        sweep = remix.sweep_mixtures(workspace, Results(run), natural_at_least=natural_at_least, points=points)
        target = remix.place(workspace, sweep, out)
        show(
            _table(sweep, sweep.mixtures, by="evaluation.selection_attack"),
            _table(sweep, sweep.finalists, by="the cascade"),
        )
        remix.draw(sweep, target)
        say(f"picture: {target.remix}")
        sweep.check()
        if not sweep.is_better:
            say(
                f"no mixture is better than the learner as it was trained, by {sweep.goal} on the validation split:"
                " nothing was evaluated on the test split, and nothing registered"
            )
            return
        say(f"chosen: {remix.words(sweep.best.factors)}, by {sweep.goal}")
        if only_look:
            return
        registration = remix.register_mixture(workspace, sweep, target, command=same_command())
    evaluation = target.read_evaluation()
    show(accuracies(evaluation))
    say(f"{registration.sentence}\nresults in {target.folder}, weights {evaluation.headline.digest}")


def _table(sweep: "RemixSweep", mixtures: "Sequence[MeasuredMixture]", *, by: str) -> "Table":
    """Return the weights and accuracies on the validation split."""
    from rich.table import Table

    table = Table(caption=f"validation split, robust by {by}", box=None, pad_edge=False, caption_justify="left")
    for title in (*sweep.averaged.coefficients, "natural accuracy", "robust accuracy", sweep.goal.criterion, ""):
        table.add_column(title, justify="right" if title else "left", no_wrap=True)
    for mixture in mixtures:
        marks = ["as trained"] * sweep.is_trained(mixture) + ["best"] * (mixture is sweep.best)
        weights = [f"{factor:.3f}" for factor in mixture.factors.values()]
        values = [
            mixture.validation.natural.value,
            mixture.validation.robust.value,
            mixture.validation.by(sweep.goal.criterion),
        ]
        table.add_row(*weights, *(f"{value:.4f}" for value in values), ", ".join(marks))
    return table
