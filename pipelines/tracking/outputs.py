"""A finished training's folder `outputs/`, read back. No MLflow here."""

import hashlib
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from generalist.config import Config, load
from generalist.errors import BadInput
from generalist.records import Evaluation, History, Record

Fact = TypeVar("Fact", bound=Record)

MODEL = "model.onnx"
EVIDENCE = ("params.yaml", "evaluation.json", "verdicts.npz", "global.safetensors")
"""What the evaluation of a model, and its repetition by another protocol, needs."""
FILES = (*EVIDENCE, "history.json", "report.html", "metrics.json", "curves.csv")
"""What a run keeps beside the model; the report and what DVC plots may be missing."""


@dataclass(frozen=True)
class Verdicts:
    """Which test images the deployed learner gets right.

    Attributes:
        natural: bool [n], clean.
        robust: bool [n], under the headline threat, by the cascade.
    """

    natural: NDArray[np.bool_]
    robust: NDArray[np.bool_]


@dataclass(frozen=True)
class Outputs:
    """The folder of a finished training."""

    folder: Path

    @property
    def model(self) -> Path:
        """The ONNX file.

        Raises:
            BadInput: it is missing.
        """
        return self._file(MODEL)

    def sha256(self) -> str:
        """SHA-256 (hex) of the ONNX file."""
        return sha256_of(self.model)

    def config(self) -> Config:
        """The configuration, resolved."""
        return load(self._file("params.yaml"))

    def evaluation(self) -> Evaluation:
        """What was measured on the test split.

        Raises:
            BadInput: the file is missing or damaged.
        """
        return self._record("evaluation.json", Evaluation)

    def history(self) -> History:
        """The course of the training.

        Raises:
            BadInput: the file is missing or damaged.
        """
        return self._record("history.json", History)

    def verdicts(self) -> Verdicts:
        """The verdict on each test image.

        Raises:
            BadInput: the file is missing, damaged, or of another evaluation than `evaluation.json`.
        """
        path, evaluation = self._file("verdicts.npz"), self.evaluation()
        learner = evaluation.headline
        threat = learner.threats[0]
        try:
            with np.load(path, allow_pickle=False) as arrays:
                natural = arrays[f"{learner.name}/prediction"] == arrays["label"]
                robust = arrays[f"{learner.name}/{threat.threat}/cascade"]
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error):
            raise BadInput(f"{path} is damaged: run `dvc repro --force train`") from None
        found, told = (int(natural.sum()), int(robust.sum())), (learner.natural.correct, threat.cascade.correct)
        if natural.shape != robust.shape or len(natural) != learner.natural.n or found != told:
            raise BadInput(f"{path} and evaluation.json are of different evaluations: run `dvc repro --force train`")
        return Verdicts(natural, robust)

    def files(self) -> list[Path]:
        """The files that a run keeps beside the model.

        Raises:
            BadInput: one that can't be done without is missing.
        """
        needed = [self._file(name) for name in (*EVIDENCE, "history.json")]
        return needed + [path for name in FILES if (path := self.folder / name).is_file() and path not in needed]

    def _file(self, name: str) -> Path:
        path = self.folder / name
        if not path.is_file():
            raise BadInput(f"{path} is missing: run `dvc repro` (or `dvc checkout` to get back what was there)")
        return path

    def _record(self, name: str, kind: type[Fact]) -> Fact:
        path = self._file(name)
        try:
            return kind.model_validate_json(path.read_bytes())
        except ValidationError:
            raise BadInput(f"{path} is damaged: run `dvc repro --force train`") from None


def sha256_of(path: Path) -> str:
    """SHA-256 (hex) of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
