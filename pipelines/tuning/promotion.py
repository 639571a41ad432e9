"""From the best parameters to a model: several seeds on the validation split, then one of them on the test split."""

import json
from pathlib import Path

from generalist.atomic_files import write_atomically
from generalist.config import Config, to_yaml, with_overrides
from generalist.errors import BadInput
from pipelines.trial_records import StudyRecord
from pipelines.tuning.run_search import Files
from pipelines.tuning.study import Search, best_config


def over_seeds(config: Config) -> Config:
    """Return a search over nothing but so many seeds of a configuration, all of which the strongest attack judges."""
    count = config.tuning.seeds
    seeds = [config.seed + number for number in range(count)]
    return with_overrides(
        config,
        [
            f"tuning.space={json.dumps({'seed': {'choices': seeds}})}",
            "tuning.sampler=grid",
            "tuning.pruner=none",
            f"tuning.finalists={count}",
        ],
    )


def put_down(files: Files, seeds: Search, record: StudyRecord, original: Config) -> Path:
    """Write the configuration with the best seed, to be trained, evaluated and registered; where it lies.

    Raises:
        BadInput: no seed came to its end.
    """
    if record.best is None:
        raise BadInput(f"no seed of the best parameters came to its end: {record.trials[-1].reason}")
    best = best_config(seeds, record.trials[record.best]).model_copy(update={"tuning": original.tuning})
    path = files.folder / "promoted.yaml"
    write_atomically(path, (f"# the best of {len(record.trials)} seeds\n" + to_yaml(best)).encode())
    return path
