"""The registry's gates, each on its own."""

from dataclasses import replace
from math import comb
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from generalist.errors import BadInput
from generalist.export import Parity
from generalist.significance import mcnemar
from pipelines.registry import gates
from pipelines.registry.gates import Evidence
from tests import tracking_factory as factory

AGREEING = Parity(n=100, max_difference=1e-7, largest_logit=9.0, disagreements=0, tolerance=1e-4)
OTHER_PROTOCOL = factory.PROTOCOL.model_copy(
    update={"attacks": {"pgd": "PGD, 50 steps", "cascade": "standard, 100 queries"}, "seed": 1}
)


def evidence(model: factory.Model, folder: Path) -> Evidence:
    """Return what the registry knows of a model."""
    return Evidence.read(model.write(folder / str(len(list(folder.iterdir())))))


@given(lost=st.integers(0, 40), won=st.integers(0, 40))
def test_mcnemar_is_the_tail_of_a_fair_coin(lost: int, won: int) -> None:
    """The probability of at least so many heads among the discordant pairs."""
    tosses = lost + won
    tail = sum(comb(tosses, heads) for heads in range(lost, tosses + 1)) / 2**tosses
    assert mcnemar(lost, won) == pytest.approx(tail)


def test_no_discordant_pair_says_nothing() -> None:
    """Equal verdicts speak for no difference."""
    assert mcnemar(0, 0) == 1.0


def test_parity_must_hold() -> None:
    """A prediction that differs, or a logit that is too far away."""
    assert gates.parity(AGREEING) is None
    reason = gates.parity(AGREEING.model_copy(update={"disagreements": 2}))
    assert reason == "the ONNX file disagrees with torch on 2 of 100 images (largest difference of a logit: 1e-07)"
    assert gates.parity(AGREEING.model_copy(update={"max_difference": 0.1})) is not None


def test_a_doubtful_model_stays_outside() -> None:
    """Flags of masked gradients, with the threat that they are of."""
    assert gates.doubt(factory.Model().evaluation()) is None
    reason = gates.doubt(factory.Model(flags=("zero gradients", "transfer")).evaluation())
    assert reason == "its robust accuracy is doubtful (linf:8/255: zero gradients; linf:8/255: transfer)"


def test_only_equal_protocols_compare() -> None:
    """Whatever differs is named."""
    model = factory.Model()
    assert gates.same_protocol(model.evaluation(), model.evaluation()) is None
    reason = gates.same_protocol(replace(model, protocol=OTHER_PROTOCOL).evaluation(), model.evaluation())
    assert reason == "the champion was evaluated by another protocol (attacks, seed)"


@pytest.mark.parametrize(
    ("by", "own", "opens"),
    [
        ("harmonic", (18, 12), False),  # an equal one is not better
        ("harmonic", (18, 13), True),
        ("natural", (19, 1), True),
        ("robust", (19, 12), False),
    ],
)
def test_it_must_be_better_on_the_validation_split(
    by: Literal["harmonic", "natural", "robust"], own: tuple[int, int], *, opens: bool
) -> None:
    """Strictly, by the declared criterion and no other."""
    reason = gates.better(factory.Model(validation=own).evaluation(), factory.Model().evaluation(), by=by)
    assert (reason is None) == opens
    assert reason is None or reason.startswith(f"on the validation split its {by} value 0.")


@pytest.mark.parametrize(("lost", "opens"), [(0, True), (4, True), (5, False), (40, False)])
def test_it_must_not_be_significantly_worse(lost: int, *, opens: bool) -> None:
    """Four losses to none may be chance (p = 1/16), five (1/32) not, at level 0.05."""
    champion = np.ones(100, dtype=np.bool_)
    candidate = np.arange(100) >= lost
    reason = gates.not_worse("natural", candidate, champion, level=0.05)
    assert (reason is None) == opens
    assert gates.not_worse("natural", champion, candidate, level=0.05) is None  # wins are none against it
    assert reason is None or f"({lost} images lost, 0 won, p = " in reason


def test_pairs_count_not_sums() -> None:
    """Equal accuracies on other images, and many losses with as many wins, are no significant loss."""
    champion, candidate = np.arange(100) < 50, np.arange(100) >= 50
    assert gates.not_worse("robust", candidate, champion, level=0.05) is None


