"""One training of a comparison, alone in its process, so that the memory it took can be told.

python -m pipelines.end_with_parent pipelines.comparison.worker FOLDER KEY
"""

import datetime
import platform
import resource
import sys
import time
from pathlib import Path

import torch

from generalist import engine
from generalist.atomic_files import write_atomically
from generalist.comparison import ComparedTraining
from generalist.errors import BadInput
from generalist.evaluation import learner_names, protocol
from generalist.records import LearnerEvaluation
from generalist.training import Outcome, Trainer, run
from pipelines import steps
from pipelines.comparison.jobs import Folder, Job, Plan
from pipelines.workspace import Workspace, code_version, quiet_telemetry


def work(folder: Folder, job: Job, workspace: Workspace) -> None:
    """Train through the store, evaluate, and write what it came to."""
    config = engine.with_device(job.configuration())
    training = steps.training(config, workspace)
    outcome = run(config, training.dataset, training.store)
    since = time.perf_counter()
    learners = tuple(
        _evaluated(training, outcome, name) for name in learner_names([config.deployed], config.evaluation)
    )
    code = code_version()
    told = ComparedTraining(
        title=job.title,
        curve=job.curve,
        seed=job.seed,
        epochs=config.training.epochs,
        command=job.command,
        passes=job.passes,
        training_seconds=round(sum(epoch.seconds for epoch in outcome.history.epochs), 2),
        evaluation_seconds=round(time.perf_counter() - since, 2),
        memory=_most_memory(config.training.device),
        learners=learners,
        protocol=protocol(config, training.dataset),
        date=datetime.datetime.now(tz=datetime.UTC).date(),
        machine=f"{platform.machine()}, {engine.told(config.training.device)}, torch {torch.__version__}",
        commit=f"{code.commit or 'unknown'}{' with changes' if code.dirty else ''}",
    )
    write_atomically(folder.training(job), told.model_dump_json(indent=1).encode())


def _evaluated(training: Trainer, outcome: Outcome, name: str) -> LearnerEvaluation:
    parts = [steps.evaluate_shard(training, outcome.learners, name, rows) for rows in steps.shards(training)]
    return steps.combine_shards(training, outcome, name, parts).evaluation


def _most_memory(device: str) -> int:
    """Return the most bytes that this process held, on the GPU where it computed there."""
    if device == "cuda":
        return int(torch.cuda.max_memory_allocated())
    status = Path("/proc/self/status")
    if status.exists():  # what `getrusage` tells on Linux includes the process that started this one
        told = dict(line.split(":", 1) for line in status.read_text(encoding="ascii").splitlines())
        return 1024 * int(told["VmHWM"].split()[0])
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def main(words: list[str]) -> int:
    """Run the program."""
    quiet_telemetry()
    folder, key = Folder(Path(words[0])), words[1]
    try:
        job = next(job for job in Plan.read(folder.plan).jobs if job.key == key)
        work(folder, job, Workspace.find())
    except BadInput as error:
        sys.stderr.write(f"{error}\n")
        return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
