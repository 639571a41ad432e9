"""Finished trainings made up for MLflow's tests, projects with its database, and what its runs hold."""

import io
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx_models
import pytest
from mlflow import MlflowClient
from numpy.typing import NDArray

from generalist.config import Config, check, digest, to_yaml
from generalist.export import Lineage, Parity
from generalist.export.seal import sealed
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
from pipelines.results import Results
from pipelines.workspace import Workspace
from tests.services import databases

N = 100
THREAT = "linf:8/255"
DATA = SimpleNamespace(train=range(50), validation=range(20), test=range(N), digest="da7a" * 16)


def workspace(folder: Path, config: pytest.Config) -> Workspace:
    """A workspace in a folder, with an empty MLflow database."""
    shutil.copyfile(databases(config) / "mlflow.db", folder / "mlflow.db")
    return Workspace(folder, folder)


def steps(client: MlflowClient, run_id: str, key: str) -> dict[int, float]:
    """A metric of a run by step; each step once."""
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


PROTOCOL = Protocol(
    split="test",
    n=N,
    threats=(THREAT,),
    pgd="pgd, 50 steps",
    cascade="standard, 5000 queries",
    seed=0,
    test_digest="7e57" * 16,
    validation="pgd, 10 steps",
)


@dataclass(frozen=True)
class Model:
    """A trained model, as far as the registry can tell.

    Attributes:
        seed: of its weights; another seed, another file.
        natural: test images 0 to `natural` are classified correctly.
        robust: test images 0 to `robust` stand against the cascade.
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
            digest=digest(["weights", self.seed]),
        )
        learners = {
            name: LearnerEvaluation(
                name=name,
                epoch=6,
                natural=Accuracy(correct=self.natural, n=N),
                threats=tuple(
                    ThreatEvaluation(
                        threat=threat,
                        pgd=Accuracy(correct=self.robust, n=N),
                        cascade=Accuracy(correct=self.robust, n=N),
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
        """All files of its training; the ONNX file depends on the model alone, not on the settings."""
        settings, results, evaluation = settings or config(), Results(folder), self.evaluation()
        folder.mkdir(parents=True)
        lineage = Lineage.of(
            evaluation,
            model="small_cnn",
            class_names=("a", "b", "c", "d"),
            data_digest=DATA.digest,
            params_digest="9a4a" * 16,
            git_commit=self.commit,
            dirty=False,
        )
        weight = np.random.default_rng(self.seed).normal(size=(onnx_models.PIXELS, onnx_models.CLASSES))
        weight[0, 0] += self.drift
        proto = onnx_models.linear(weight=weight.astype(np.float32))
        results.onnx.write_bytes(sealed(proto, lineage.to_metadata()))
        results.evaluation.write_text(evaluation.model_dump_json(), encoding="utf-8")
        results.history.write_text(history().model_dump_json(), encoding="utf-8")
        results.verdicts.write_bytes(_npz(self._verdicts(evaluation)))
        agreement = Parity(
            n=N, max_difference=1e-7, largest_logit=9.0, disagreements=self.disagreements, tolerance=1e-4
        )
        results.parity.write_text(agreement.model_dump_json(), encoding="utf-8")
        results.params.write_text(to_yaml(settings), encoding="utf-8")
        for path in results.all():
            if not path.exists():
                path.write_text(f"{path.name} of seed {self.seed}", encoding="utf-8")
        return results

    def reevaluated(self, folder: Path, protocol: Protocol, **changes: Any) -> Results:
        """What an evaluation of this model by another protocol leaves."""
        return replace(self, protocol=protocol, **changes).write(folder)

    def _verdicts(self, evaluation: Evaluation) -> dict[str, NDArray[Any]]:
        images = np.arange(N)
        arrays: dict[str, NDArray[Any]] = {"label": np.zeros(N, dtype=np.int64)}
        for name in evaluation.learners:
            arrays[f"{name}/prediction"] = (images >= self.natural).astype(np.int64)
            for threat in self.protocol.threats:
                arrays[f"{name}/{threat}/cascade"] = images < self.robust
        return arrays


def epochs(expert: str, stop: int) -> Sequence[EpochRecord]:
    """The first epochs of an expert, validated at the last."""
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
