"""Results of cascades in a form that compares bit for bit."""

import torch

from generalist.attacks import AutoAttackResult


def everything(result: AutoAttackResult, rows: torch.Tensor | None = None) -> list[object]:
    """All about each image, or about some, in their order; last the counts of flags of all of them."""
    rows = torch.arange(len(result.robust)) if rows is None else rows
    tensors = (
        *(result.robust, result.clean, result.adversarial, result.margins, result.correct),
        *(result.passes.forward, result.passes.backward),
    )
    names = [result.fooled_by[row] for row in rows.tolist()]
    return [names, *(tensor[rows].numpy().tobytes() for tensor in tensors), dict(result.flag_counts)]
