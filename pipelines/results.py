"""The files of a finished training, and how they come to lie in their folder: all of them, or none."""

import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from generalist.errors import BadInput
from generalist.records import Evaluation
from generalist.store import write_atomically


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
    def remix(self) -> Path:
        """Mixtures in the trade-off plane; only where a training was mixed again."""
        return self.folder / "remix.png"

    def all(self) -> tuple[Path, ...]:
        """Every file that each training has."""
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
        )

    def read_evaluation(self) -> Evaluation:
        """The evaluation.

        Raises:
            BadInput: it is missing or damaged.
        """
        try:
            return Evaluation.read(self.evaluation)
        except (OSError, ValueError):
            raise BadInput(f"{self.evaluation} is missing or damaged: make it with `dvc repro`") from None


def put_down(staged: Results, target: Results) -> None:
    """Move finished files from the staging folder to their place, one rename each.

    Raises:
        BadInput: the target can't be written.
    """
    for source, destination in zip(staged.all(), target.all(), strict=True):
        write_atomically(destination, source.read_bytes())
        source.unlink()


def metrics_json(evaluation: Evaluation) -> bytes:
    """The accuracies of every learner on the test split, in [0, 1]."""
    tree: dict[str, object] = {
        "chosen": {"epoch": evaluation.chosen.epoch, "harmonic": evaluation.chosen.validation.harmonic}
    }
    for name, learner in evaluation.learners.items():
        robust = {t.threat: {"pgd": t.pgd.value, "cascade": t.cascade.value} for t in learner.threats}
        tree[name] = {"natural": learner.natural.value, **robust}
    return (json.dumps(tree, indent=2) + "\n").encode()


def verdicts_npz(arrays: Mapping[str, NDArray[np.generic]]) -> bytes:
    """Per-image arrays as an uncompressed archive; equal arrays give equal bytes, and none is pickled."""
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **{name: arrays[name] for name in sorted(arrays)})
    return buffer.getvalue()
