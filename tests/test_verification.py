"""Registration takes nobody's word: an ONNX file must be what the files beside it were measured of."""

import json
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from generalist.config import load, to_yaml
from generalist.errors import BadInput
from generalist.export import read_metadata
from generalist.export.integrity import GRAPH, METADATA, with_digests
from generalist.store import write_tensors
from pipelines.registry import register, verification
from pipelines.results import Results
from pipelines.results_manifest import write_manifest
from tests import onnx_models
from tests import tracking_factory as factory
from tests.registry_factory import GOOD, Registry

Change = Callable[[Results], None]


def reseal(results: Results, model: onnx.ModelProto | None = None, **changes: str) -> None:
    """Give the ONNX file another graph or other metadata, and seals that agree, as anybody can."""
    metadata = {key: text for key, text in read_metadata(results.onnx).items() if key not in (GRAPH, METADATA)}
    results.onnx.write_bytes(with_digests(model or onnx.load(results.onnx), metadata | changes))


def graph(change: Callable[[np.ndarray], np.ndarray]) -> Change:
    """Return a change of the weights in the graph."""

    def changed(results: Results) -> None:
        model = onnx.load(results.onnx)
        (weight,) = model.graph.initializer
        weight.CopyFrom(numpy_helper.from_array(change(numpy_helper.to_array(weight).copy()), "weight"))
        reseal(results, model)

    return changed


def evaluation(**changes: object) -> Change:
    """Return a change of what evaluation.json says."""

    def changed(results: Results) -> None:
        told = json.loads(results.evaluation.read_text(encoding="utf-8"))
        results.evaluation.write_text(json.dumps(told | changes), encoding="utf-8")

    return changed


def shifted(images: float) -> Change:
    """Another class for some images."""

    def moved(weight: np.ndarray) -> np.ndarray:
        weight[1, 1] += images
        return weight

    return graph(moved)


def other_weights(results: Results) -> None:
    """Weights of another training."""
    write_tensors(results.weights, factory.Model(seed=99)._weights(), {})


def other_settings(results: Results) -> None:
    """Another configuration, for the same registered model."""
    section = {"name": load(results.params).registry.name}
    results.params.write_text(to_yaml(factory.config(registry=section, seed=5)), encoding="utf-8")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (graph(np.zeros_like), "predicts another class than verdicts.npz says for"),
        (graph(lambda weight: -weight), "predicts another class than verdicts.npz says for"),
        (shifted(2), "predicts another class than verdicts.npz says for 2 of 100 test images"),
        (evaluation(criterion="natural"), "(its evaluation_digest is another)"),
        (lambda results: reseal(results, data_digest="0" * 64), "(its data_digest is another)"),
        (lambda results: reseal(results, class_names='["a", "b", "c", "e"]'), "(its class_names is another)"),
        (lambda results: reseal(results, natural='{"correct": 100, "n": 100}'), "(its natural is another)"),
        (other_weights, "holds other weights than model.onnx was made of"),
        (other_settings, "(its params_digest is another)"),
        (lambda results: results.onnx.write_bytes(onnx_models.linear().SerializeToString()), "carries no digests"),
    ],
)
def test_what_does_not_fit_is_not_registered(registry: Registry, change: Change, told: str) -> None:
    """The manifest is recomputed, too: whoever can write the folder can do that. No version is made, no run."""
    results = registry.results(GOOD)
    change(results)
    write_manifest(results)
    with pytest.raises(BadInput) as error:
        registry.take(results)
    assert told in str(error.value)
    assert "\n" not in str(error.value)
    assert registry.champion is None
    assert registry.client.search_model_versions(f"name='{registry.name}'") == []


def test_a_prediction_within_a_tie_may_differ(registry: Registry) -> None:
    """As another processor may round it; in one image of a hundred, not in more."""
    results = registry.results(GOOD)
    shifted(-0.5)(results)  # the first image that is `b` has equal logits for `a` and `b` now
    write_manifest(results)
    assert registry.take(results).alias == "champion"


def test_other_test_images_are_no_proof(registry: Registry) -> None:
    """The data must be those of the evaluation."""
    other = replace(factory.DATA, test_digest="0" * 64)
    with pytest.raises(BadInput, match=r"evaluation\.json is not of the test images at hand"):
        register(registry.workspace, registry.results(GOOD), data=lambda _: other)
    other = replace(factory.DATA, test=replace(factory.DATA.test, labels=factory.DATA.test.labels + 1))
    with pytest.raises(BadInput, match=r"verdicts\.npz is not of the test images at hand"):
        register(registry.workspace, registry.results(GOOD), data=lambda _: other)


def test_without_the_data_nothing_new_is_registered(registry: Registry) -> None:
    """The sentence says why they are needed; what is registered needs them no more."""

    def gone(_: object) -> factory.Dataset:
        raise BadInput("there is no data/raw/photos; put it there")

    with pytest.raises(BadInput, match=r"compared with the images of its evaluation: there is no data/raw/photos"):
        register(registry.workspace, registry.results(GOOD), data=gone)
    registry.register(GOOD)
    assert not register(registry.workspace, registry.results(GOOD), data=gone).new


def test_a_graph_that_never_ends_is_refused_in_time(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its seals are right; it is tried in a process of its own."""
    monkeypatch.undo()
    monkeypatch.setattr(verification, "LIMIT", 2.0)
    results = registry.results(GOOD)
    reseal(results, onnx_models.endless())
    write_manifest(results)
    with pytest.raises(BadInput, match=r"within 2 s"):
        registry.take(results)
