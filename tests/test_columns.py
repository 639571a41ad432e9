"""Whatever columns an evaluation has, every reader shows each of them, and the worst."""

import io
import json
import re

from rich.console import Console

from generalist.records import Accuracy, Evaluation, ThreatEvaluation
from generalist.report import build
from pipelines.cli.tables import accuracies
from pipelines.results import metrics_json
from pipelines.tracking import run_metadata
from tests import report_factory, tracking_factory

COUNTS = {"pgd": 53, "cascade": 41, "smooth/pgd": 49, "raw (non-adaptive)/pgd": 57, "raw (non-adaptive)/cascade": 47}
WORST = 37


def with_columns(evaluation: Evaluation, n: int) -> Evaluation:
    """Return an evaluation whose deployed learner has these under each threat."""
    told = {name: Accuracy(correct=count, n=n) for name, count in COUNTS.items()}
    learner = evaluation.headline
    threats = [
        ThreatEvaluation(threat=threat.threat, columns=told, worst=Accuracy(correct=WORST, n=n))
        for threat in learner.threats
    ]
    deployed = learner.model_copy(update={"threats": tuple(threats)})
    return evaluation.model_copy(update={"learners": {**evaluation.learners, evaluation.deployed: deployed}})


def test_metrics_and_tables_have_them() -> None:
    """By their names for DVC, by the titles of their attacks for MLflow and for people."""
    n = tracking_factory.N
    evaluation = with_columns(tracking_factory.Model().evaluation(), n)
    found = json.loads(metrics_json(evaluation))["global"]["linf:8/255"]
    assert found == {name: count / n for name, count in {**COUNTS, "worst": WORST}.items()}
    metrics = run_metadata.of_learner(evaluation.headline, evaluation.protocol)
    raw = ("pgd_through_raw_non-adaptive", "standard_through_raw_non-adaptive")
    titles = ("pgd", "standard", "pgd_through_smooth", *raw, "worst")
    assert all(re.fullmatch(r"[\w/.: -]+", name) for name in metrics)  # what MLflow takes
    assert [metrics[f"test/global/linf:8_255/{title}"] for title in titles] == list(found.values())
    assert run_metadata.of_choice(evaluation)["test/robust_standard"] == WORST / n
    assert "worst of PGD and standard" in run_metadata.summary(evaluation)
    text = io.StringIO()
    Console(width=300, file=text).print(accuracies(evaluation))
    shown = text.getvalue()
    assert all(str(Accuracy(correct=count, n=n)) in shown for count in (*COUNTS.values(), WORST))
    assert "standard through raw (non-adaptive)" in shown


def test_the_report_has_them() -> None:
    """With titles, and the worst above the fold."""
    config = report_factory.config()
    history = report_factory.history(config)
    evaluation = with_columns(report_factory.evaluation(config, history), 450)
    html = build(
        history, evaluation, report_factory.gallery(config), config=config, commands={}, lineage=report_factory.LINEAGE
    )
    assert all(f"{count} of 450" in html for count in (*COUNTS.values(), WORST))
    assert ">standard through raw (non-adaptive)<" in html and "<dt>Non-adaptive</dt>" in html
    above, _ = html.split("53 of 450", 1)
    assert re.search(r"8\.2\s%", above)  # 37 of 450
