"""The declared space: checked against the schema before anything is tried, then what Optuna samples from."""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from graphlib import CycleError, TopologicalSorter
from itertools import product
from typing import Any

import optuna

from generalist.config import Choices, Config, Quantity, Range, with_overrides
from generalist.config.renamed import renamed
from generalist.config.section import nearest
from generalist.errors import BadInput

Point = dict[str, float | int | str]
"""By dotted path: a number of a range, or the name of a choice."""

SEARCHABLE = ("engine", "experts", "mixing", "model", "seed", "training")
"""Sections that may be searched: data and evaluation are what trials are compared by."""

_MANY = 64  # combinations of decay and mixing weights; more of them would cost more than they save


class Space:
    """What a search may change, and the configurations that come of it."""

    def __init__(self, config: Config) -> None:
        """Read the space `tuning.space` of a configuration, and try every value in it on the schema.

        Raises:
            BadInput: a path is none of the tree, a value doesn't fit there, or conditions make no sense.
        """
        self.config, self.dimensions = config, dict(config.tuning.space)
        if not self.dimensions:
            raise BadInput(
                "tuning.space is empty: name what is to be searched, as in mixing.interval: {low: 1, high: 5}"
            )
        for path in self.dimensions:
            self._check_path(path)
        for path, dimension in self.dimensions.items():
            self._check_conditions(path, dimension.when)
        self._order = self._sort_dimensions()
        for path in self._order:
            self._check_values(path)

    def suggest(self, trial: optuna.Trial) -> Point:
        """Return a point for a trial; one that has a point already keeps it."""
        point: Point = {}
        for path in self._order:
            if not self._is_searched(path, point):
                continue
            dimension = self.dimensions[path]
            if isinstance(dimension, Choices):
                point[path] = trial.suggest_categorical(path, list(dimension.named))
            elif dimension.whole:
                step = int(dimension.step or 1)
                low, high = int(dimension.low), int(dimension.high)
                point[path] = trial.suggest_int(path, low, high, step=step, log=dimension.log)
            else:
                own_step = None if dimension.step is None else float(dimension.step)
                low_, high_ = float(dimension.low), float(dimension.high)
                point[path] = trial.suggest_float(path, low_, high_, step=own_step, log=dimension.log)
        return point

    def overrides(self, point: Mapping[str, float | int | str]) -> tuple[str, ...]:
        """Return what makes the configuration that of a point, in an order in which each finds its place."""
        return tuple(_override(path, self._value(path, point[path])) for path in self._order if path in point)

    def at(self, point: Mapping[str, float | int | str]) -> Config:
        """Return the configuration of a point.

        Raises:
            BadInput: its values don't go together.
        """
        return with_overrides(self.config, self.overrides(point))

    def grid(self) -> list[Point]:
        """Return all points.

        Raises:
            BadInput: a dimension has no end of values.
        """
        for path in self._order:
            if self.drawn(path) is None:
                raise BadInput(f"tuning.space: a grid can't have all values of {path}: give it choices, or a step")
        return [dict(point) for point in self.points({})]

    def points(self, begun: Point) -> Iterator[Mapping[str, Any]]:
        """Yield all points that agree with a part of one; None stands for any number of a range without end."""
        return self._points(begun, {}, self._order)

    def _points(
        self, begun: Mapping[str, Any], point: Mapping[str, Any], rest: list[str]
    ) -> Iterator[Mapping[str, Any]]:
        if not rest:
            yield point
        elif not self._is_searched(rest[0], point):
            yield from self._points(begun, point, rest[1:])
        else:
            for value in [begun[rest[0]]] if rest[0] in begun else self.drawn(rest[0]) or [None]:
                yield from self._points(begun, {**point, rest[0]: value}, rest[1:])

    def values(self, path: str) -> list[Any] | None:
        """Return the declared values of a leaf: its only one where it isn't searched; None where they have no end."""
        dimension = self.dimensions.get(path)
        if dimension is None:
            return [_leaf(self.config.model_dump(mode="json"), path)]
        return list(dimension.named.values()) if isinstance(dimension, Choices) else dimension.values

    def alternatives(self, config: Config) -> tuple[Config, ...]:
        """Return configurations that differ from one of the space in decay and mixing weights alone.

        There are none where they would be many: trials then hardly ever meet at one of them.
        """
        mixing = config.mixing
        if mixing is None:
            return ()
        return tuple(
            config.model_copy(update={"mixing": mixing.model_copy(update=mixture)}) for mixture in self._mixtures
        )

    @cached_property
    def _mixtures(self) -> list[dict[str, Any]]:
        """Decay and weights, in all their declared combinations."""
        paths = [path for path in self.dimensions if path.startswith(("mixing.decay", "mixing.weights"))]
        value_lists = [self.values(path) for path in paths]
        if any(values is None for values in value_lists):
            return []
        combinations = list(product(*(values or () for values in value_lists)))
        if not paths or len(combinations) > _MANY:
            return []
        overrides = [
            [_override(path, value) for path, value in zip(paths, combination, strict=True)]
            for combination in combinations
        ]
        mixings = [with_overrides(self.config, texts).mixing for texts in overrides]
        return [{"decay": mixing.decay, "weights": mixing.weights} for mixing in mixings if mixing is not None]

    def described(self) -> dict[str, str]:
        """Return each dimension for people."""
        return {path: _describe(dimension) for path, dimension in self.dimensions.items()}

    def endless(self) -> list[str]:
        """Return dimensions of which trials hardly ever have the same value, so that they share no work."""
        return [path for path in self.dimensions if self.values(path) is None]

    def _value(self, path: str, given: float | int | str) -> Any:
        dimension = self.dimensions[path]
        return dimension.named[str(given)] if isinstance(dimension, Choices) else given

    def drawn(self, path: str) -> list[Any] | None:
        """Return what a sampler may draw for a dimension: names of choices, or numbers; None where they have no end."""
        dimension = self.dimensions[path]
        return list(dimension.named) if isinstance(dimension, Choices) else dimension.values

    def _is_searched(self, path: str, point: Mapping[str, Any]) -> bool:
        """Return whether a dimension is searched where the others are."""
        conditions = self.dimensions[path].when.items()
        return all(other in point and str(point[other]) in _names(wanted) for other, wanted in conditions)

    def _check_path(self, path: str) -> None:
        section = path.split(".")[0]
        if section not in SEARCHABLE:
            raise BadInput(f"tuning.space: {path} can't be searched; what can be lies in {', '.join(SEARCHABLE)}")
        _leaf(self.config.model_dump(mode="json"), path)

    def _check_conditions(self, path: str, when: Mapping[str, str | list[str]]) -> None:
        for other, wanted in when.items():
            if other not in self.dimensions:
                hint = nearest(other, list(self.dimensions))
                raise BadInput(f"tuning.space: {path} depends on {other}, which is not searched; {hint}")
            dimension = self.dimensions[other]
            if not isinstance(dimension, Choices):
                raise BadInput(f"tuning.space: {path} depends on {other}, which has no choices to depend on")
            for name in _names(wanted):
                if name not in dimension.named:
                    hint = nearest(name, list(dimension.named))
                    raise BadInput(f"tuning.space: {path} depends on {other} being '{name}', which it can't be; {hint}")

    def _sort_dimensions(self) -> list[str]:
        """Sort so that what a dimension depends on, and what it lies inside of, comes before it."""
        before = {
            path: {*dimension.when, *(other for other in self.dimensions if path.startswith(f"{other}."))}
            for path, dimension in self.dimensions.items()
        }
        try:
            return list(TopologicalSorter(before).static_order())
        except CycleError as error:
            circle = " -> ".join(error.args[1])
            raise BadInput(f"tuning.space: conditions go round in a circle: {circle}; take one of them away") from None

    def _check_values(self, path: str) -> None:
        """Check every choice, or both ends, in the place where it would stand."""
        dimension = self.dimensions[path]
        if isinstance(dimension, Range):
            values: Iterable[Any] = (dimension.low, dimension.high)
        else:
            values = dimension.named.values()
        for value in values:
            for point in self._ways_to(path):
                override = _override(path, value)
                try:
                    with_overrides(self.config, [*self.overrides(point), override])
                except BadInput as error:
                    raise BadInput(f"tuning.space: {override} is wrong: {_first_line(error)}") from None

    def _ways_to(self, path: str) -> Iterator[Point]:
        """Yield points of what a dimension depends on, one for each way in which it comes to be searched."""
        needed = self._needs(path)
        ways = [_names(wanted) for wanted in needed.values()]
        for names in product(*ways):
            yield dict(zip(needed, names, strict=True))

    def _needs(self, path: str) -> dict[str, str | list[str]]:
        """Return what a dimension depends on, and what that depends on."""
        needed: dict[str, str | list[str]] = {}
        for other, wanted in self.dimensions[path].when.items():
            needed |= {**self._needs(other), other: wanted}
        return needed


