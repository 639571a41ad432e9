"""States of experts in the store: a trajectory and its share under two keys, and groups that were interrupted."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field
from torch import Tensor

from generalist.config import digest
from generalist.ensemble import parts
from generalist.expert_group import PartialEpochState, checked_metrics
from generalist.expert_state import ExpertState, auxiliary_weights
from generalist.mixing import weighted_sum
from generalist.records import EpochRecord, Record
from generalist.store import Store
from generalist.tensors import Weights
from generalist.training.keys import CheckpointRef, CheckpointRefs, Key
from generalist.training.weights_spec import WeightsSpec, check_finite

Finite = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Histories = Sequence[Sequence[EpochRecord]]
"""By expert: the records of all epochs that led to its state."""


@dataclass(frozen=True)
class PartialSegment:
    """A group that was interrupted: where it stood, and what led there."""

    moment: PartialEpochState
    histories: list[list[EpochRecord]]


class Checkpoints:
    """Saving and loading by position; what is loaded fits the network, or is lost."""

    def __init__(self, store: Store, form: WeightsSpec) -> None:
        self._store, self._weights_spec = store, form

    def __contains__(self, position: CheckpointRef) -> bool:
        return position.trajectory in self._store and (position.share is None or position.share in self._store)

    def save(self, position: CheckpointRef, state: ExpertState, history: Sequence[EpochRecord]) -> None:
        """Store a state with the records of all epochs that led to it."""
        if position.share is not None and state.share is not None:
            self._store.save(position.share, "share", state.share, {"epoch": state.epoch})
        for key, share in zip(position.alternative_shares, state.alternative_shares, strict=True):
            if key not in self._store:
                self._store.save(key, "share", share, {"epoch": state.epoch})
        self._store.save(position.trajectory, "trajectory", _tensors(state), _facts([state], [history]))

    def load(self, position: CheckpointRef) -> tuple[ExpertState, list[EpochRecord]]:
        """Return a whole state, and the records of the epochs that led to it.

        Raises:
            StateLost: a file is missing, truncated or altered.
        """
        stored = self._store.load(position.trajectory)
        share = None if position.share is None else self.weights(position.share)
        alternative_shares = tuple(self.weights(key) for key in position.alternative_shares)
        with self._store.understood(position.trajectory):
            facts = _Facts.model_validate(stored.facts)
            (rate,), (history,) = facts.rates, facts.histories
            if facts.epoch != position.epoch:
                raise ValueError(f"of epoch {facts.epoch}")
            state = self._checked_state(position.epoch, stored.tensors, share, rate, alternative_shares)
        return state, list(history)

    def weights(self, key: Key) -> Weights:
        """Return the weights that lie under a key of their own: a share, or a candidate.

        Raises:
            StateLost: the file is missing, truncated, altered, or of another network.
        """
        tensors = self._store.load(key).tensors
        with self._store.understood(key):
            for part in parts(tensors):
                self._weights_spec.check(part)
        return tensors

    def complete(self, position: CheckpointRef) -> bool:
        """Return whether a state is there with the shares of all its alternatives."""
        return position in self and len(self.stored_alternatives(position)) == len(position.alternative_shares)

    def stored_alternatives(self, position: CheckpointRef) -> list[int]:
        """Return which of a position's alternatives have a share in the store."""
        return [index for index, key in enumerate(position.alternative_shares) if key in self._store]

    def save_begun(self, ends: Sequence[CheckpointRef], begun: PartialSegment) -> None:
        """Store a group on its way to the end of a round, in place of what was stored of it before."""
        tensors: dict[str, Tensor] = {}
        for index, (state, notes) in enumerate(zip(begun.moment.states, begun.moment.notes, strict=True)):
            expert_tensors = _tensors(state) | {f"share/{name}": tensor for name, tensor in (state.share or {}).items()}
            for number, share in enumerate(state.alternative_shares):
                expert_tensors |= {f"companion {number}/{name}": tensor for name, tensor in share.items()}
            tensors |= {f"{index}/{name}": tensor for name, tensor in expert_tensors.items()}
            tensors[f"{index}/notes/steps"] = notes
        facts = _facts(begun.moment.states, begun.histories) | {"seconds": begun.moment.seconds}
        self._store.save(_begun_key(ends), "begun", tensors, facts)

    def has_begun(self, ends: Sequence[CheckpointRef]) -> bool:
        """Return whether there is something of a group on its way to the end of a round."""
        return _begun_key(ends) in self._store

    def load_begun(self, ends: Sequence[CheckpointRef]) -> PartialSegment | None:
        """Return what was stored of a group on its way to the end of a round.

        Raises:
            StateLost: the file is truncated or altered.
        """
        if not self.has_begun(ends):
            return None
        stored = self._store.load(_begun_key(ends))
        with self._store.understood(_begun_key(ends)):
            facts = _Facts.model_validate(stored.facts)
            states, notes = [], []
            for index, (end, rate, _) in enumerate(zip(ends, facts.rates, facts.histories, strict=True)):
                expert_tensors = _tensors_of_part(str(index), stored.tensors)
                share = None if end.share is None else _tensors_of_part("share", expert_tensors)
                alternative_shares = tuple(
                    _tensors_of_part(f"companion {number}", expert_tensors)
                    for number in range(len(end.alternative_shares))
                )
                states.append(self._checked_state(facts.epoch, expert_tensors, share, rate, alternative_shares))
                notes.append(checked_metrics(expert_tensors["notes/steps"]))
        moment = PartialEpochState(tuple(states), tuple(notes), facts.seconds)
        return PartialSegment(moment, [list(history) for history in facts.histories])

    def discard_begun(self, ends: Sequence[CheckpointRef]) -> None:
        """Forget a group that has come to the end of its round."""
        self._store.discard(_begun_key(ends))

    def learner(self, position: CheckpointRef) -> Weights:
        """Return what an expert deploys and contributes where it stands."""
        return self.load(position)[0].learner

    def global_learner(self, positions: CheckpointRefs) -> Weights:
        """Return the global learner: the sum of all shares."""
        return weighted_sum([self.weights(p.share) for p in positions.values() if p.share is not None])

    def mixture(self, positions: CheckpointRefs, factors: Sequence[float]) -> Weights:
        """Return the plain mixture of what the experts contribute, without the past."""
        return weighted_sum([self.learner(position) for position in positions.values()], factors)

    def _checked_state(
        self,
        epoch: int,
        tensors: Mapping[str, Tensor],
        share: Weights | None,
        rate: float,
        alternative_shares: tuple[Weights, ...],
    ) -> ExpertState:
        weights, average = _tensors_of_part("weights", tensors), _tensors_of_part("average", tensors) or None
        for part in (weights, average, share, *alternative_shares):
            if part is not None:
                self._weights_spec.check(part)
        optimizer, tables = _tensors_of_part("optimizer", tensors), _tensors_of_part("table", tensors)
        self._weights_spec.check_optimizer(optimizer, beside=list(auxiliary_weights(tables).values()))
        check_finite(tables)
        return ExpertState(epoch, weights, optimizer, average, share, rate, alternative_shares, tables)


def _begun_key(ends: Sequence[CheckpointRef]) -> Key:
    return digest(["begun", [[end.trajectory, end.share, *end.alternative_shares] for end in ends]])


def _tensors(state: ExpertState) -> dict[str, Tensor]:
    """Return a state but for its share."""
    tensors = {f"weights/{name}": tensor for name, tensor in state.weights.items()}
    tensors |= {f"optimizer/{name}": tensor for name, tensor in state.optimizer.items()}
    tensors |= {f"table/{name}": tensor for name, tensor in state.tables.items()}
    return tensors | {f"average/{name}": tensor for name, tensor in (state.average or {}).items()}


def _tensors_of_part(part: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(f"{part}/"): tensor for name, tensor in tensors.items() if name.startswith(f"{part}/")}


def _facts(states: Sequence[ExpertState], histories: Histories) -> dict[str, object]:
    return {
        "epoch": states[0].epoch,
        "rates": [state.rate for state in states],
        "histories": [[record.model_dump(mode="json") for record in history] for history in histories],
    }


class _Facts(Record):
    """The same, read back."""

    epoch: int = Field(ge=0)
    rates: tuple[Finite, ...]
    histories: tuple[tuple[EpochRecord, ...], ...]
    seconds: Finite = 0.0
