"""The files of a finished training, and where they may lie."""

import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from generalist.errors import BadInput
from generalist.records import Evaluation
from generalist.writing import check_writable, made_for
from pipelines.workspace import Workspace


@dataclass(frozen=True)
class Results:
    """A folder of results; every path of it is named here and nowhere else."""

    folder: Path

    @property
    def weights(self) -> Path:
        """The deployed learner's weights."""
        return self.folder / "global.safetensors"

    @property
    def onnx(self) -> Path:
        """The exported model."""
        return self.folder / "model.onnx"

    @property
    def evaluation(self) -> Path:
        """`generalist.records.Evaluation`."""
        return self.folder / "evaluation.json"

    @property
    def verdicts(self) -> Path:
        """Per-image verdicts."""
        return self.folder / "verdicts.npz"

    @property
    def history(self) -> Path:
        """`generalist.records.History`."""
        return self.folder / "history.json"

    @property
    def parity(self) -> Path:
        """`generalist.export.Parity`."""
        return self.folder / "parity.json"

    @property
    def curves(self) -> Path:
        """The validation curves, for DVC's plots."""
        return self.folder / "curves.csv"

    @property
    def metrics(self) -> Path:
        """Numbers alone, for DVC's metrics and experiment tables."""
        return self.folder / "metrics.json"

    @property
    def report(self) -> Path:
        """The report for people."""
        return self.folder / "report.html"

    @property
    def params(self) -> Path:
        """The whole configuration, every default written out."""
        return self.folder / "params.yaml"

    @property
    def manifest(self) -> Path:
        """The SHA-256 of all other files: `pipelines.manifest`."""
        return self.folder / "manifest.json"

    @property
    def remix(self) -> Path:
        """Mixtures in the trade-off plane; only where a training was mixed again."""
        return self.folder / "remix.png"

    def all(self) -> tuple[Path, ...]:
        """Return every file that each training has; the manifest, which tells of the others, is the last."""
        return (
            self.weights,
            self.onnx,
            self.evaluation,
            self.verdicts,
            self.history,
            self.parity,
            self.curves,
            self.metrics,
            self.report,
            self.params,
            self.manifest,
        )

    def read_evaluation(self) -> Evaluation:
        """Return the evaluation.

        Raises:
            BadInput: it is missing or damaged.
        """
        try:
            return Evaluation.read(self.evaluation)
        except (OSError, ValueError):
            raise BadInput(f"{self.evaluation} is missing or damaged: make it with `dvc repro`") from None


def check_target(target: Results, workspace: Workspace) -> None:
    """Refuse a folder for results, before any work, where something else lies or belongs.

    Raises:
        BadInput: it can't be written, is the project itself or above it, lies within what the project keeps, or holds
            other things.
    """
    check_writable(target.folder)
    place, sentence = target.folder.resolve(), f"results can't be written to {target.folder}"
    another = "name a folder of their own, such as outputs or runs/NAME"
    for project in {workspace.here, workspace.root}:
        if project.is_relative_to(place):
            raise BadInput(f"{sentence}: the project itself lies there; {another}")
    kept = (workspace.here / "data", workspace.artifacts, workspace.store, workspace.here / ".git")
    for folder in kept:
        if place.is_relative_to(folder.resolve()):
            raise BadInput(f"{sentence}: {folder} is for other things; {another}")
    if place.is_dir() and not target.evaluation.exists():
        own = {path.name for path in (*target.all(), target.remix)}
        if not (target.weights.exists() or target.onnx.exists()):
            own.remove(target.params.name)  # the last that comes: it is somebody's own
        names = [path.name for path in place.iterdir() if path.name != ".gitignore"]
        foreign = [name for name in names if own.isdisjoint((name, made_for(name)))]
        if foreign:
            raise BadInput(f"{sentence}: it holds other things, such as {min(foreign)}; {another}")


def metrics_json(evaluation: Evaluation) -> bytes:
    """Return the accuracies of every learner on the test split, in [0, 1]."""
    tree: dict[str, object] = {
        "chosen": {"epoch": evaluation.chosen.epoch, "harmonic": evaluation.chosen.validation.harmonic}
    }
    for name, learner in evaluation.learners.items():
        robust = {t.threat: {"pgd": t.pgd.value, "cascade": t.cascade.value} for t in learner.threats}
        tree[name] = {"natural": learner.natural.value, **robust}
    return (json.dumps(tree, indent=2) + "\n").encode()


def verdicts_npz(arrays: Mapping[str, NDArray[np.generic]]) -> bytes:
    """Return per-image arrays as an uncompressed archive; equal arrays give equal bytes, and none is pickled."""
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **{name: arrays[name] for name in sorted(arrays)})
    return buffer.getvalue()
