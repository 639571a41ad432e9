"""Alarms of what a loss does not show."""

from pathlib import Path

from generalist.records import Accuracy, EpochRecord, Measured
from generalist.training import Fact, Outcome, catastrophic_overfitting_warning


def validated(epoch: int, robust: int, fgsm: int | None, expert: str = "robust") -> EpochRecord:
    """Return an epoch of an expert with accuracies in percent of 100 images."""
    measured = Measured(
        natural=Accuracy(correct=90, n=100),
        robust=Accuracy(correct=robust, n=100),
        fgsm=None if fgsm is None else Accuracy(correct=fgsm, n=100),
    )
    return EpochRecord(
        expert=expert,
        epoch=epoch,
        loss=1,
        accuracy=1,
        gradient_norm=1,
        learning_rate=1,
        images=1,
        seconds=1,
        validation=measured,
    )


def test_robustness_to_one_step_alone_gives_an_alarm() -> None:
    """Only of an expert that was robust to many steps before, and trains on attacks."""
    before = [validated(1, 30, 35), validated(2, 40, 46), validated(1, 80, 82, expert="other")]
    assert catastrophic_overfitting_warning(before, validated(3, 38, 45)) is None
    assert catastrophic_overfitting_warning(before, validated(3, 5, 20)) is None
    assert catastrophic_overfitting_warning(before, validated(3, 5, None)) is None
    told = catastrophic_overfitting_warning(before, validated(3, 5, 60))
    assert told is not None
    assert "catastrophic overfitting of robust in epoch 3: robust accuracy fell from 40.0 to 5.0 %" in told
    assert catastrophic_overfitting_warning([], validated(1, 0, 60)) is None


def test_experts_that_train_on_attacks_are_measured_against_fgsm(whole: tuple[Path, list[Fact], Outcome]) -> None:
    """One step, at most as strong as many."""
    by_expert = {own.expert: own.validation for own in whole[1] if isinstance(own, EpochRecord)}
    assert by_expert["natural"] is not None and by_expert["natural"].fgsm is None
    robust = by_expert["robust"]
    assert robust is not None and robust.fgsm is not None
    assert robust.fgsm.n == robust.robust.n
