"""The tree of `params.yaml`, and what must hold between its sections."""

from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import BeforeValidator, Field, SerializeAsAny, model_validator

from generalist.config.bounds import Name
from generalist.config.data import DataOptions
from generalist.config.evaluation import EvaluationOptions
from generalist.config.experts import ExpertOptions
from generalist.config.mixing import MixingOptions, Steps
from generalist.config.network import ModelOptions
from generalist.config.quantity import Schedule
from generalist.config.section import Section, plugin
from generalist.config.training import EngineOptions, ExportOptions, RegistryOptions, TrainingOptions
from generalist.config.tuning import TuningOptions


class Config(Section):
    """The whole of `params.yaml`."""

    seed: int = Field(0, ge=0, lt=2**63, description="seed of every random draw of the training")
    data: Annotated[SerializeAsAny[DataOptions], BeforeValidator(lambda written: plugin("data.sources", written))] = (
        Field(description="such as {name: digits}")
    )
    model: Annotated[SerializeAsAny[ModelOptions], BeforeValidator(lambda written: plugin("models", written))] = Field(
        description="such as {name: small_cnn}"
    )
    training: TrainingOptions = Field(description="such as {epochs: 40, batch_size: 64}")
    engine: EngineOptions = EngineOptions()
    experts: dict[Name, ExpertOptions] = Field(min_length=1, description="a map of experts by name")
    mixing: MixingOptions | None = Field(None, description="how experts are mixed; null for a single expert on its own")
    deploy: str = Field(
        "global",
        description="which learner is evaluated first, exported and registered: global, expert:NAME or ensemble",
    )
    evaluation: EvaluationOptions = Field(description="such as {threats: [{norm: linf, eps: 8/255}]}")
    export: ExportOptions = ExportOptions()
    registry: RegistryOptions = RegistryOptions()
    tuning: TuningOptions = TuningOptions()

    @model_validator(mode="after")
    def _objectives_fit_the_model(self) -> "Config":
        for name, expert in self.experts.items():
            try:
                expert.objective.check_model(self.model)
            except ValueError as error:
                raise ValueError(f"experts.{name}.objective.{error}") from None
        return self

    @model_validator(mode="after")
    def _fits_together(self) -> "Config":
        names = sorted(self.experts)
        if self.mixing is not None:
            _check_mixing(self.mixing, names, self.training.epochs)
        learners = [f"expert:{name}" for name in names] + (["global"] if self.mixing is not None else [])
        learners += [ENSEMBLE] if self.ensemble else []
        if self.deploy not in learners:
            raise ValueError(f"deploy is '{self.deploy}', but this configuration has only: {', '.join(learners)}")
        _check_sequence(self)
        _check_peers(self)
        _check_conditions(self)
        _check_widths(self)
        if "global" in names:
            raise ValueError("experts: 'global' is the name of the mixture; name the expert otherwise")
        if ENSEMBLE in names:
            raise ValueError("experts: 'ensemble' is the name of all peers together; name the expert otherwise")
        return self

    @property
    def deployed(self) -> str:
        """The deployed learner's name: `global`, `ensemble`, or an expert's."""
        return self.deploy.removeprefix("expert:")

    def mixing_weights(self) -> dict[str, "MixingWeight"]:
        """Return the weight of each expert in the mixture, by name, in the order of the configuration."""
        if self.mixing is None:
            return {}
        given = self.mixing.weights
        return {name: MixingWeight(given.get(name), tuple(given.values())) for name in self.experts}

    @property
    def coupled(self) -> bool:
        """Whether experts read each other at every step, because an objective needs peers."""
        return any("peers" in expert.objective.needs for expert in self.experts.values())

    @property
    def ensemble(self) -> tuple[str, ...]:
        """The peers that others learn from, two at least, which are evaluated together as well; else none.

        By name, so that their order in the configuration is without effect.
        """
        seen = tuple(name for name in sorted(self.experts) if self.experts[name].objective.seen_by_peers)
        return seen if self.coupled and len(seen) > 1 else ()

    def active(self, name: str) -> range:
        """Return the epochs in which a learner trains, counted from 0."""
        sequence = self.experts[name].sequence if name in self.experts else None
        if sequence is None:
            return range(self.training.epochs)
        return range(sequence.start, sequence.stop or self.training.epochs)


