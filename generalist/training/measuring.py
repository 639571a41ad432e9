"""Validation of stored learners; the same learner is never measured twice in the same way."""

from collections.abc import Callable
from typing import Any

from generalist import engine
from generalist.config import Config, canonical, digest
from generalist.data import Dataset
from generalist.evaluation import measure
from generalist.numerics import fingerprint
from generalist.objectives import Objective
from generalist.records import Measured
from generalist.store import Store
from generalist.tensors import Weights
from generalist.training.keys import Position, Positions
from generalist.training.states import States


class Measuring:
    """Natural and robust accuracy on the validation split, by the attack of `evaluation.choice`."""

    def __init__(self, config: Config, dataset: Dataset, store: Store) -> None:
        self._config, self._dataset, self._store, self._states = config, dataset, store, States(store)
        options = config.evaluation
        numerics = fingerprint(config.training.device, config.training.threads, evaluation=True)
        self._how = [canonical(options.threats[0]), canonical(options.choice), dataset.digest, numerics]

    def expert(self, position: Position, name: str) -> Measured:
        """An expert's own learner where it stands; against FGSM, too, if it trains on attacks."""
        objective = self._config.experts[name].objective
        fgsm = isinstance(objective, Objective) and objective.trains_against is not None
        return self._recalled(["expert", position.trajectory], lambda: self._states.learner(position), fgsm=fgsm)

    def global_learner(self, positions: Positions) -> Measured:
        """The global learner where all experts stand."""
        shares = [position.share for position in positions.values()]
        return self._recalled(["global", shares], lambda: self._states.global_learner(positions))

    def _recalled(self, whom: list[Any], weights: Callable[[], Weights], *, fgsm: bool = False) -> Measured:
        key = digest(["measured", whom, self._how, fgsm])
        if key not in self._store:
            config, dataset = self._config, self._dataset
            on = engine.device(config.training.device)
            model = engine.model_with(config.model, dataset.shape, weights(), on=on)
            options = config.evaluation
            split, threat = dataset.validation, options.threats[0]
            found = measure(model, split, threat=threat, attack=options.choice, fgsm=fgsm)
            self._store.save(key, "measurement", {}, found.model_dump(mode="json"))
        return Measured.model_validate(self._store.load(key).facts)
