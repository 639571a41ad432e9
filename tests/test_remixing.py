"""Mixing a finished training anew: the algebra, the sweep, and the way from a mixture to the registry."""

import math
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from generalist.config import to_yaml
from generalist.data import Dataset
from generalist.errors import BadInput
from generalist.mixing import MixingSchedule, RunningAverage, weighted_sum
from generalist.records import Measured
from generalist.store import Store, tensors_digest
from generalist.tensors import Weights
from generalist.training import (
    AveragedExperts,
    Fact,
    Outcome,
    Trainer,
    averaged_experts,
    best_remix,
    mix_averaged,
    sweep,
)
from generalist.training.remix import coefficient, simplex
from pipelines import registry, remix, steps, tracking
from pipelines.results import Results
from pipelines.results_manifest import write_manifest
from pipelines.workspace import Workspace
from tests import tracking_factory
from tests.command_line import generalist, refused
from tests.training_factory import small
from tests.verdict_factory import all_verdicts

pytestmark = pytest.mark.long

CHOICE = small().evaluation.selection_attack
SOME = st.integers(1, 12)


def trajectory(rng: np.random.Generator, total: int) -> list[Weights]:
    """Weights, a buffer and a counter after each step, from the start."""
    return [
        {
            "weight": torch.from_numpy(rng.normal(size=(2, 3)).astype(np.float32)),
            "running": torch.from_numpy(rng.normal(size=2).astype(np.float32)),
            "count": torch.tensor(step),
        }
        for step in range(total + 1)
    ]


def followed(schedule: MixingSchedule, path: list[Weights]) -> Weights:
    """Return the share of a trajectory, as an expert keeps it."""
    share = RunningAverage(path[0], float(schedule.weight[0]))
    for step, weights in enumerate(path[1:], start=1):
        keep, weight = float(schedule.decay[step]), float(schedule.weight[step])
        share.update(weights, keep, (1.0 - keep) * weight)
    return share.weights


def shares_of(seed: int, total: int, experts: int) -> tuple[AveragedExperts, list[list[Weights]], list[MixingSchedule]]:
    """Experts on random trajectories, with random mixing weights and decays."""
    rng = np.random.default_rng(seed)
    weights = rng.dirichlet(np.ones(experts), size=total + 1).T + 1e-3
    weights, decay = weights / weights.sum(axis=0), rng.uniform(0, 0.99, size=total + 1)
    schedules = [MixingSchedule(own, decay) for own in weights]
    paths = [trajectory(rng, total) for _ in schedules]
    names = [f"expert{index}" for index in range(experts)]
    shares = [followed(schedule, path) for schedule, path in zip(schedules, paths, strict=True)]
    parts = [coefficient(schedule, total) for schedule in schedules]
    return (
        AveragedExperts(dict(zip(names, shares, strict=True)), dict(zip(names, parts, strict=True))),
        paths,
        schedules,
    )


@given(seed=st.integers(0, 2**32 - 1), total=SOME, experts=st.integers(2, 4))
def test_an_averaged_expert_is_the_weighted_mean_of_its_trajectory(seed: int, total: int, experts: int) -> None:
    """By the weights written out: w(s) (1 - a_s), times every later decay; integers are those of the last step."""
    averaged, paths, schedules = shares_of(seed, total, experts)
    for name, path, schedule in zip(averaged.shares, paths, schedules, strict=True):
        first = np.concatenate([[1.0], 1.0 - schedule.decay[1:]]) * schedule.weight
        parts = first * [schedule.decay[step + 1 :].prod() for step in range(total + 1)]
        expert = averaged.expert(name)
        assert averaged.coefficients[name] == pytest.approx(parts.sum(), rel=1e-12)
        for key in ("weight", "running"):
            mean = sum(part * own[key].double() for part, own in zip(parts, path, strict=True)) / parts.sum()
            torch.testing.assert_close(expert[key].double(), mean, rtol=1e-5, atol=1e-5)
        assert expert["count"] == total


