"""A conditional model after its training: evaluated, exported, reported and asked at each of its conditions."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch

from generalist import engine
from generalist.attacks import VERSIONS, fixed_batches, misclassified, model_checks
from generalist.config import Config
from generalist.data import Dataset, Split
from generalist.errors import BadInput
from generalist.evaluation import Verdicts, as_evaluated, evaluate, learner_names
from generalist.evaluation.conditions import AtPoint, point_of
from generalist.export import Predictor, check_parity, export, read_classifier, write_weights
from generalist.export.runtime import Runtime
from generalist.models import Classifier
from generalist.records import Point
from generalist.tensors import to_unit
from tests.onnx_models import write_metadata
from tests.test_oat import conditional, small_oat
from tests.training_factory import abandon, digests, finish, first

N = 24
GRID = (1.0, 0.05)


class Trained(NamedTuple):
    """What came of a small training, and of its evaluation at each condition."""

    config: Config
    model: Classifier
    images: Split
    verdicts: dict[str, Verdicts]
    digests: dict[str, str]


@pytest.fixture(scope="module")
def trained(dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """A conditional network, evaluated with transfers by a short cascade."""
    config = small_oat("evaluation.conditions=[1, 0.05]", "evaluation.transfers=true", "evaluation.threats.0.eps=0.06")
    outcome = finish(config, dataset, tmp_path_factory.mktemp("store"))[1]
    model = engine.model_with(config.model, dataset.shape, outcome.learners["oat"], on=torch.device("cpu"))
    split, options, verdicts = first(dataset.test, N), config.evaluation, {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fixed_batches, "_TILE", N)
        patch.setattr(model_checks, "_HUGE_STEPS", 2)
        patch.setitem(VERSIONS, "quick", replace(VERSIONS["quick"], targets=2, steps=5, fab_steps=3))
        for name in learner_names(["oat"], options):
            verdicts[name] = evaluate(
                as_evaluated(model, options, name),
                split,
                options=options,
                class_names=dataset.class_names,
                name=name,
                epoch=5,
                digest="d",
                at=point_of(name, options),
            )
    return Trained(config, model, split, verdicts, digests(outcome))


def test_each_condition_is_a_learner(trained: Trained) -> None:
    """The headline by its name alone; accuracies are those of the network at that condition."""
    evaluations = [verdict.evaluation for verdict in trained.verdicts.values()]
    assert [one.name for one in evaluations] == ["oat", "oat at lambda 0.05"]
    assert [one.condition for one in evaluations] == list(GRID)
    assert [one.title for one in evaluations] == [f"oat expert, lambda {own}" for own in ("1", "0.05")]
    images, labels = to_unit(torch.tensor(trained.images.images)), torch.tensor(trained.images.labels)
    for one, condition in zip(evaluations, GRID, strict=True):
        with torch.no_grad():
            said = trained.model(images, torch.full((N,), condition)).argmax(1)
        assert one.natural.correct == int((said == labels).sum())
        assert json.loads(one.model_dump_json())["condition"] == condition


def test_transfers_are_columns_by_the_decision_at_the_own_condition(trained: Trained) -> None:
    """PGD again through the decision at the others, as the cascade goes by itself; the worst is over all."""
    for verdict, condition in zip(trained.verdicts.values(), GRID, strict=True):
        (threat,) = verdict.evaluation.threats
        others = [f"lambda {own:g}" for own in GRID if own != condition]
        assert list(threat.columns) == ["pgd", "cascade", *(f"{other}/pgd" for other in others)]
        held = [verdict.arrays[f"{verdict.evaluation.name}/{threat.threat}/{column}"] for column in threat.columns]
        worst = np.logical_and.reduce(held)
        assert threat.worst.correct == worst.sum()
        with torch.no_grad():
            said = AtPoint(trained.model, Point(condition))(torch.tensor(verdict.adversarial))
        assert misclassified(said, torch.tensor(trained.images.labels))[torch.tensor(~worst)].all()


def test_an_attack_through_another_condition_sees_that_one(trained: Trained) -> None:
    """The views of a network at a condition are the decision there, and at each other."""
    images = to_unit(torch.tensor(trained.images.images))
    at = AtPoint(trained.model, Point(1.0), [Point(0.0), Point(0.05)])
    with torch.no_grad():
        for name, condition in (("decision", 1.0), ("lambda 0", 0.0), ("lambda 0.05", 0.05)):
            expected = trained.model(images, torch.full((N,), condition))
            torch.testing.assert_close(at.views()[name](images), expected)


def test_a_training_resumes_to_the_same_bits(trained: Trained, dataset: Dataset, tmp_path: Path) -> None:
    """Conditions are drawn from the step's own numbers."""
    config = trained.config
    abandon(config, dataset, tmp_path / "again", after=2)
    assert digests(finish(config, dataset, tmp_path / "again")[1]) == trained.digests


