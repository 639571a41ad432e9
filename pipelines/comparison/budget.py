"""Equal cost: how many epochs of each training a budget allows."""

from generalist.config import Config, with_overrides
from generalist.data import Dataset
from generalist.training import cost
from pipelines.comparison.spec import Budget


def length(config: Config, dataset: Dataset, budget: Budget) -> int:
    """Return how many epochs of a training cost what the budget says, one at least.

    With so many epochs its warm-up, and the parts in which experts train, keep their shares of it; intervals stay as
    they are.
    """
    count = cost.passes if budget.unit == "passes" else cost.seconds
    return max(1, round(config.training.epochs * budget.number / count(config, dataset)))


def of_length(config: Config, epochs: int) -> Config:
    """Return a training with so many epochs."""
    return with_overrides(config, overrides(config, epochs))


def overrides(config: Config, epochs: int) -> list[str]:
    """Return what gives a training so many epochs; nothing where it has them."""
    share = epochs / config.training.epochs
    if share == 1:
        return []
    changed = {"training.epochs": epochs}
    if config.mixing is not None:
        changed["mixing.warm_up"] = round(config.mixing.warm_up * share)
    for name, expert in config.experts.items():
        if expert.sequence is not None:
            changed[f"experts.{name}.sequence.start"] = round(expert.sequence.start * share)
            if expert.sequence.stop is not None:
                changed[f"experts.{name}.sequence.stop"] = round(expert.sequence.stop * share)
    return [f"{key}={value}" for key, value in changed.items()]