class MixingWeight:
    """An expert's mixing weight: its own schedule, or what the others leave of one."""

    def __init__(self, own: Schedule | None, given: tuple[Schedule, ...]) -> None:
        self._own, self._given = own, given

    def at(self, progress: float) -> float:
        """Return the weight at `progress` in [0, 1]."""
        if self._own is not None:
            return self._own.at(progress)
        return 1.0 - sum(schedule.at(progress) for schedule in self._given)

    def along(self, progress: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the weights at many places at once, to the bits of `at`."""
        if self._own is not None:
            return self._own.along(progress)
        others = np.zeros(progress.shape)
        for schedule in self._given:
            others = others + schedule.along(progress)
        return 1.0 - others


ENSEMBLE = "ensemble"
"""The name of the learner that all peers are together."""
_GIVEN_BY = {"teacher": "sequence.teacher", "start_from": "sequence.start_from", "two_views": "augment"}
"""The option that gives an objective what it needs, where it is not called so."""


def _check_sequence(config: Config) -> None:
    """Check who trains when, and what it begins with."""
    epochs, mixing = config.training.epochs, config.mixing
    for name, expert in config.experts.items():
        active = config.active(name)
        if not active or active.stop > epochs:
            raise ValueError(
                f"experts.{name}.sequence goes from epoch {active.start} to {active.stop} of {epochs}: let start be"
                " below stop, and that at most training.epochs"
            )
        if len(active) < epochs and mixing is not None and (mixing.burst or isinstance(mixing.interval, Steps)):
            raise ValueError(
                f"experts.{name} trains in a part of the epochs only, so experts can't meet between steps: give"
                " mixing.interval in epochs, and set mixing.burst to false"
            )
        for key, other in (("start_from", expert.start_from), ("teacher", expert.teacher)):
            if other is not None:
                _check_predecessor(config, name, key, other)
        given = {key for key in ("averaging", "teacher", "start_from") if getattr(expert, key) not in (None, False)}
        given |= {"peers"} if any(one.objective.seen_by_peers for one in _others(config, name)) else set()
        given |= {"two_views"} if expert.augment else set()
        given |= {"condition"}  # which is the model's
        given |= {"unlabelled"} if config.data.unlabelled is not None else set()
        needs, objective = expert.objective.needs, expert.objective.name
        for key in sorted((needs - given) | ({"teacher"} & (given - needs))):
            where = "data.unlabelled" if key == "unlabelled" else f"experts.{name}.{_GIVEN_BY.get(key, key)}"
            if key == "peers":
                raise ValueError(
                    f"experts.{name} learns from its peers, and there are none: add an expert that is not a student"
                )
            if key in needs:
                raise ValueError(f"{where} is needed by the objective {objective}: give it")
            raise ValueError(f"{where} is without effect on the objective {objective}: leave it out")


def _others(config: Config, name: str) -> list[ExpertOptions]:
    return [expert for other, expert in config.experts.items() if other != name]


def _check_conditions(config: Config) -> None:
    """Check that a conditional model is trained by objectives that draw conditions, and measured at some."""
    conditional, options = config.model.condition is not None, config.evaluation
    for name, expert in config.experts.items():
        objective = expert.objective.name
        if "condition" in expert.objective.needs and not conditional:
            raise ValueError(
                f"model.condition is needed by the objective {objective} of experts.{name}: give it, such as"
                " {encoding: random}"
            )
        if conditional and expert.gate is not None:
            raise ValueError(
                f"experts.{name}.gate can't be had with model.condition: its attack is at no condition; set it to null"
            )
        if conditional and "condition" not in expert.objective.needs:
            raise ValueError(
                f"model.condition is without effect on the objective {objective} of experts.{name}: set it to null, or"
                " choose an objective that draws conditions"
            )
    if conditional and not options.conditions:
        raise ValueError(
            "evaluation.conditions is missing: give the values of lambda at which the model is measured, such as [1,"
            " 0]; the first is the headline"
        )
    if options.conditions and not conditional:
        raise ValueError(
            "evaluation.conditions is without effect on a model that takes no condition: leave it out, or give"
            " model.condition"
        )


def _check_widths(config: Config) -> None:
    """Check that a slimmable model is measured at some of its widths, by experts that know nothing of each other."""
    trained, options = config.model.widths, config.evaluation
    shown = f"[{', '.join(str(width.written) for width in trained)}]"
    if trained and not options.widths:
        raise ValueError(
            f"evaluation.widths is missing: give those of model.widths, {shown}, at which the model is measured; the"
            " first is the headline"
        )
    for width in options.widths:
        if width not in trained:
            raise ValueError(
                f"evaluation.widths has {width.written}, which is not trained: model.widths is"
                f" {shown if trained else 'empty, so there is the whole network alone'}"
            )
    for key in ("conditions", "widths"):
        values = getattr(options, key)
        if len(set(values)) < len(values):
            raise ValueError(f"evaluation.{key} names a value twice: leave one of them out")
    if options.transfers and not (options.conditions or options.widths):
        raise ValueError(
            "evaluation.transfers is without effect on a model that takes no condition and has one width: leave it out,"
            " or give model.condition or model.widths"
        )
    if trained and config.coupled:
        raise ValueError("model.widths can't be had where experts learn from each other at every step: leave it out")


def _check_peers(config: Config) -> None:
    """Check that experts which read each other at every step all train, at weights that are their own."""
    if config.training.own_initial_weights and (config.mixing or config.training.initial_weights):
        other = "mixing" if config.mixing else "training.initial_weights"
        raise ValueError(
            f"training.own_initial_weights can't be had with {other}, which needs one initial state for all: set it to"
            " false"
        )
    if not config.coupled:
        return
    for name, expert in config.experts.items():
        if expert.objective.attacks_per_image > 1:
            raise ValueError(
                f"experts.{name}.objective attacks each image several times, so peers can't learn from its images: let"
                " it attack each image once"
            )
        for key in ("sequence", "perturbation"):
            if getattr(expert, key) is not None:
                raise ValueError(
                    f"experts.{name}.{key} can't be had where experts learn from each other at every step: set it to"
                    " null"
                )


def _check_predecessor(config: Config, name: str, key: str, other: str) -> None:
    """Check that an expert can begin with another one: with its weights, or with it as a teacher that has ended."""
    if other == name or other not in config.experts:
        others = ", ".join(sorted(set(config.experts) - {name})) or "none"
        raise ValueError(f"experts.{name}.sequence.{key} names '{other}', but the other experts are: {others}")
    start, before = config.active(name).start, config.active(other)
    does, epoch = ("ends", before.stop) if key == "teacher" else ("begins", before.start)
    if start < epoch + (key != "teacher"):
        raise ValueError(
            f"experts.{name} begins after {start} epochs, but {other}, its {key}, {does} after {epoch}: raise"
            f" experts.{name}.sequence.start"
        )


def _check_mixing(mixing: MixingOptions, names: list[str], epochs: int) -> None:
    if mixing.warm_up >= epochs:
        raise ValueError(
            f"mixing.warm_up is {mixing.warm_up}, but training.epochs is {epochs}: the warm-up must end before the last"
            " epoch"
        )
    unknown = sorted(set(mixing.weights) - set(names))
    if unknown:
        raise ValueError(f"mixing.weights names '{unknown[0]}', but the experts are: {', '.join(names)}")
    left_out = len(names) - len(mixing.weights)
    if left_out > 1:
        raise ValueError(
            f"mixing.weights leaves out {left_out} experts; one at most may be left out, and takes the rest"
        )
    _check_simplex(mixing.weights, complete=left_out == 0)


def _check_simplex(weights: dict[str, Schedule], *, complete: bool) -> None:
    """Check that weights lie on the simplex; piecewise linear ones do if they do at, and just before, all knots."""
    knots = {float(progress) for schedule in weights.values() for progress, _ in schedule.knots} | {0.0, 1.0}
    for progress in sorted(knots | {max(0.0, knot - 1e-9) for knot in knots}):
        values = [schedule.at(progress) for schedule in weights.values()]
        total = sum(values)
        if min(values, default=0.0) < 0 or total > 1 + 1e-6 or (complete and abs(total - 1) > 1e-6):
            raise ValueError(
                f"mixing.weights must not be negative and must sum to one; at progress {round(progress, 6)} they sum to"
                f" {round(total, 6)} (leave one expert out and it takes the rest)"
            )