@given(seed=st.integers(0, 2**32 - 1), total=SOME, experts=st.integers(2, 4))
def test_the_training_s_own_weights_give_its_global_learner_back(seed: int, total: int, experts: int) -> None:
    """To the bit; and the coefficients sum to one."""
    averaged, _, _ = shares_of(seed, total, experts)
    assert sum(averaged.coefficients.values()) == pytest.approx(1, rel=1e-12)
    whole = weighted_sum(list(averaged.shares.values()))
    assert tensors_digest(mix_averaged(averaged, averaged.coefficients)) == tensors_digest(whole)


@given(seed=st.integers(0, 2**32 - 1), factor=st.floats(0, 1))
def test_a_mixture_is_the_sum_of_the_averaged_experts(seed: int, factor: float) -> None:
    """Each times its factor."""
    averaged, _, _ = shares_of(seed, 5, 2)
    one, other = (averaged.expert(name) for name in averaged.shares)
    mixture = mix_averaged(averaged, dict(zip(averaged.shares, (factor, 1 - factor), strict=True)))
    expected = factor * one["weight"] + (1 - factor) * other["weight"]
    torch.testing.assert_close(mixture["weight"], expected, rtol=1e-4, atol=1e-5)


@given(parts=st.integers(2, 4), count=st.integers(2, 7))
def test_the_grid_covers_the_simplex(parts: int, count: int) -> None:
    """Every point sums to one, none comes twice, none is missing, and the corners are among them."""
    points = list(simplex(parts, count))
    assert all(math.isclose(sum(point), 1, abs_tol=1e-12) and min(point) >= 0 for point in points)
    assert len(set(points)) == len(points) == math.comb(count + parts - 2, parts - 1)
    assert {tuple(float(one == other) for other in range(parts)) for one in range(parts)} <= set(points)


@pytest.fixture
def training(finished: Path, dataset: Dataset) -> Trainer:
    """The small training, whose store holds all of it."""
    return Trainer(small(), dataset, Store(finished))


def test_the_store_s_shares_are_those_of_the_chosen_learner(training: Trainer, outcome: Outcome) -> None:
    """Mixed by the coefficients they are the deployed weights, to the bit."""
    averaged = averaged_experts(training, training.ends()[outcome.chosen.epoch])
    assert list(averaged.coefficients) == list(training.config.experts)
    assert tensors_digest(mix_averaged(averaged, averaged.coefficients)) == outcome.chosen.digest


def test_a_sweep_holds_the_grid_and_the_trained_learner(training: Trainer, outcome: Outcome) -> None:
    """In order of weights; the trained learner as it was measured in training."""
    averaged = averaged_experts(training, training.ends()[outcome.chosen.epoch])
    found = sweep(training, averaged, CHOICE, 3)
    first = [own.factors["natural"] for own in found]
    assert first == sorted(first, reverse=True)
    assert set(first) == {1.0, 0.5, 0.0, averaged.coefficients["natural"]}
    (trained,) = [own for own in found if own.factors == averaged.coefficients]
    assert trained.validation == outcome.chosen.validation


