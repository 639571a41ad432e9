"""What a run shows in Prefect's pages: the round table, the final table, links."""

from collections.abc import Sequence
from pathlib import Path

from prefect.artifacts import create_link_artifact, create_markdown_artifact, create_table_artifact

from generalist.records import Evaluation, RoundRecord
from generalist.training import Fact
from generalist.untrusted import code, markdown, printable
from pipelines.results import Results, accuracy_rows


def rounds(facts: Sequence[Fact]) -> None:
    """Show the table of all mixing rounds so far."""
    table = [
        {
            "round": fact.round,
            "epoch": fact.epoch,
            "natural": str(fact.validation.natural),
            "robust": str(fact.validation.robust),
            "harmonic mean": f"{100 * fact.validation.harmonic:.1f} %",
            "weights": ", ".join(f"{name} {weight:.2f}" for name, weight in fact.weights.items()),
            "redistributed": "yes" if fact.handed_back else "no",
        }
        for fact in facts
        if isinstance(fact, RoundRecord)
    ]
    create_table_artifact(key="rounds", table=table, description="Candidates by round, on the validation split")


def final(evaluation: Evaluation) -> None:
    """Show the final table: every learner on the test split."""
    what = f"Test split, n = {evaluation.protocol.n}, 95 % intervals"
    create_table_artifact(key="evaluation", table=accuracy_rows(evaluation), description=what)


def search(lines: Sequence[str], page: Path) -> None:
    """Show what a search found."""
    _found("search", "What the search found", lines, page)


def comparison(lines: Sequence[str], page: Path) -> None:
    """Show what a comparison came to."""
    _found("comparison", "What the comparison came to", lines, page)


def _found(key: str, description: str, lines: Sequence[str], page: Path) -> None:
    text = "\n".join(f"    {printable(line)}" for line in lines)
    create_markdown_artifact(key=key, markdown=f"{text}\n\n- all of it: {code(page)}", description=description)


def links(results: Results, run_link: str | None, version: str) -> None:
    """Show where the results, the MLflow run and the registered version are."""
    create_markdown_artifact(
        key="results",
        markdown="\n".join(
            (
                f"- results: {code(results.folder)}",
                f"- report: {code(results.report)}",
                f"- model: {code(results.onnx)}",
                f"- {markdown(version)}",
            )
        ),
        description="Where the results are, and what became of the model",
    )
    if run_link is not None:
        create_link_artifact(
            key="mlflow-run", link=run_link, link_text="the run in MLflow", description="Metrics and files"
        )
