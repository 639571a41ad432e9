"""Whole trainings for benchmarks, through the store: a second call finds what the first one trained."""

from pathlib import Path

from generalist import engine
from generalist.config import AttackOptions, Config, EvaluationOptions
from generalist.data import Dataset, prepare
from generalist.data import load as load_data
from generalist.evaluation import as_evaluated, evaluate, measure, point_of, subset
from generalist.models import Classifier
from generalist.records import LearnerEvaluation, Measured
from generalist.store import Store
from generalist.training import Outcome, run

FOLDER = Path(".generalist")


def prepared(config: Config, name: str) -> Dataset:
    """Prepare the configuration's data in a folder of that name."""
    folder = FOLDER / "data" / name
    prepare(config.data, folder, root=Path())
    return load_data(folder)


def finished(config: Config, dataset: Dataset) -> Outcome:
    """Run a training to its end."""
    return run(config, dataset, Store(FOLDER / "store"))


def deployed(config: Config, dataset: Dataset, outcome: Outcome) -> Classifier:
    """Return the learner that would be exported."""
    weights = outcome.learners[config.deploy.removeprefix("expert:")]
    return engine.model_with(config.model, dataset.shape, weights, on=engine.device(config.training.device))


def evaluated(
    config: Config, dataset: Dataset, outcome: Outcome, options: EvaluationOptions, name: str | None = None
) -> LearnerEvaluation:
    """Evaluate the deployed learner on the test split, at the headline or where a name of `learner_names` says."""
    name = name or config.deployed
    with engine.threads(config.training.threads):
        return evaluate(
            as_evaluated(deployed(config, dataset, outcome), options, name),
            subset(dataset.test, options),
            options=options,
            class_names=dataset.class_names,
            name=name,
            epoch=outcome.chosen.epoch,
            digest=outcome.chosen.digest,
            at=point_of(name, options),
        ).evaluation


def tested(config: Config, dataset: Dataset, outcome: Outcome, attack: AttackOptions) -> Measured:
    """The deployed learner against one attack, on as many test images as the configuration says."""
    with engine.threads(config.training.threads):
        split = subset(dataset.test, config.evaluation)
        model = deployed(config, dataset, outcome)
        return measure(model, split, threats=config.evaluation.headline_threats, attack=attack)