def test_all_reasons_against_a_model_are_told(tmp_path: Path) -> None:
    """Worse in everything: each gate has its say."""
    champion = evidence(factory.Model(natural=95, robust=70, validation=(19, 14)), tmp_path)
    reasons = gates.against(champion, evidence(factory.Model(), tmp_path), by="harmonic", level=0.05)
    assert [reason.split(" (")[0].rpartition(" value ")[0] or reason.split(" (")[0] for reason in reasons] == [
        "on the validation split its harmonic",
        "its natural accuracy on the test split is significantly worse than the champion's",
        "its robust accuracy on the test split is significantly worse than the champion's",
    ]
    better = evidence(factory.Model(natural=95, robust=70, validation=(20, 14)), tmp_path)
    assert gates.against(champion, better, by="harmonic", level=0.05) == ()


def test_unlike_evaluations_are_not_compared(tmp_path: Path) -> None:
    """The protocol is then the only reason."""
    champion = evidence(factory.Model(natural=99, protocol=OTHER_PROTOCOL), tmp_path)
    (reason,) = gates.against(champion, evidence(factory.Model(), tmp_path), by="harmonic", level=0.05)
    assert "another protocol" in reason


def test_both_reasons_against_a_model_alone_are_told() -> None:
    """Parity and doubt."""
    found = AGREEING.model_copy(update={"disagreements": 1})
    assert len(gates.alone(factory.Model(flags=("zero gradients",)).evaluation(), found)) == 2


def test_evidence_is_of_the_deployed_learner(tmp_path: Path) -> None:
    """Which images it gets right, clean and attacked."""
    found = evidence(factory.Model(natural=90, robust=60), tmp_path)
    assert (found.natural == (np.arange(100) < 90)).all()
    assert (found.robust == (np.arange(100) < 60)).all()


@pytest.mark.parametrize("damage", [b"", b"PK\x03\x04 cut short", None])
def test_damaged_verdicts_are_refused(tmp_path: Path, damage: bytes | None) -> None:
    """Emptied, cut short, or missing."""
    results = factory.Model().write(tmp_path / "outputs")
    whole = results.verdicts.read_bytes()
    if damage is None:
        results.verdicts.unlink()
    else:
        results.verdicts.write_bytes(damage or whole[: len(whole) // 2])
    with pytest.raises(BadInput, match=r"verdicts\.npz is missing or damaged"):
        Evidence.read(results)


def test_verdicts_of_another_evaluation_are_refused(tmp_path: Path) -> None:
    """The counts must be those that evaluation.json tells."""
    results = factory.Model(robust=60).write(tmp_path / "one")
    other = factory.Model(robust=61).write(tmp_path / "other")
    results.verdicts.write_bytes(other.verdicts.read_bytes())
    with pytest.raises(BadInput, match=r"verdicts\.npz is not of the evaluation beside it"):
        Evidence.read(results)


@pytest.mark.parametrize(
    ("name", "array"),
    [
        ("global/linf:8/255/cascade", np.arange(100) >= 40),  # as many, others: mistakes among them
        ("natural/linf:8/255/cascade", np.arange(100) >= 40),
        ("global/linf:8/255/pgd", np.arange(100) >= 40),
        ("global/linf:8/255/cascade", (np.arange(100) < 60).astype(np.int64)),
        ("global/linf:8/255/cascade", np.arange(99) < 60),
        ("global/linf:8/255/pgd", np.arange(100) % 2 == 0),
        ("global/prediction", (np.arange(100) >= 90) * -1),
        ("global/prediction", (np.arange(100) >= 90) * 1.0),
        ("label", np.zeros((100, 1), dtype=np.int64)),
    ],
)
def test_verdicts_that_contradict_each_other_are_refused(tmp_path: Path, name: str, array: NDArray[Any]) -> None:
    """A mistake can't be robust, whatever the counts; of whichever learner."""
    results = factory.Model(natural=90, robust=60).write(tmp_path / "outputs")
    with np.load(results.verdicts) as archive:
        arrays = {**archive, name: array}
    np.savez(results.verdicts, **arrays)
    with pytest.raises(BadInput, match=r"verdicts\.npz is not of the evaluation beside it"):
        Evidence.read(results)
