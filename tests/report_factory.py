"""Made-up trainings for the report: every number from a formula, so that each test run sees the same page."""

import math
from collections.abc import Sequence

import numpy as np

from generalist.config import Config, check, digest
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
from generalist.report import Gallery

EPOCHS, WARM_UP = 40, 25


def config(*experts: str, mixed: bool = True, threats: Sequence[str] = ("linf:0.15",), epochs: int = EPOCHS) -> Config:
    """Return a configuration with these experts (default: natural and robust)."""
    names = experts or ("natural", "robust")
    written = [dict(zip(("norm", "eps"), threat.split(":"), strict=True)) for threat in threats]
    robust = {"name": "adversarial", "threat": written[0], "attack": {"name": "pgd", "steps": 5}}
    expert = {"optimizer": {"name": "sgd", "lr": 0.05}}
    return check(
        {
            "data": {"name": "digits"},
            "model": {"name": "small_cnn"},
            "training": {"epochs": epochs, "batch_size": 64, "checkpoint_epochs": 1},
            "experts": {
                name: expert | {"objective": {"name": "natural"} if name == "natural" else robust} for name in names
            },
            "mixing": {"warm_up": WARM_UP, "interval": 2, "weights": dict.fromkeys(names[1:], 1 / len(names))}
            if mixed
            else None,
            "deploy": "global" if mixed else f"expert:{names[0]}",
            "evaluation": {"threats": written},
        }
    )


def accuracy(share: float, n: int = 450) -> Accuracy:
    """Return the accuracy of that share of n images."""
    return Accuracy(correct=round(min(max(share, 0), 1) * n), n=n)


def _grown(epoch: int, end: float, speed: float, wobble: float) -> float:
    return end * (1 - math.exp(-epoch / speed)) + 0.008 * math.sin(wobble * epoch)


def _expert(name: str, epoch: int, *, mixed: bool) -> Measured:
    """Return an expert's accuracies; the natural one has no robustness until it is handed the mixture."""
    if name == "natural":
        robust = 0.1 + 0.03 * math.sin(epoch) if epoch <= WARM_UP or not mixed else 0.55 - 0.02 * (epoch % 2)
        return Measured(natural=accuracy(_grown(epoch, 0.985, 3, 1.1), 270), robust=accuracy(robust, 270))
    return Measured(
        natural=accuracy(_grown(epoch, 0.975, 5, 0.7), 270), robust=accuracy(_grown(epoch, 0.68, 7, 1.3), 270)
    )


def _global(epoch: int) -> Measured:
    late = max(epoch - WARM_UP, 0) / (EPOCHS - WARM_UP)
    natural, robust = _grown(epoch, 0.978, 5, 0.7) + 0.008 * late, _grown(epoch, 0.66, 7, 1.3) - 0.03 * late**2
    return Measured(natural=accuracy(natural, 270), robust=accuracy(robust, 270))


def _weights(settings: Config, epoch: int) -> dict[str, float]:
    """Return the weights: the first expert's rises from 0 to 0.6; the others share the rest."""
    first, *others = settings.experts
    own = 0.6 * (epoch - WARM_UP) / (EPOCHS - WARM_UP) if others else 1.0
    return {first: own, **dict.fromkeys(others, (1 - own) / max(len(others), 1))}


def history(settings: Config, *, seconds: float = 1.0, checkpoint: int = 1) -> History:
    """Return a course of training: warm-up, then a round every second epoch; unmixed, a candidate every fifth."""
    mixed, epochs = settings.mixing is not None, settings.training.epochs
    stops = sorted({*range(WARM_UP, epochs, 2), epochs}) if mixed else sorted({*range(5, epochs, 5), epochs})
    stored = {*range(checkpoint, epochs, checkpoint), *stops}
    own = next(iter(settings.experts))
    return History(
        epochs=tuple(
            EpochRecord(
                expert=name,
                epoch=epoch,
                loss=(0.7 if name == "natural" else 2.1) * math.exp(-epoch / 8) + 0.02,
                accuracy=0.9,
                gradient_norm=1.5,
                learning_rate=0.05,
                images=1077,
                seconds=seconds,
                validation=_expert(name, epoch, mixed=mixed) if epoch in stored else None,
            )
            for epoch in range(1, epochs + 1)
            for name in settings.experts
        ),
        course=tuple(GlobalRecord(epoch=epoch, validation=_global(epoch)) for epoch in sorted(stored)) if mixed else (),
        rounds=tuple(
            RoundRecord(
                round=index,
                epoch=epoch,
                weights=_weights(settings, epoch) if mixed else {},
                handed_back=mixed and epoch < epochs,
                validation=_global(epoch) if mixed else _expert(own, epoch, mixed=False),
                digest=digest(["weights", epoch]),
            )
            for index, epoch in enumerate(stops)
        ),
    )


