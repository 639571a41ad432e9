"""Signs that a training goes wrong while its loss looks well."""

from collections.abc import Iterable

from generalist.records import EpochRecord, Measured
from generalist.training.facts import Fact

GAP = 0.2
"""A healthy network is a little more robust to one step than to many; by so much more, it has learnt to fool FGSM.
Ours, as is the next: the paper names no bounds, and its runs go far beyond both, to hardly any robust accuracy."""

FALLEN = 0.5
"""Share of its best robust accuracy so far below which an expert has lost its robustness."""


def catastrophic_overfitting_warning(earlier: Iterable[Fact], record: EpochRecord) -> str | None:
    """Warn of catastrophic overfitting (Wong et al., ICLR 2020, section 5): robust to one step only, no longer to many.

    Args:
        earlier: what the training told before.
        record: an epoch of an expert; those without `fgsm` (of experts that train on no attacks) give no alarm.
    """
    if record.validation is None or record.validation.fgsm is None:
        return None
    known = [fact.validation for fact in earlier if isinstance(fact, EpochRecord) and fact.expert == record.expert]
    measured: list[Measured] = [known_one for known_one in known if known_one is not None]
    best = max((accuracies.robust.value for accuracies in measured), default=0.0)
    now, one_step = record.validation.robust.value, record.validation.fgsm.value
    if now >= FALLEN * best or one_step - now <= GAP:
        return None
    return (
        f"catastrophic overfitting of {record.expert} in epoch {record.epoch}: robust accuracy fell from"
        f" {100 * best:.1f} to {100 * now:.1f} %, while against FGSM it is {100 * one_step:.1f} %: give its attack more"
        " steps or smaller ones, or a smaller learning rate"
    )