@pytest.mark.parametrize("criterion", ["harmonic", "natural", "robust"])
def test_the_best_mixture_is_never_worse_than_the_trained_one(
    training: Trainer, outcome: Outcome, criterion: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the same attack; and what was measured once is remembered."""

    def best() -> Measured:
        positions = training.ends()[outcome.chosen.epoch]
        value: Callable[[Measured], float] = lambda measured: measured.by(criterion)  # noqa: E731  typed so
        return best_remix(training, positions, value=value, coarse=CHOICE, attack=CHOICE, count=3).validation

    found = best()
    assert found.by(criterion) >= outcome.chosen.validation.by(criterion)
    monkeypatch.setattr("generalist.training.validation.measure", None)
    assert best() == found


def test_an_expert_outside_the_mixture_has_no_mean(dataset: Dataset, tmp_path: Path) -> None:
    """It is told before the store is read."""
    training = Trainer(small("mixing.weights={robust: 1}"), dataset, Store(tmp_path))
    with pytest.raises(BadInput, match=r"expert natural has 0 of the mixture after epoch 5, too little"):
        averaged_experts(training, training.ends()[5])


def test_without_mixing_there_is_nothing_to_mix_again(dataset: Dataset, tmp_path: Path) -> None:
    """One sentence."""
    training = Trainer(small("mixing=null", "deploy=expert:natural"), dataset, Store(tmp_path))
    with pytest.raises(BadInput, match="without mixing has nothing to mix again"):
        averaged_experts(training, training.ends()[5])


@pytest.fixture(scope="module")
def trained(
    tmp_path_factory: pytest.TempPathFactory,
    pytestconfig: pytest.Config,
    prepared: Path,
    whole: tuple[Path, list[Fact], Outcome],
) -> Path:
    """A project whose outputs and store are those of the small training, which was looked at once."""
    folder = tmp_path_factory.mktemp("project")
    workspace = tracking_factory.workspace(folder, pytestconfig)
    (folder / "dvc.yaml").write_text("stages: {}\n", encoding="utf-8")
    (folder / "params.yaml").write_text(to_yaml(small()), encoding="utf-8")
    shutil.copytree(prepared, workspace.prepared)
    shutil.copytree(whole[0], workspace.store)
    training, results, outcome = steps.training(small(), workspace), Results(workspace.outputs), whole[2]
    verdicts = all_verdicts(training, outcome, outcome.learners)
    evaluation = steps.build_evaluation(training, outcome, verdicts, since=time.perf_counter())
    results.folder.mkdir()
    steps.write_records(training, outcome, evaluation, verdicts, results)
    for path in (results.weights, results.onnx, results.parity, results.report):  # which nobody reads here
        path.touch()
    write_manifest(results)
    remix.sweep_mixtures(workspace, results, natural_at_least=None, points=2)  # what it measures is remembered
    return folder


@pytest.fixture
def project(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it, which is the current folder."""
    monkeypatch.delenv("DVC_ROOT", raising=False)
    folder = shutil.copytree(trained, tmp_path / "project")
    monkeypatch.chdir(folder)
    return folder


def test_a_better_mixture_goes_to_the_registry(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Table, picture, results, MLflow run and version; the experts' verdicts are those that were there."""
    before = Results(project / "outputs").read_evaluation()
    asked: list[str] = []
    original = steps.evaluate_shard
    monkeypatch.setattr(steps, "evaluate_shard", lambda *given: (asked.append(given[2]), original(*given))[1])
    # More than the trained learner has: whichever mixture has it is better.
    least = before.chosen.validation.natural.value + 1e-6
    words = ("remix", "outputs", "--points", "2", "--natural-at-least", f"{least:.8f}", "--out", "runs/mixed")
    monkeypatch.setattr("sys.argv", ["generalist", *words])
    done = generalist(*words)
    assert done.exit_code == 0, done.output
    assert asked == ["global"]
    results = Results(project / "runs" / "mixed")
    assert [path for path in (*results.all(), results.remix) if not path.is_file()] == []
    after = results.read_evaluation()
    assert {name: after.learners[name] for name in ("natural", "robust")} == {
        name: before.learners[name] for name in ("natural", "robust")
    }
    assert after.chosen.epoch == before.chosen.epoch
    assert after.chosen.digest == after.headline.digest != before.headline.digest
    assert sum(after.chosen.weights.values()) == pytest.approx(1)
    assert registry.gates.Evidence.read(results).evaluation == after
    told = ", ".join(f"{name} {factor:.3g}" for name, factor in after.chosen.weights.items())
    assert f"chosen: {told}, by robust accuracy where the natural one is at least" in done.stdout
    workspace = Workspace.find()
    (version,) = registry.find(workspace, tracking.sha256_of(results.onnx)).versions
    run = tracking.connect(workspace).get_run(version.run_id)
    assert run.data.tags["remixed"] == told
    assert run.data.tags["remixed_from"] == before.chosen.digest
    assert run.info.run_name.endswith(f"remixed: {told}")
    assert "generalist remix outputs --points 2" in results.report.read_text(encoding="utf-8")


def test_looking_leaves_a_table_and_a_picture_alone(project: Path) -> None:
    """Weights and accuracies of each mixture, the trained one marked; nothing is evaluated or registered."""
    done = generalist("remix", "outputs", "--points", "2", "--only-look", "--out", "look")
    assert done.exit_code == 0, done.output
    assert sorted(path.name for path in (project / "look").iterdir()) == ["remix.png"]
    assert (project / "look" / "remix.png").read_bytes().startswith(b"\x89PNG")
    rows = [line.split() for line in done.stdout.splitlines() if line.strip()[:2] in {"0.", "1."}]
    assert {row[0] for row in rows} == {"1.000", "0.400", "0.000"}
    assert sum(1 for row in rows if "trained" in " ".join(row)) == 2  # by the sweep's attack, and by the cascade
    assert "runs" not in [path.name for path in project.iterdir()]


def test_of_equals_the_trained_learner_stays(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One sentence; the test split is not touched, and nothing registered."""
    monkeypatch.setattr(remix.Goal, "value", lambda *_: 0.5)
    done = generalist("remix", "outputs", "--points", "2", "--out", "mixed")
    assert done.exit_code == 0, done.output
    assert "no mixture is better than the learner as it was trained, by harmonic mean" in done.stdout
    assert [path.name for path in (project / "mixed").iterdir()] == ["remix.png"]


def test_an_accuracy_that_is_out_of_reach(project: Path) -> None:
    """The sentence says how near the nearest came."""
    done = generalist("remix", "outputs", "--points", "2", "--natural-at-least", "0.999", "--out", "look")
    assert done.exit_code == 2
    (sentence,) = done.stderr.splitlines()
    assert (
        sentence.startswith("no mixture of outputs reaches a natural accuracy of 0.999") and "ask for less" in sentence
    )
    assert (project / "look" / "remix.png").is_file()


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--natural-at-least", "90"), "--natural-at-least is 90, but an accuracy lies between 0 and 1, such as 0.9"),
        (("--points", "1"), "a sweep of 1 points has no ends: take 2 points at least"),
    ],
)
def test_wrong_options_are_one_sentence(project: Path, words: tuple[str, ...], sentence: str) -> None:
    """Before anything is measured."""
    assert refused("remix", "outputs", *words) == sentence
    assert not (project / "runs").exists()


def test_states_that_are_gone_are_told_with_the_command_that_makes_them(project: Path) -> None:
    """Nothing is trained by this command."""
    shutil.rmtree(Workspace.find().store)
    sentence = refused("remix", "outputs")
    assert sentence.startswith("the store no longer holds the experts of outputs")
    assert "generalist train --params outputs/params.yaml --out outputs" in sentence


def test_a_training_that_deploys_no_mixture_is_refused(project: Path) -> None:
    """There is nothing to compare with."""
    (project / "outputs" / "params.yaml").write_text(to_yaml(small("deploy=expert:natural")), encoding="utf-8")
    write_manifest(Results(project / "outputs"))
    assert "outputs deploys expert:natural, which is no mixture" in refused("remix", "outputs")


def test_a_folder_without_results_is_refused(project: Path) -> None:
    """It is named."""
    assert "there are no results in nowhere: make them" in refused("remix", "nowhere")


def test_the_results_of_the_training_are_never_overwritten(project: Path) -> None:
    """Its folder is refused as the place for the mixture's."""
    named = refused("remix", "outputs", "--points", "2", "--out", "outputs")
    assert named == "outputs holds what is to be mixed again: name another folder with --out"