def evaluation(
    settings: Config,
    course: History,
    *,
    class_names: Sequence[str] = tuple("0123456789"),
    flags: tuple[str, ...] = (),
    seconds: float = 1.0,
) -> Evaluation:
    """Return the evaluation on the test split; flags are raised for the deployed learner under the headline threat."""
    threats = tuple(f"{t.norm}:{t.eps.written}" for t in settings.evaluation.threats)
    deployed = settings.deploy.removeprefix("expert:")
    names = [*settings.experts, *(["global"] if settings.mixing else [])]
    shares = {"natural": (0.987, 0.12), "global": (0.984, 0.664)}
    learners = {}
    for name in names:
        natural, robust = shares.get(name, (0.973, 0.676))
        learners[name] = LearnerEvaluation(
            name=name,
            epoch=(course.rounds[len(course.rounds) // 2 if name == deployed else -1]).epoch,
            natural=accuracy(natural),
            threats=tuple(
                ThreatEvaluation(
                    threat=threat,
                    columns={
                        "pgd": accuracy(robust + 0.02 + 0.05 * index),
                        "cascade": accuracy(robust + 0.05 * index),
                    },
                    worst=accuracy(robust + 0.05 * index),
                    flags=flags if name == deployed and not index else (),
                )
                for index, threat in enumerate(threats)
            ),
            per_class={
                title: Measured(
                    natural=accuracy(natural - 0.01 * (index % 3), 45), robust=accuracy(robust - 0.02 * (index % 5), 45)
                )
                for index, title in enumerate(class_names)
            },
            digest=digest(["learner", name]),
        )
    return Evaluation(
        protocol=Protocol(
            split="test",
            n=450,
            threats=threats,
            attacks={"pgd": "PGD, 50 steps", "cascade": "standard"},
            seed=0,
            test_digest=digest("test"),
            validation="pgd, 10 steps",
        ),
        deployed=deployed,
        chosen=course.rounds[len(course.rounds) // 2],
        criterion="harmonic",
        learners=learners,
        numerics={"device": "cpu", "threads": 1},
        seconds=seconds,
    )


def gallery(
    settings: Config,
    *,
    count: int = 12,
    channels: int = 1,
    size: int = 8,
    class_names: Sequence[str] = tuple("0123456789"),
) -> Gallery:
    """Discs and rings; every fourth is not changed by the attack."""
    labels = np.arange(count) % len(class_names)
    y, x = np.mgrid[:size, :size] / (size - 1) * 2 - 1
    radius = np.hypot(x, y)
    hues = np.linspace(0.4, 1, channels)[:, None, None]
    images = np.zeros((count, channels, size, size), np.float32)
    adversarial = images.copy()
    for index in range(count):
        clean = np.exp(-((radius - 0.09 * (index % 10)) ** 2) / 0.08) * np.roll(hues, index, axis=0)
        change = 0.15 * np.sign(np.sin((3 + index) * x + 2 * index * y))[None]
        images[index] = clean
        adversarial[index] = np.clip(clean + (change if index % 4 else 0), 0, 1)
    names = [*settings.experts, *(["global"] if settings.mixing else [])]
    predictions = {}
    for shift, name in enumerate(names):
        sure = np.full((count, len(class_names)), 0.02 / max(len(class_names) - 1, 1))
        unsure = np.full((count, len(class_names)), 0.3 / max(len(class_names) - 1, 1))
        sure[np.arange(count), labels] = 0.98
        fooled = (np.arange(count) + shift) % 3 > 0
        unsure[np.arange(count), (labels + np.where(fooled, 1 + shift, 0)) % len(class_names)] = 0.7
        predictions[name] = (sure, unsure)
    return Gallery(images, adversarial, labels, tuple(class_names), predictions)


COMMANDS = {"Train again": "dvc repro", "Check the model's lineage": "generalist trace outputs/model.onnx"}
LINEAGE = {"git commit": "4f1c2ab", "params": digest("params"), "training data": digest("data"), "torch": "2.13.0"}
