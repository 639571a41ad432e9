"""`generalist plan`, also `train --plan`: what a training would do, and what the store holds of it already."""

from collections.abc import Iterator
from datetime import timedelta

from generalist import engine
from generalist.config import Config
from generalist.data.manifest import Damaged
from generalist.errors import BadInput
from generalist.training import GroupForecast, Round, Trainer, duration, plan
from pipelines import steps
from pipelines.cli import estimates
from pipelines.workspace import Workspace

_SAMPLES = 1000  # of a mixing weight over the warm-up, whose knots may lie anywhere


def planned(config: Config, workspace: Workspace) -> Iterator[str]:
    """Yield lines for people: a line for each round, what it comes to, then what is worth knowing."""
    training = _training(config, workspace)
    work = training.forecast() if isinstance(training, Trainer) else []
    for round_ in plan(config):
        parts = [part for part in work if part.round.index == round_.index]
        yield f"{_title(config, round_)}: {_state(parts)}"
    yield f"device: {engine.told(config.training.device)}"
    time = ""
    if isinstance(training, BadInput):
        yield f"to train: all of it, and how long that takes is told once the images are there: {training}"
    else:
        yield _sum(training, work)
        time = f" ({_time(estimates.evaluation_seconds(training))}, {estimates.basis(training)})"
    yield f"then: evaluation ({config.evaluation.attack}){time}, ONNX export, registration"
    yield from _warm_ups_without_effect(config)


def _title(config: Config, round_: Round) -> str:
    warm_up = config.mixing is not None and round_.stop <= config.mixing.warm_up and not round_.coupled
    first, last = round_.start + 1, round_.stop
    epochs = f"epoch {last}" if first == last else f"epochs {first} to {last}"
    who = ", ".join(" with ".join(group) for group in round_.groups)
    steps = ", redistributing between steps" if round_.coupled else ""
    end = ", then redistribute" if round_.redistribute else steps
    return f"{'warm-up' if warm_up else f'round {round_.index}'}: {epochs} of {who}{end}"


def _training(config: Config, workspace: Workspace) -> Trainer | BadInput:
    """Return the training; what is missing where the images are not there yet."""
    try:
        data = steps.prepare_data(config, workspace)
    except Damaged:
        raise
    except BadInput as missing:
        return missing
    return steps.training(config, workspace, data=data)


def _state(work: list[GroupForecast]) -> str:
    """Return the state of one round."""
    if all(part.stored == part.round.start and not part.begun for part in work):
        return "to do"
    if not any(part.epochs for part in work):
        return "stored"
    return ", ".join(
        f"{' with '.join(part.experts)} stored up to epoch {part.stored}{' and begun' if part.begun else ''}"
        for part in work
    )


def _sum(training: Trainer, work: list[GroupForecast]) -> str:
    whole = sum(len(part.experts) * (part.round.stop - part.round.start) for part in work)
    left = sum(len(part.experts) * part.epochs for part in work)
    if not left:
        return f"to train: nothing; the store holds all {whole} epochs"
    seconds = duration(work)
    if seconds is None:
        time = f"{_time(estimates.training_seconds(training, work))}, {estimates.basis(training)}"
    else:
        time = f"{_time(seconds)}, by what such epochs took here"
    return f"to train: {left} of {whole} epochs, the experts' added up; {time}"


def _time(seconds: float) -> str:
    return f"about {timedelta(seconds=max(1, round(seconds)))}"


def _warm_ups_without_effect(config: Config) -> Iterator[str]:
    """Yield notes on experts without weight in the mixture until the first redistribution, which overwrites them."""
    mixing = config.mixing
    if mixing is None or not 0 < mixing.warm_up < config.training.epochs:
        return
    end = (mixing.warm_up - mixing.burst) / config.training.epochs
    last = "no effect at all" if mixing.momentum == "reset" else "no effect but through the optimizer's momentum"
    for name, weight in config.mixing_weights().items():
        if all(weight.at(end * sample / _SAMPLES) < 1e-12 for sample in range(_SAMPLES + 1)):
            yield (
                f"note: the mixing weight of {name} is 0 until the first redistribution (epoch {mixing.warm_up}), so"
                f" its"
                f" warm-up has {last}"
            )
