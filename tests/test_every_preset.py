"""Each preset of digits, in small: trained through the store, evaluated, exported and reported by the pipeline's steps."""

import time
from dataclasses import replace
from pathlib import Path

import pytest

from generalist.attacks import VERSIONS, fixed_batches, model_checks
from generalist.config import load
from generalist.data import load as load_data
from generalist.data import prepare
from generalist.evaluation import learner_names
from generalist.records import base_name
from generalist.store import Store
from generalist.training import Trainer, run
from pipelines import steps
from pipelines.results import Results
from tests.preset_factory import DIGITS, few
from tests.training_factory import digests
from tests.verdict_factory import all_verdicts

pytestmark = pytest.mark.long


@pytest.fixture(autouse=True)
def _short_cascade(monkeypatch: pytest.MonkeyPatch) -> None:
    """`quick` with a few steps, on no more images than there are."""
    monkeypatch.setattr(fixed_batches, "_TILE", 12)
    monkeypatch.setattr(model_checks, "_HUGE_STEPS", 2)
    monkeypatch.setitem(VERSIONS, "quick", replace(VERSIONS["quick"], targets=2, steps=3, fab_steps=2))


@pytest.mark.parametrize("name", DIGITS)
def test_it_is_trained_evaluated_exported_and_reported(name: str, tmp_path: Path) -> None:
    """Every learner is measured, the ONNX file is as torch, the report names all, and nothing is trained twice."""
    config = few(name)
    prepare(config.data, tmp_path / "data", root=tmp_path)
    dataset, store = load_data(tmp_path / "data"), Store(tmp_path / "store")
    outcome, training = run(config, dataset, store), Trainer(config, dataset, store)
    assert all(group.stored == group.round.stop for group in training.forecast())
    since, names = time.perf_counter(), learner_names(outcome.learners, config.evaluation)
    verdicts = all_verdicts(training, outcome, names)
    evaluation = steps.build_evaluation(training, outcome, verdicts, since=since)
    assert {*config.experts} | {config.deployed} | ({"ensemble"} if config.ensemble else set()) == {*outcome.learners}
    results = Results(tmp_path / "outputs")
    results.folder.mkdir()
    steps.write_records(training, outcome, evaluation, verdicts, results)
    adversarial = verdicts[evaluation.deployed].adversarial
    parity = steps.export_model(training, outcome.learners[config.deployed], evaluation, adversarial, results)
    assert parity.passed
    if len(names) > 1:  # the page is tested elsewhere; here it has to know all kinds of learners
        steps.write_report(training, outcome, evaluation, adversarial, results)
        page = results.report.read_text(encoding="utf-8")
        assert all(base_name(one) in page for one in names)
    assert results.read_evaluation() == evaluation and load(results.params) == config
    assert digests(run(config, dataset, store)) == digests(outcome)
