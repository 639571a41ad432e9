"""Equal cost: how many epochs of each training a budget allows."""

from generalist.config import Config, with_overrides
from generalist.data import Dataset
from generalist.training import cost
from pipelines.comparison.spec import Budget


def within(config: Config, dataset: Dataset, budget: Budget) -> Config:
    """Return a training with as many epochs as cost what the budget says, one at least.

    Its warm-up, and the parts in which experts train, keep their shares of it; intervals stay as they are.
    """
    count = cost.passes if budget.unit == "passes" else cost.seconds
    return of_length(config, max(1, round(config.training.epochs * budget.number / count(config, dataset))))


def of_length(config: Config, epochs: int) -> Config:
    """Return a training with so many epochs."""
    share = epochs / config.training.epochs
    changed = {"training.epochs": epochs}
    if config.mixing is not None:
        changed["mixing.warm_up"] = round(config.mixing.warm_up * share)
    for name, expert in config.experts.items():
        if expert.sequence is not None:
            changed[f"experts.{name}.sequence.start"] = round(expert.sequence.start * share)
            if expert.sequence.stop is not None:
                changed[f"experts.{name}.sequence.stop"] = round(expert.sequence.stop * share)
    return with_overrides(config, [f"{key}={value}" for key, value in changed.items()])
