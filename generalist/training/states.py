"""States of experts in the store: a trajectory and its share under two keys."""

from collections.abc import Mapping, Sequence

from generalist.experts import State
from generalist.mixing import combined
from generalist.records import EpochRecord
from generalist.store import Store
from generalist.tensors import Weights
from generalist.training.keys import Position, Positions


class States:
    """Saving and loading by position."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def __contains__(self, position: Position) -> bool:
        return position.trajectory in self._store and (position.share is None or position.share in self._store)

    def save(self, position: Position, state: State, history: Sequence[EpochRecord]) -> None:
        """Store a state with the records of all epochs that led to it."""
        tensors = {f"weights/{name}": tensor for name, tensor in state.weights.items()}
        tensors |= {f"optimizer/{name}": tensor for name, tensor in state.optimizer.items()}
        tensors |= {f"average/{name}": tensor for name, tensor in (state.average or {}).items()}
        facts = {"epoch": state.epoch, "history": [record.model_dump(mode="json") for record in history]}
        if position.share is not None and state.share is not None:
            self._store.save(position.share, state.share, {"epoch": state.epoch})
        self._store.save(position.trajectory, tensors, facts)

    def load(self, position: Position) -> tuple[State, list[EpochRecord]]:
        """A whole state, and the records of the epochs that led to it.

        Raises:
            BadInput: a file is missing, truncated or altered.
        """
        stored = self._store.load(position.trajectory)
        parts: Mapping[str, Weights] = {"weights": {}, "optimizer": {}, "average": {}}
        for name, tensor in stored.tensors.items():
            part, _, own = name.partition("/")
            parts[part][own] = tensor
        state = State(
            epoch=position.epoch,
            weights=parts["weights"],
            optimizer=parts["optimizer"],
            average=parts["average"] or None,
            share=None if position.share is None else self._store.load(position.share).tensors,
        )
        return state, [EpochRecord.model_validate(record) for record in stored.facts["history"]]

    def learner(self, position: Position) -> Weights:
        """What an expert deploys and contributes where it stands."""
        return self.load(position)[0].learner

    def global_learner(self, positions: Positions) -> Weights:
        """The global learner: the sum of all shares."""
        return combined([self._store.load(p.share).tensors for p in positions.values() if p.share is not None])

    def mixture(self, positions: Positions, factors: Sequence[float]) -> Weights:
        """The plain mixture of what the experts contribute, without the past."""
        return combined([self.learner(position) for position in positions.values()], factors)