METADATA = {"class_names": json.dumps([str(index) for index in range(10)])}


@pytest.fixture(scope="module")
def file(trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The trained network as ONNX."""
    path = tmp_path_factory.mktemp("export") / "model.onnx"
    export(trained.model, path, metadata={**METADATA, "condition": "0.05"}, opset=18)
    return path


@pytest.mark.long
def test_one_file_gives_at_each_condition_what_torch_gives(trained: Trained, file: Path) -> None:
    """Where conditions are encoded as rows."""
    check_file(trained.model, file)


@pytest.mark.long
@pytest.mark.parametrize(("name", "encoding"), [("small_cnn", "raw"), ("wide_resnet", "dct")])
def test_so_does_one_of_another_encoding_or_architecture(name: str, encoding: str, tmp_path: Path) -> None:
    """With statistics that are far from the identity."""
    model, path = conditional(name, encoding), tmp_path / "model.onnx"
    export(model, path, metadata={}, opset=18)
    check_file(model, path)


def check_file(model: Classifier, path: Path) -> None:
    """Compare with torch at choices, between them and beside each other in one batch."""
    images = np.random.default_rng(0).integers(0, 256, (6, 1, 8, 8), dtype=np.uint8)
    found = check_parity(
        model,
        path,
        images,
        np.zeros((0, 1, 8, 8), np.float32),
        conditions=(0.0, 0.05, 0.1, 0.4, 0.6, 1.0),
        tolerance=1e-4,
    )
    assert found.passed and found.n == 36, found
    runtime = Runtime(path, condition=0.5)
    mixed = np.array([0, 0.05, 0.1, 0.2, 0.7, 1], dtype=np.float32)
    unit = images.astype(np.float32) / 255
    (answer,) = runtime._session.run(["logits"], {"images": unit, "lambda": mixed})
    with torch.no_grad():
        expected = model.eval()(torch.from_numpy(unit), torch.from_numpy(mixed)).numpy()
    np.testing.assert_allclose(answer, expected, rtol=1e-3, atol=1e-4)
    foreign = Runtime(path, condition=0.7, foreign=True)
    np.testing.assert_allclose(foreign(unit)[4], answer[4], rtol=1e-3, atol=1e-4)


def test_a_file_is_asked_at_its_own_condition_or_another(trained: Trained, file: Path, tmp_path: Path) -> None:
    """By default at that of its metadata; one outside [0, 1] is refused, and so is one for a plain network."""
    path, images = Path(shutil.copy(file, tmp_path)), to_unit(torch.tensor(trained.images.images)).numpy()
    usual, same, other = (Predictor(path, condition=own).predict(images) for own in (None, 0.05, 0.0))
    assert np.array_equal(usual, same) and not np.allclose(usual, other)
    for own in (-0.1, 1.5, float("nan")):
        with pytest.raises(BadInput, match=r"^lambda is .*, but it must lie in \[0, 1\]"):
            Predictor(path, condition=own)
    write_metadata(path, METADATA)
    with pytest.raises(BadInput, match=r"takes lambda in \[0, 1\].* give --lambda"):
        Predictor(path)


def test_weights_are_read_with_their_conditions(trained: Trained, dataset: Dataset, tmp_path: Path) -> None:
    """The file alone makes the conditional network, its rows among its weights."""
    path = tmp_path / "global.safetensors"
    write_weights(path, trained.model.state_dict(), model=trained.config.model, shape=dataset.shape, data="d")
    images, condition = to_unit(torch.tensor(trained.images.images)), torch.linspace(0, 1, N)
    with torch.no_grad():
        again = read_classifier(path, on=torch.device("cpu"))(images, condition)
        assert torch.equal(again, trained.model(images, condition))
