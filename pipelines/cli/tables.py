"""Tables for people at the end of a command."""

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import RenderableType
from rich.table import Column, Table

from generalist.export import Lineage
from generalist.records import Evaluation
from pipelines.cli.shell import printing
from pipelines.registry import Registration
from pipelines.results import Results, accuracy_rows
from pipelines.terminal import Terminal
from pipelines.workspace import Workspace


def show(*parts: RenderableType) -> None:
    """Print tables and lines on standard output; plain text where that is not a terminal, and long lines whole."""
    console = Terminal()
    if not console.is_terminal:
        console = Terminal(width=200)
    with printing():
        for part in parts:
            console.print(part, soft_wrap=isinstance(part, str))


def closing(workspace: Workspace, results: Results, registration: Registration) -> Iterator[RenderableType]:
    """Yield what came out of a run, where it lies, and what to do next."""
    yield accuracies(results.read_evaluation())
    # The training itself may have registered it a moment ago.
    registered = registration.model_copy(update={"new": True}).sentence
    yield (
        f"model     {results.onnx}\n"
        f"report    {results.report}\n"
        f"registry  {registered}\n"
        f"MLflow    {_run(workspace, registration.run_id)}\n\n"
        f"Next:\n{_activation(workspace)}"
        "  generalist predict IMAGE...                 class names and probabilities\n"
        f"  generalist trace {results.onnx.relative_to(workspace.here)}         where the model comes from\n"
        "  make serve                                  the pages of MLflow and Prefect\n"
        "  dvc exp run -S mixing.interval=3            an experiment; then dvc exp show --only-changed"
    )


def accuracies(evaluation: Evaluation) -> Table:
    """Return every learner on the test split: natural accuracy, and under each threat PGD and the cascade."""
    split, deployed = evaluation.protocol.split, evaluation.deployed
    caption = f"{split} split, 95 % Wilson intervals; the deployed learner: {deployed}"
    return table_of(accuracy_rows(evaluation), caption=caption)


def table_of(rows: Sequence[Mapping[str, str]], **options: Any) -> Table:
    """Return rows by column as a table; a row may lack some columns."""
    columns = list(dict.fromkeys(column for row in rows for column in row))
    table = Table(*columns, **options)
    for row in rows:
        table.add_row(*(row.get(column, "") for column in columns))
    return table


def lineage(metadata: Mapping[str, str], *, sha256: str) -> Table:
    """Return what a sealed ONNX file says of its origin."""
    lineage = Lineage.from_metadata(metadata)
    table = Table("", Column(overflow="fold"), show_header=False)
    table.add_row("SHA-256", sha256)
    table.add_row("learner", f"{lineage.learner} ({lineage.model})")
    table.add_row("classes", ", ".join(lineage.class_names))
    if lineage.condition is not None:
        table.add_row(
            "lambda", f"an input in [0, 1]; accuracies, and predictions by default, are at {lineage.condition:g}"
        )
    if lineage.width is not None:
        table.add_row("width", f"{lineage.width:g} of the channels")
    table.add_row("natural accuracy", f"{lineage.natural}, n = {lineage.natural.n}")
    for threat in lineage.threats:
        doubt = f" (doubtful: {'; '.join(threat.flags)})" if threat.flags else ""
        columns = "".join(f"{name} {accuracy}, " for name, accuracy in threat.columns.items())
        table.add_row(f"under {threat.threat}", f"{columns}worst {threat.worst}{doubt}, n = {threat.worst.n}")
    if lineage.union is not None:
        table.add_row("under all of them", f"{lineage.union}, n = {lineage.union.n}")
    table.add_row(
        "git commit", (lineage.git_commit or "none") + (" (the code was changed since)" if lineage.dirty else "")
    )
    for title, digest in (
        ("data", lineage.data_digest),
        ("params", lineage.params_digest),
        ("weights", lineage.weights_digest),
        ("evaluation", lineage.evaluation_digest),
        ("protocol", lineage.protocol_digest),
        ("graph", metadata["graph_digest"]),
    ):
        table.add_row(f"{title} digest", digest)
    return table


def _activation(workspace: Workspace) -> str:
    """Return a line that puts these programs on the user's PATH where the project's own environment isn't activated."""
    place = Path(sys.prefix)
    if sys.prefix == sys.base_prefix or "VIRTUAL_ENV" in os.environ or not place.is_relative_to(workspace.here):
        return ""
    activate = f"source {place.relative_to(workspace.here)}/bin/activate"
    return f"  {activate:<44}these programs on your PATH\n"


def _run(workspace: Workspace, run_id: str) -> str:
    from pipelines import tracking

    if workspace.tracking_database is None:
        experiment = tracking.experiment_id(workspace, tracking.connect(workspace))
        return f"{tracking.runs_page(workspace.tracking_uri, experiment)}/{run_id}"
    return f"run {run_id}: see it with `make serve`"
