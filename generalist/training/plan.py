"""What a training has to do, listed before anything is done."""

from collections.abc import Collection
from dataclasses import dataclass

from generalist.config import Config, MixingOptions, Steps


@dataclass(frozen=True)
class Round:
    """Epochs `start` to `stop`, in which the units advance on their own; then the experts meet.

    Attributes:
        index: from 0, which ends the warm-up.
        start, stop: epochs done before and after.
        cuts: epochs after which states are stored and measured; the last is `stop`.
        units: names of the experts that advance together.
        coupled: whether the units hand back between steps (an interval in steps).
        hand_back: whether the experts then go on from the global learner.
    """

    index: int
    start: int
    stop: int
    cuts: tuple[int, ...]
    units: tuple[tuple[str, ...], ...]
    coupled: bool
    hand_back: bool


def plan(config: Config, also: Collection[int] = ()) -> tuple[Round, ...]:
    """All rounds of a training, in order; `also` are epochs after which states are to be stored, too."""
    every, mixing = config.training.checkpoint, config.mixing
    names = tuple(config.experts)
    rounds: list[Round] = []
    start = 0
    for stop in _stops(config):
        together = coupled(mixing) and mixing is not None and start >= mixing.warm_up
        rounds.append(
            Round(
                index=len(rounds),
                start=start,
                stop=stop,
                cuts=tuple(
                    sorted({*range(start - start % every + every, stop, every), *_within(also, start, stop), stop})
                ),
                units=(names,) if together else tuple((name,) for name in names),
                coupled=together,
                hand_back=mixing is not None and stop < config.training.epochs and not together,
            )
        )
        start = stop
    return tuple(rounds)


def _within(epochs: Collection[int], start: int, stop: int) -> set[int]:
    return {epoch for epoch in epochs if start < epoch < stop}


def coupled(mixing: MixingOptions | None) -> bool:
    """Whether experts meet between steps, so that after the warm-up they can only advance together."""
    return mixing is not None and isinstance(mixing.interval, Steps)


def _stops(config: Config) -> list[int]:
    """Epochs after which rounds end."""
    epochs, every, mixing = config.training.epochs, config.training.checkpoint, config.mixing
    if mixing is None:
        return sorted({*range(every, epochs, every), epochs})
    if isinstance(mixing.interval, Steps):
        return sorted({mixing.warm_up, *range(mixing.warm_up + every, epochs, every), epochs} - {0})
    return sorted({*range(mixing.warm_up or mixing.interval, epochs, mixing.interval), epochs})
