"""Validation of stored learners; the same learner is never measured twice in the same way."""

from collections.abc import Callable
from typing import Any

from generalist import engine
from generalist.attacks import attack_from
from generalist.config import (
    AttackOptions,
    Config,
    EvaluationOptions,
    SelectionAttackOptions,
    ThreatOptions,
    canonical,
    digest,
)
from generalist.data import Dataset
from generalist.evaluation import as_evaluated, code_behind, measure, point_of
from generalist.objectives import Objective
from generalist.platform_fingerprint import fingerprint
from generalist.records import Measured
from generalist.store import Store, tensors_digest
from generalist.tensors import Weights
from generalist.threats import threat_from
from generalist.training.checkpoints import Checkpoints
from generalist.training.keys import CheckpointRef, CheckpointRefs


class Validator:
    """Natural and robust accuracy on the validation split, by `evaluation.selection_attack` or another attack."""

    def __init__(self, config: Config, dataset: Dataset, store: Store, states: Checkpoints) -> None:
        self._config, self._dataset, self._store, self._states = config, dataset, store, states
        self._numerics = fingerprint(config.training.device, config.training.threads, evaluation=True)

    def expert(self, position: CheckpointRef, name: str) -> Measured:
        """Measure an expert's own learner where it stands; against FGSM, too, if it trains on attacks."""
        objective = self._config.experts[name].objective
        fgsm = isinstance(objective, Objective) and bool(objective.trains_against)
        return self._recalled(["expert", position.trajectory], lambda: self._states.learner(position), fgsm=fgsm)

    def global_learner(self, positions: CheckpointRefs) -> Measured:
        """Measure the global learner where all experts stand."""
        shares = [position.share for position in positions.values()]
        return self._recalled(["global", shares], lambda: self._states.global_learner(positions))

    def any_learner(self, weights: Weights, attack: AttackOptions | EvaluationOptions | None = None) -> Measured:
        """Measure any weights of this network, or an ensemble's, by an attack or by the cascade of an evaluation."""
        return self._recalled(["weights", tensors_digest(weights)], lambda: weights, attack=attack)

    def _recalled(
        self,
        whom: list[Any],
        weights: Callable[[], Weights],
        *,
        attack: AttackOptions | EvaluationOptions | None = None,
        fgsm: bool = False,
    ) -> Measured:
        config, dataset = self._config, self._dataset
        threats, attack = config.evaluation.headline_threats, attack or config.evaluation.selection_attack
        name = attack.name if isinstance(attack, AttackOptions) else attack.attack
        against = [part for threat in threats for part in (canonical(threat), _told(attack, threat))]
        how = [*against, self._numerics, code_behind(threats, [name], config.model)]
        condition, width = point_of("", config.evaluation)
        how += [condition] if condition is not None else []
        how += [["width", width]] if width is not None else []
        key = digest(["measured", whom, canonical(config.model), dataset.digest, how, fgsm])
        if key not in self._store:
            on = engine.device(config.training.device)
            model = engine.model_with(config.model, dataset.shape, weights(), on=on)
            model = as_evaluated(model, config.evaluation.model_copy(update={"transfers": False}))
            measured = measure(model, dataset.validation, threats=threats, attack=attack, fgsm=fgsm)
            self._store.save(key, "measurement", {}, measured.model_dump(mode="json"))
        stored = self._store.load(key)
        with self._store.understood(key):
            return Measured.model_validate(stored.facts)


def _told(attack: AttackOptions | EvaluationOptions, threat: ThreatOptions) -> Any:
    """Return all of an attack that decides a verdict."""
    if isinstance(attack, SelectionAttackOptions) and attack.name == "quick":
        return attack.name
    if isinstance(attack, AttackOptions):
        return attack_from(attack, threat_from(threat)).settings
    return [attack.attack, attack.seed, attack.square_queries, attack.precision]
