"""The files of a finished training, and where they may lie."""

import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from generalist.atomic_files import check_writable, target_of
from generalist.errors import BadInput
from generalist.export import width_files
from generalist.records import Evaluation, Record, base_name
from pipelines.workspace import Workspace

R = TypeVar("R", bound=Record)


class Results:
    """A folder of results; every path of it is named here and nowhere else.

    Attributes:
        folder: of all.
        weights: the deployed learner's weights.
        onnx: the exported model.
        evaluation: `generalist.records.Evaluation`.
        verdicts: per-image verdicts.
        history: `generalist.records.History`.
        parity: `generalist.export.Parity`.
        curves: the validation curves, for DVC's plots.
        metrics: numbers alone, for DVC's metrics and experiment tables.
        report: for people.
        params: the whole configuration, every default written out.
        manifest: the SHA-256 of all other files: `pipelines.results_manifest`.
        remix: mixtures in the trade-off plane; only where a training was mixed again.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.weights, self.onnx = folder / "global.safetensors", folder / "model.onnx"
        self.evaluation, self.verdicts = folder / "evaluation.json", folder / "verdicts.npz"
        self.history, self.parity = folder / "history.json", folder / "parity.json"
        self.curves, self.metrics = folder / "curves.csv", folder / "metrics.json"
        self.report, self.params = folder / "report.html", folder / "params.yaml"
        self.manifest, self.remix = folder / "manifest.json", folder / "remix.png"

    @property
    def adversarial(self) -> Path:
        """Attacked test images of the deployed learner; only among results in the making."""
        return self.folder / "adversarial.npy"

    def all(self) -> tuple[Path, ...]:
        """Return every file that each training has; the manifest, which tells of the others, is the last."""
        paths = [path for path in vars(self).values() if path not in (self.folder, self.manifest, self.remix)]
        return (*paths, self.manifest)

    def widths(self) -> list[Path]:
        """Return the ONNX files of further widths of a slimmable model; sealed, and not among those of the manifest."""
        return width_files(self.onnx)

    def read_evaluation(self) -> Evaluation:
        """Return the evaluation.

        Raises:
            BadInput: it is missing or damaged.
        """
        return self.read(Evaluation, self.evaluation)

    def read(self, kind: type[R], path: Path) -> R:
        """Return what one of the files records.

        Raises:
            BadInput: it is missing or damaged.
        """
        try:
            return kind.read(path)
        except (OSError, ValueError):
            raise BadInput(f"{path} is missing or damaged: make it with `dvc repro`") from None


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
        result_names = {path.name for path in (*target.all(), target.remix, *target.widths())}
        if not (target.weights.exists() or target.onnx.exists()):
            result_names.remove(target.params.name)  # the last that comes: it may be a user's own
        names = [path.name for path in place.iterdir() if path.name != ".gitignore"]
        foreign = [name for name in names if result_names.isdisjoint((name, target_of(name)))]
        if foreign:
            raise BadInput(f"{sentence}: it holds other things, such as {min(foreign)}; {another}")


def accuracy_rows(evaluation: Evaluation) -> list[dict[str, str]]:
    """Return the accuracies on the test split for people, by column: a row a learner, the global one last."""
    rows = []
    for learner in sorted(evaluation.learners.values(), key=lambda learner: base_name(learner.name) == "global"):
        row = {
            "learner": learner.title,
            "epoch": str(learner.epoch),
            "n": str(learner.natural.n),
            "natural": str(learner.natural),
        }
        for threat in learner.threats:
            title = evaluation.protocol.title
            row |= {f"{title(column)}, {threat.threat}": str(accuracy) for column, accuracy in threat.columns.items()}
            doubt = f" (doubtful: {'; '.join(threat.flags)})" if threat.flags else ""
            row[f"worst, {threat.threat}"] = f"{threat.worst}{doubt}"
        if learner.union is not None:
            row["union of threats"] = str(learner.union)
        rows.append(row)
    return rows


def metrics_json(evaluation: Evaluation) -> bytes:
    """Return the accuracies of every learner on the test split, in [0, 1]."""
    tree: dict[str, object] = {
        "chosen": {"epoch": evaluation.chosen.epoch, "harmonic": evaluation.chosen.validation.harmonic}
    }
    for name, learner in evaluation.learners.items():
        robust = {
            threat.threat: {
                name: accuracy.value for name, accuracy in (*threat.columns.items(), ("worst", threat.worst))
            }
            for threat in learner.threats
        }
        union = {} if learner.union is None else {"union": learner.union.value}
        tree[name] = {"natural": learner.natural.value, **robust, **union}
    return (json.dumps(tree, indent=2) + "\n").encode()


def verdicts_npz(arrays: Mapping[str, NDArray[np.generic]]) -> bytes:
    """Return per-image arrays as an uncompressed archive; equal arrays give equal bytes, and none is pickled."""
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **{name: arrays[name] for name in sorted(arrays)})
    return buffer.getvalue()
