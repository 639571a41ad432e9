"""A slimmable model as people take it away: one ONNX file a width, and the one that is asked for."""

import time
from pathlib import Path

import numpy as np
import pytest
import torch

from generalist import engine
from generalist.data import Dataset
from generalist.errors import BadInput
from generalist.evaluation import learner_names
from generalist.export import Lineage, Parity, export, model_at_width, read_metadata, width_file, width_files
from generalist.export.runtime import Runtime
from generalist.models import Classifier, at_width
from generalist.store import Store
from generalist.training import Trainer
from pipelines import steps
from pipelines.cli.model_files import open_target
from pipelines.registry.gates import parity
from pipelines.results import Results
from pipelines.results_manifest import move_into_place
from tests.model_factory import made, numbers, settle
from tests.onnx_models import write_metadata
from tests.test_slimmable import small_oats
from tests.training_factory import finish
from tests.verdict_factory import all_verdicts

pytestmark = [pytest.mark.long, pytest.mark.usefixtures("short_gradients")]


def test_results_have_a_file_for_each_width(dataset: Dataset, tmp_path: Path) -> None:
    """The headline's is model.onnx; each says what torch says at its width, and whose accuracies it has."""
    config = small_oats(
        "evaluation.widths=[0.5, 1]", "evaluation.conditions=[1, 0]", "evaluation.images=10", "training.epochs=2"
    )
    outcome = finish(config, dataset, tmp_path / "store")[1]
    training, staged, target = (
        Trainer(config, dataset, Store(tmp_path / "store")),
        tmp_path / "staged",
        tmp_path / "out",
    )
    verdicts = all_verdicts(training, outcome, learner_names(["oat"], config.evaluation))
    evaluation = steps.build_evaluation(training, outcome, verdicts, since=time.perf_counter())
    results, weights = Results(staged), outcome.learners["oat"]
    staged.mkdir()
    found = steps.export_model(training, weights, evaluation, verdicts["oat"].adversarial, results)
    assert found.passed and {width: one.passed for width, one in found.widths.items()} == {"1": True}
    assert found == results.read(Parity, results.parity)
    for path in results.all()[:-1]:
        path.touch()
    target.mkdir()
    width_file(target / "model.onnx", 0.75).touch()  # of a training before
    move_into_place(results, Results(target))
    assert [path.name for path in Results(target).widths()] == ["model-width-1.onnx"]
    model = engine.model_with(config.model, dataset.shape, weights, on=torch.device("cpu"))
    images, condition = numbers(6), torch.full((6,), 0.4)
    for share, name, file in ((0.5, "oat", "model.onnx"), (1.0, "oat at lambda 1 and width 1", "model-width-1.onnx")):
        path = model_at_width(target / "model.onnx", share)
        lineage = Lineage.from_metadata(read_metadata(path))
        assert path.name == file and (lineage.width, lineage.learner, lineage.condition) == (share, name, 1.0)
        assert lineage.natural == evaluation.learners[name].natural
        with torch.no_grad():
            expected = at_width(model, share)(images, condition).numpy()
        np.testing.assert_allclose(Runtime(path, condition=0.4)(images.numpy()), expected, rtol=1e-3, atol=1e-4)
    broken = found.model_copy(update={"widths": {"1": found.model_copy(update={"disagreements": 2})}})
    assert not broken.passed and "on 2 of" in str(parity(broken)) and str(parity(broken)).endswith("at width 1")


@pytest.fixture
def model() -> Classifier:
    """A network of two widths."""
    network = made("small_cnn", width=4, widths=[0.5, 1])
    settle(network)
    return network.eval()


def test_a_width_s_file_is_found_or_refused(model: Classifier, tmp_path: Path) -> None:
    """One sentence where it is missing, of other weights, or the model has one width."""
    path = tmp_path / "model.onnx"
    told = {"width": "1.0", "weights_digest": "a"}
    export(model, path, metadata=told, opset=18)
    assert model_at_width(path, 1.0) == path and width_files(path) == []
    with pytest.raises(BadInput, match=r"there is no .*model-width-0.5.onnx: the widths that are here are 1; give"):
        model_at_width(path, 0.5)
    other = width_file(path, 0.5)
    export(at_width(model, 0.5), other, metadata={"width": "0.5", "weights_digest": "a"}, opset=18)
    assert model_at_width(path, 0.5) == other
    write_metadata(other, {"width": "0.5", "weights_digest": "b"})
    with pytest.raises(BadInput, match=r"was made of other weights than .*model.onnx: make both again"):
        model_at_width(path, 0.5)
    write_metadata(path, {})
    with pytest.raises(BadInput, match=r"is of a network that has one width: leave --width out"):
        model_at_width(path, 0.5)


def test_an_onnx_file_to_attack_has_its_own_width(tmp_path: Path) -> None:
    """As all its weights are of one."""
    with pytest.raises(BadInput, match=r"is of one width, as each ONNX file is: leave --width out"):
        open_target(tmp_path / "model.onnx", torch.device("cpu"), 1, (1, 8, 8), None, None, None, 0.5)
