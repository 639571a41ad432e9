"""`generalist remix`: other mixtures of a finished training."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipelines.cli.shell import going_on, same_command, say, starting

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.table import Table

    from generalist.training import Remixed
    from pipelines.remixing import Look


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
    from pipelines import remixing
    from pipelines.cli.showing import accuracies, show
    from pipelines.results import Results, check_target
    from pipelines.workspace import Workspace

    workspace = Workspace.find()
    with going_on(same_command()):
        if out is not None:
            check_target(Results(out), workspace)
        found = remixing.look(workspace, Results(run), natural_at_least=natural_at_least, points=points)
        target = remixing.place(workspace, found, out)
        show(_table(found, found.mixtures, by="evaluation.choice"), _table(found, found.finalists, by="the cascade"))
        remixing.draw(found, target)
        say(f"picture: {target.remix}")
        found.check()
        if not found.is_better:
            say(
                f"no mixture is better than the learner as it was trained, by {found.goal} on the validation split:"
                " nothing was evaluated on the test split, and nothing registered"
            )
            return
        say(f"chosen: {remixing.words(found.best.factors)}, by {found.goal}")
        if only_look:
            return
        registration = remixing.take_on(workspace, found, target, command=same_command())
    evaluation = target.read_evaluation()
    show(accuracies(evaluation))
    say(f"{registration.sentence}\nresults in {target.folder}, weights {evaluation.headline.digest}")


def _table(found: "Look", mixtures: "Sequence[Remixed]", *, by: str) -> "Table":
    """Return the weights and accuracies on the validation split."""
    from rich.table import Table

    table = Table(caption=f"validation split, robust by {by}", box=None, pad_edge=False, caption_justify="left")
    for title in (*found.averaged.coefficients, "natural accuracy", "robust accuracy", found.goal.criterion, ""):
        table.add_column(title, justify="right" if title else "left", no_wrap=True)
    for own in mixtures:
        marks = ["as trained"] * found.is_trained(own) + ["best"] * (own is found.best)
        weights = [f"{factor:.3f}" for factor in own.factors.values()]
        values = [own.validation.natural.value, own.validation.robust.value, own.validation.by(found.goal.criterion)]
        table.add_row(*weights, *(f"{value:.4f}" for value in values), ", ".join(marks))
    return table
