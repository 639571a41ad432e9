"""Whether an expert's weight average may follow its weights: by the worst class of the validation split (FAWA)."""

from collections.abc import Sequence

import numpy as np

from generalist.config.experts import GateOptions
from generalist.data import Dataset, Split, steps_per_epoch
from generalist.evaluation.accuracy import attacked
from generalist.experts import Expert


def pass_gates(experts: Sequence[Expert], dataset: Dataset, epoch: int) -> None:
    """Let gated averages follow the weights as they are after an epoch, where these stand often enough.

    Args:
        experts: those that trained; one whose average has no gate is left as it is.
        dataset: with the validation split.
        epoch: counted from 1 over the training.
    """
    for expert in experts:
        gate = expert.spec.options.gate
        if gate is not None:
            accepted = worst_class(expert, dataset.validation, gate) >= float(gate.worst_class)
            expert.end_epoch(epoch * steps_per_epoch(len(dataset.train), expert.spec.batch_size), accepted=accepted)


def worst_class(expert: Expert, validation: Split, gate: GateOptions) -> float:
    """Return the robust accuracy of the class that has the least, of those with images in the split."""
    stands = attacked(expert.learner.frozen.network, validation, gate.threat, gate.attack, seed=0)[1]
    labels = np.asarray(validation.labels)
    return min(float(stands[labels == label].mean()) for label in np.unique(labels))
