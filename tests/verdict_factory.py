"""Verdicts of learners by the pipeline's own steps, shard by shard."""

from collections.abc import Iterable

from generalist.evaluation import Verdicts
from generalist.training import Outcome, Trainer
from pipelines import steps


def all_verdicts(training: Trainer, outcome: Outcome, names: Iterable[str]) -> dict[str, Verdicts]:
    """Return the verdicts of each learner of these names."""
    return {
        name: steps.combine_shards(
            training,
            outcome,
            name,
            [steps.evaluate_shard(training, outcome.learners, name, rows) for rows in steps.shards(training)],
        )
        for name in names
    }
