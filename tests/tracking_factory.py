"""Finished trainings made up for MLflow's tests, projects with its database, and what its runs hold."""

import hashlib
import io
import shutil
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mlflow import MlflowClient
from numpy.typing import NDArray
from sqlalchemy import Engine, event

from generalist.config import Config, canonical, check, digest, params_digest, to_yaml
from generalist.data import Dataset, Manifest, Split, request_digest
from generalist.data.manifest import MANIFEST, digest_of_content, digest_of_test
from generalist.export import Lineage, Parity
from generalist.export.integrity import with_digests
from generalist.records import (
    Accuracy,
    EpochRecord,
    Evaluation,
    GlobalRecord,
    History,
    LearnerEvaluation,
    Measured,
    Protocol,
    RoundRecord,
    ThreatEvaluation,
)
from generalist.store import tensors_digest, write_tensors
from generalist.tensors import ImageShape
from pipelines.results import Results
from pipelines.results_manifest import write_manifest
from pipelines.workspace import Workspace
from tests import onnx_models
from tests.services import databases


@event.listens_for(Engine, "connect")
def _without_waiting_for_disks(connection: Any, _: Any) -> None:
    """No test cuts the power, and MLflow commits a dozen times for each model."""
    if isinstance(connection, sqlite3.Connection):
        connection.execute("PRAGMA synchronous=OFF")


N = 100
THREAT = "linf:8/255"
CLASSES = ("a", "b", "c", "d")


def workspace(folder: Path, config: pytest.Config) -> Workspace:
    """Return a workspace in a folder, with an empty MLflow database."""
    shutil.copyfile(databases(config) / "mlflow.db", folder / "mlflow.db")
    return Workspace(folder, folder)


def steps(client: MlflowClient, run_id: str, key: str) -> dict[int, float]:
    """Return a metric of a run by step; each step once."""
    points = client.get_metric_history(run_id, key)
    found = {point.step: point.value for point in points}
    assert len(found) == len(points)
    return found


def config(**changes: Any) -> Config:
    """Two experts on the digits."""
    expert = {"optimizer": {"name": "sgd", "lr": 0.05}, "objective": {"name": "natural"}}
    tree: dict[str, Any] = {
        "data": {"name": "digits"},
        "model": {"name": "small_cnn"},
        "training": {"epochs": 6, "batch_size": 64},
        "experts": {"natural": expert, "other": expert},
        "mixing": {"warm_up": 4, "interval": 2, "weights": {"other": 0.5}},
        "evaluation": {"threats": [{"norm": "linf", "eps": "8/255"}]},
    }
    return check(tree | changes)


def measured(natural: int, robust: int, n: int = 20) -> Measured:
    """So many of n images right."""
    return Measured(natural=Accuracy(correct=natural, n=n), robust=Accuracy(correct=robust, n=n))


def _splits() -> dict[str, Split]:
    """Images whose first pixel is their number, beside a white one, all of the first class."""

    def split(n: int) -> Split:
        images = np.zeros((n, onnx_models.PIXELS), dtype=np.uint8)
        images[:, 0], images[:, 1] = np.arange(n), 255
        return Split(
            images.reshape(n, onnx_models.CHANNELS, onnx_models.HEIGHT, onnx_models.WIDTH), np.zeros(n, dtype=np.int64)
        )

    return {"train": split(50), "validation": split(20), "test": split(N)}


def _arrays() -> dict[str, bytes]:
    found = {}
    for name, split in _splits().items():
        for part, array in (("images", split.images), ("labels", split.labels)):
            buffer = io.BytesIO()
            np.save(buffer, array)
            found[f"{name}_{part}.npy"] = buffer.getvalue()
    return found


def _manifest() -> Manifest:
    """As if they were digits."""
    request = config().data
    shape = (onnx_models.CHANNELS, onnx_models.HEIGHT, onnx_models.WIDTH)
    level = (0.5,) * onnx_models.CHANNELS
    files = {name: hashlib.sha256(content).hexdigest() for name, content in _arrays().items()}
    return Manifest(
        request=canonical(request),
        request_digest=request_digest(request),
        name="digits",
        origin="made up",
        checksum="0" * 64,
        class_names=CLASSES,
        shape=shape,
        mean=level,
        std=level,
        counts={name: {"a": len(split)} for name, split in _splits().items()},
        files=files,
        digest=digest_of_content(files, CLASSES, shape, level, level),
        test_digest=digest_of_test(files, CLASSES),
    )


def prepare(folder: Path) -> None:
    """Write the images as prepared data."""
    folder.mkdir(parents=True)
    for name, content in _arrays().items():
        (folder / name).write_bytes(content)
    (folder / MANIFEST).write_text(_manifest().model_dump_json(), encoding="utf-8")


def _dataset() -> Dataset:
    manifest = _manifest()
    channels, height, width = manifest.shape
    shape = ImageShape(channels, height, width, len(CLASSES), manifest.mean, manifest.std)
    return Dataset(
        **_splits(), shape=shape, class_names=CLASSES, digest=manifest.digest, test_digest=manifest.test_digest
    )


DATA = _dataset()
"""What `prepare` writes."""

PROTOCOL = Protocol(
    split="test",
    n=N,
    threats=(THREAT,),
    attacks={"pgd": "PGD, 50 steps", "cascade": "standard, 5000 queries"},
    seed=0,
    test_digest=DATA.test_digest,
    validation="pgd, 10 steps",
)


