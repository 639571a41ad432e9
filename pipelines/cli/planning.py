"""`generalist train --plan`: what a training would do, and what the store holds of it already."""

from collections.abc import Iterator, Mapping

from generalist.config import Config
from generalist.errors import BadInput
from generalist.training import Position, Round, Training, plan
from pipelines import steps
from pipelines.workspace import Workspace

_SAMPLES = 1000  # of a mixing weight over the warm-up, whose knots may lie anywhere


def planned(config: Config, workspace: Workspace) -> Iterator[str]:
    """Lines for people: a line for each round, then what is worth knowing."""
    rounds = plan(config)
    stored = _stored(config, workspace, rounds)
    for round_ in rounds:
        yield f"{_title(config, round_)}: {stored.get(round_.index, 'to do')}"
    yield f"then: evaluation ({config.evaluation.attack}), ONNX export, registration"
    yield from _warm_ups_without_effect(config)


def _title(config: Config, round_: Round) -> str:
    warm_up = config.mixing is not None and round_.stop <= config.mixing.warm_up
    first, last = round_.start + 1, round_.stop
    epochs = f"epoch {last}" if first == last else f"epochs {first} to {last}"
    who = ", ".join(" with ".join(unit) for unit in round_.units)
    end = ", then hand back" if round_.hand_back else ""
    return f"{'warm-up' if warm_up else f'round {round_.index}'}: {epochs} of {who}{end}"


def _stored(config: Config, workspace: Workspace, rounds: tuple[Round, ...]) -> dict[int, str]:
    """What the store holds, by round; the first round to be trained decides the keys of the later ones."""
    try:
        training = steps.training(config, workspace)
    except BadInput:  # the source is not there yet; the training itself will say so
        return {}
    positions: Mapping[str, Position] = training.start()
    found: dict[int, str] = {}
    for round_ in rounds:
        upto = {unit: training.stored_up_to(round_, unit, positions) for unit in round_.units}
        if any(epoch < round_.stop for epoch in upto.values()):
            told = [f"{' with '.join(unit)} stored up to epoch {epoch}" for unit, epoch in upto.items()]
            if any(epoch > round_.start for epoch in upto.values()):
                found[round_.index] = ", ".join(told)
            break
        found[round_.index] = "stored"
        positions = _onward(training, round_, positions)
    return found


def _onward(training: Training, round_: Round, positions: Mapping[str, Position]) -> Mapping[str, Position]:
    """Where the experts stand after a round that is wholly in the store; nothing is trained."""
    cuts: dict[str, tuple[Position, ...]] = {}
    for unit in round_.units:
        reading = training.advance(round_, unit, positions)
        while True:
            try:
                next(reading)
            except StopIteration as stop:
                cuts |= stop.value
                break
    _, _, onward = training.mix(round_, cuts)
    return onward


def _warm_ups_without_effect(config: Config) -> Iterator[str]:
    """The first hand-back overwrites an expert that had no weight in the mixture until then."""
    mixing = config.mixing
    if mixing is None or not 0 < mixing.warm_up < config.training.epochs:
        return
    end = mixing.warm_up / config.training.epochs
    last = "no effect at all" if mixing.momentum == "reset" else "no effect but through the optimizer's momentum"
    for name, weight in config.mixing_weights().items():
        if all(weight.at(end * sample / _SAMPLES) < 1e-12 for sample in range(_SAMPLES + 1)):
            yield (
                f"note: the mixing weight of {name} is 0 until the first hand-back (epoch {mixing.warm_up}), so its"
                f" warm-up has {last}"
            )
