"""What a training has to do, listed before anything is done."""

from collections.abc import Collection
from dataclasses import dataclass

from generalist.config import Config, MixingOptions, Steps


@dataclass(frozen=True)
class Round:
    """Epochs `start` to `stop`, in which the groups advance on their own; then the experts meet.

    Attributes:
        index: from 0, which ends the warm-up.
        start, stop: epochs done before and after.
        cuts: epochs after which states are stored and measured; the last is `stop`.
        groups: names of the experts that advance together.
        coupled: whether the groups redistribute between steps (an interval in steps, or a burst).
        redistribute: whether the experts then go on from the global learner, where they have not done so between steps.
        still: names of the experts that stand still meanwhile: they begin later, or have ended.
        beginning: names of those that begin to train at the end of it, from another one or with a teacher.
    """

    index: int
    start: int
    stop: int
    cuts: tuple[int, ...]
    groups: tuple[tuple[str, ...], ...]
    coupled: bool
    redistribute: bool
    still: frozenset[str] = frozenset()
    beginning: frozenset[str] = frozenset()


def plan(config: Config, also: Collection[int] = ()) -> tuple[Round, ...]:
    """Return all rounds of a training, in order; `also` are epochs after which states are to be stored, too.

    A round ends where experts meet, and where one of them begins or ends.
    """
    every, mixing = config.training.checkpoint_epochs, config.mixing
    names = tuple(config.experts)
    rounds: list[Round] = []
    start = 0
    met = _meeting_stops(config)
    turns = {turn for name in names for turn in (config.active(name).start, config.active(name).stop)}
    for stop in sorted({*met, *turns} - {0}):
        coupled = mixing is not None and _coupled(mixing, start, stop)
        once = mixing is not None and not mixing.burst and not coupled
        cuts = {*range(start - start % every + every, stop, every), *_within(also, start, stop), stop}
        rounds.append(
            Round(
                index=len(rounds),
                start=start,
                stop=stop,
                cuts=tuple(sorted(cuts)),
                groups=(names,) if coupled or config.coupled else tuple((name,) for name in names),
                coupled=coupled,
                redistribute=once and stop < config.training.epochs and stop in met,
                still=frozenset(name for name in names if start not in config.active(name)),
                beginning=frozenset(name for name in names if stop == config.active(name).start),
            )
        )
        start = stop
    return tuple(rounds)


def _within(epochs: Collection[int], start: int, stop: int) -> set[int]:
    return {epoch for epoch in epochs if start < epoch < stop}


def _coupled(mixing: MixingOptions, start: int, stop: int) -> bool:
    """Return whether experts meet between the steps of these epochs, so that they can only advance together."""
    if mixing.burst:
        return stop - start == 1 and stop in _meetings(mixing, stop + 1)
    return isinstance(mixing.interval, Steps) and start >= mixing.warm_up


def _meetings(mixing: MixingOptions, end: int) -> range:
    """Return the epochs, counted from 1 and before `end`, in or after which experts meet: t', t' + c and so on."""
    assert not isinstance(mixing.interval, Steps)  # which are counted otherwise
    return range(mixing.warm_up or mixing.interval, end, mixing.interval)


def _meeting_stops(config: Config) -> list[int]:
    """Return the epochs after which experts meet, or a single one is measured; the last of all among them."""
    epochs, every, mixing = config.training.epochs, config.training.checkpoint_epochs, config.mixing
    if mixing is None:
        return sorted({*range(every, epochs, every), epochs})
    if isinstance(mixing.interval, Steps):
        return sorted({mixing.warm_up, *range(mixing.warm_up + every, epochs, every), epochs} - {0})
    if mixing.burst:
        meetings = _meetings(mixing, epochs + 1)
        return sorted({*meetings, *(epoch - 1 for epoch in meetings), epochs} - {0})
    return sorted({*_meetings(mixing, epochs), epochs})