@dataclass(frozen=True)
class Model:
    """A trained model, as far as the registry can tell.

    Attributes:
        seed: of its weights; another seed, another file.
        natural: test images 0 to `natural` are classified correctly.
        robust: test images 0 to `robust` stand against every attack.
        validation: correct images of 20 on the validation split, natural and robust.
        flags: what makes its robust accuracy doubtful.
        disagreements: of the ONNX file with torch.
        protocol: of its evaluation.
        commit: of the code that made it.
        drift: of one of its weights, in the ONNX file alone, as another exporter may round it.
    """

    seed: int = 0
    natural: int = 90
    robust: int = 60
    validation: tuple[int, int] = (18, 12)
    flags: tuple[str, ...] = ()
    disagreements: int = 0
    protocol: Protocol = PROTOCOL
    commit: str = "c0ffee"
    drift: float = 0.0

    def evaluation(self) -> Evaluation:
        """Of two experts and the global learner; the experts are all alike."""
        chosen = RoundRecord(
            round=1,
            epoch=6,
            weights={"natural": 0.5, "other": 0.5},
            handed_back=False,
            validation=measured(*self.validation),
            digest=tensors_digest(self._weights()),
        )
        learners = {
            name: LearnerEvaluation(
                name=name,
                epoch=6,
                natural=Accuracy(correct=self.natural, n=N),
                threats=tuple(
                    ThreatEvaluation(
                        threat=threat,
                        columns=dict.fromkeys(self.protocol.attacks, Accuracy(correct=self.robust, n=N)),
                        worst=Accuracy(correct=self.robust, n=N),
                        flags=self.flags,
                    )
                    for threat in self.protocol.threats
                ),
                per_class={},
                digest=chosen.digest,
            )
            for name in ("natural", "other", "global")
        }
        return Evaluation(
            protocol=self.protocol,
            deployed="global",
            chosen=chosen,
            criterion="harmonic",
            learners=learners,
            numerics={"threads": 1},
            seconds=1.5,
        )

    def write(self, folder: Path, *, settings: Config | None = None) -> Results:
        """All files of its training."""
        settings, results, evaluation = settings or config(), Results(folder), self.evaluation()
        folder.mkdir(parents=True)
        lineage = Lineage.of(
            evaluation,
            model="small_cnn",
            class_names=CLASSES,
            data_digest=DATA.digest,
            params_digest=params_digest(settings),
            git_commit=self.commit,
            dirty=False,
        )
        proto = onnx_models.linear(weight=self._matrix())
        results.onnx.write_bytes(with_digests(proto, lineage.to_metadata()))
        results.evaluation.write_text(evaluation.model_dump_json(), encoding="utf-8")
        results.history.write_text(history().model_dump_json(), encoding="utf-8")
        results.verdicts.write_bytes(_npz(self._verdicts(evaluation)))
        agreement = Parity(
            n=N, max_difference=1e-7, largest_logit=9.0, disagreements=self.disagreements, tolerance=1e-4
        )
        results.parity.write_text(agreement.model_dump_json(), encoding="utf-8")
        results.params.write_text(to_yaml(settings), encoding="utf-8")
        write_tensors(results.weights, self._weights(), {})
        for path in results.all():
            if not path.exists() and path != results.manifest:
                path.write_text(f"{path.name} of seed {self.seed}", encoding="utf-8")
        write_manifest(results)
        return results

    def reevaluated(self, folder: Path, protocol: Protocol, **changes: Any) -> Results:
        """Return what an evaluation of this model by another protocol leaves."""
        return replace(self, protocol=protocol, **changes).write(folder)

    def _weights(self) -> dict[str, torch.Tensor]:
        return {"weight": torch.tensor([float(self.seed)])}

    def _matrix(self) -> NDArray[np.float32]:
        """Says `a` of images below `natural`, else `b`; the seed decides weights of pixels that are black."""
        weight = np.random.default_rng(self.seed).normal(size=(onnx_models.PIXELS, onnx_models.CLASSES))
        weight[:2] = 0.0
        weight[0, 1], weight[1, 1:] = 255.0, (0.5 - self.natural, -200.0, -200.0)
        weight[2, 0] += self.drift
        return weight.astype(np.float32)

    def _verdicts(self, evaluation: Evaluation) -> dict[str, NDArray[Any]]:
        images = np.arange(N)
        arrays: dict[str, NDArray[Any]] = {"label": np.zeros(N, dtype=np.int64)}
        for name in evaluation.learners:
            arrays[f"{name}/prediction"] = (images >= self.natural).astype(np.int64)
            for threat in self.protocol.threats:
                for attack in self.protocol.attacks:
                    arrays[f"{name}/{threat}/{attack}"] = images < self.robust
        return arrays


def epochs(expert: str, stop: int) -> Sequence[EpochRecord]:
    """Return the first epochs of an expert, validated at the last."""
    return [
        EpochRecord(
            expert=expert,
            epoch=epoch,
            loss=1 / epoch,
            accuracy=0.5,
            gradient_norm=1.5,
            learning_rate=0.05,
            images=100,
            seconds=2.0,
            validation=measured(10, 5) if epoch == stop else None,
        )
        for epoch in range(1, stop + 1)
    ]


def history() -> History:
    """Two experts, a warm-up of four epochs, one round."""
    rounds = [
        RoundRecord(
            round=index,
            epoch=epoch,
            weights={"natural": 0.5, "other": 0.5},
            handed_back=epoch < 6,
            validation=measured(12 + epoch, 6 + epoch),
            digest=digest(["round", index]),
        )
        for index, epoch in enumerate((4, 6))
    ]
    return History(
        epochs=(*epochs("natural", 6), *epochs("other", 6)),
        course=tuple(GlobalRecord(epoch=record.epoch, validation=record.validation) for record in rounds),
        rounds=tuple(rounds),
    )


def _npz(arrays: dict[str, NDArray[Any]]) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **arrays)
    return buffer.getvalue()