def _override(path: str, value: Any) -> str:
    """Return it as written on a command line; JSON is YAML."""
    shown = value.written if isinstance(value, Quantity) else value
    return f"{path}={shown if isinstance(shown, str) else json.dumps(shown)}"


def _leaf(tree: Any, path: str) -> Any:
    """Return what stands at a dotted path.

    Raises:
        BadInput: nothing does.
    """
    place = tree
    for key in path.split("."):
        known: dict[Any, Any] = (
            place if isinstance(place, dict) else dict(enumerate(place)) if isinstance(place, list) else {}
        )
        slot: Any = int(key) if isinstance(place, list) and key.isdecimal() else key
        if slot not in known:
            if now := renamed(path):
                raise BadInput(f"tuning.space: {now}")
            hint = (
                nearest(key, list(known)) if isinstance(place, dict) else f"there are {len(known)} values in its place"
            )
            raise BadInput(f"tuning.space: {path} is no key of the configuration: '{key}' is unknown; {hint}")
        place = known[slot]
    return place


def _names(wanted: str | list[str]) -> list[str]:
    return [wanted] if isinstance(wanted, str) else wanted


def _first_line(error: BadInput) -> str:
    return re.sub(r"^(configuration|override '.*?'): ", "", str(error).partition("\n")[0])


def _describe(dimension: Choices | Range) -> str:
    if isinstance(dimension, Choices):
        text = ", ".join(dimension.named)
    else:
        step = "" if dimension.step is None else f" in steps of {_text(dimension.step)}"
        text = f"{_text(dimension.low)} to {_text(dimension.high)}{step}{', logarithmic' if dimension.log else ''}"
    conditions = [f"{other} is {' or '.join(_names(wanted))}" for other, wanted in dimension.when.items()]
    return f"{text}{' where ' + ' and '.join(conditions) if conditions else ''}"


def _text(value: float | int) -> str:
    return str(value.written if isinstance(value, Quantity) else value)
