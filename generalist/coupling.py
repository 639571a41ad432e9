"""What experts that learn from each other see of each other: all of them in one snapshot a step."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from generalist import engine
from generalist.experts import AttackedBatch, Expert
from generalist.objectives import Peer
from generalist.tensors import Batch


class Coupling:
    """Frozen networks of several experts, as they are when a step begins.

    Weights are shared: nobody steps before all have been read. BatchNorm's statistics move in the training passes of
    an expert, which its peers don't wait for, so these are copies.
    """

    def __init__(self, experts: Sequence[Expert]) -> None:
        self._experts = experts
        self._networks: list[engine.FrozenNetwork] = []
        self._buffers: list[tuple[Tensor, Tensor]] = []
        for expert in experts:
            live = dict(expert.learner.frozen.network.named_buffers())
            kept = {name: buffer.clone() for name, buffer in live.items()}
            weights = {**expert.weights, **kept}
            self._networks.append(engine.FrozenNetwork(expert.learner.frozen.network, expert.spec.engine, weights))
            self._buffers += [(kept[name], live[name]) for name in kept]

    def attack(self, batches: Sequence[Batch], step: int, batch_index: int) -> list[AttackedBatch | None]:
        """Let peers be seen as they are now, attack each expert's batch, and let its peers see these images, too.

        Args:
            batches: the same images for each expert, by its own augmentation.
            step: see `Expert.differentiate`.
            batch_index: likewise.
        """
        with torch.no_grad():
            for kept, live in self._buffers:
                kept.copy_(live)
        attacked: list[AttackedBatch | None] = [None] * len(self._experts)
        self._show(attacked)
        for index, (expert, batch) in enumerate(zip(self._experts, batches, strict=True)):
            attacked[index] = expert.attack(batch, step, batch_index)
        self._show(attacked)
        return attacked

    def _show(self, attacked: Sequence[AttackedBatch | None]) -> None:
        for expert in self._experts:
            others = zip(self._experts, self._networks, attacked, strict=True)
            peers = [
                Peer(network, None if own is None else own.images)
                for other, network, own in others
                if other is not expert and other.objective.seen_by_peers
            ]
            expert.learner = replace(expert.learner, peers=tuple(peers))
