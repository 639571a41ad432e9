"""What the pipeline around a training costs: `generalist run` against the bare loop over the same steps.

    python benchmarks/overhead.py

The pipeline runs in a fresh copy of this project, so nothing is taken from a store: DVC, Prefect, MLflow, the store,
validation, ONNX and the report, from the start of the command to its end. The time of its evaluation, which the results
tell, is set aside. The bare loop trains the same experts in one thread each, redistributes as the plan says, and
stores, measures and writes nothing; its process is already running and its data prepared. All seconds are of the wall
clock.

With --again a second training, of another seed, follows in the same project and is the one that is told: the databases
of Prefect and MLflow are there then, which the first one makes once.

Overhead is per process, round and epoch, however long a step takes. So its share of ten minutes is that of a training
of ten minutes with as many epochs; `--set model.width=128` measures a longer one.
"""

import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch

from benchmarks import machine
from generalist import engine
from generalist.config import Config, load, to_yaml, with_overrides
from generalist.data import Dataset, InMemorySamples, prepare, steps_per_epoch
from generalist.data import epoch as batches
from generalist.data import load as load_data
from generalist.evaluation import measure
from generalist.expert_state import ExpertSpec, initial_state
from generalist.experts import Expert
from generalist.mixing import mixing_schedules, weighted_sum
from generalist.tensors import Weights
from generalist.training import plan

PROJECT = Path(__file__).resolve().parent.parent
QUICK = (
    "training.epochs=4",
    "mixing.warm_up=2",
    "evaluation.attack=quick",
    "evaluation.images=32",
    "evaluation.square_queries=10",
)
TEN_MINUTES = 600.0


@dataclass(frozen=True)
class Bare:
    """What the bare loop took and came to.

    Attributes:
        seconds: of the loop.
        validation: those that measuring every stored learner on the validation split would add.
        learners: weights of each expert at its end.
    """

    seconds: float
    validation: float
    learners: dict[str, Weights]


def bare(config: Config, dataset: Dataset) -> Bare:
    """Train as the plan says, with nothing around it.

    Raises:
        ValueError: the experts meet between steps, which this loop does not.
    """
    rounds = plan(config)
    if any(round_.coupled for round_ in rounds):
        raise ValueError("mixing.interval must be in epochs here")
    experts = _experts(config, dataset)
    data = InMemorySamples.of(dataset.train)
    began = time.perf_counter()
    with ThreadPoolExecutor(len(experts)) as pool:
        for round_ in rounds:
            epochs = range(round_.start, round_.stop)
            list(
                pool.map(
                    lambda own, these=epochs: _advance(own, data, these, config.training.threads), experts.values()
                )
            )
            if round_.redistribute:
                weights = weighted_sum(
                    [expert.share.weights for expert in experts.values() if expert.share is not None]
                )
                for own in experts.values():
                    own.take(weights, reset_momentum=config.mixing is not None and config.mixing.momentum == "reset")
    seconds = time.perf_counter() - began
    learners = sum(len(round_.cuts) for round_ in rounds) * (len(experts) + (config.mixing is not None))
    validation = learners * _measuring(config, dataset, next(iter(experts.values())))
    return Bare(seconds, validation, {name: own.state().learner for name, own in experts.items()})


def _experts(config: Config, dataset: Dataset) -> dict[str, Expert]:
    training = config.training
    total = steps_per_epoch(len(dataset.train), training.batch_size) * training.epochs
    weights = engine.initial_weights(config.model, dataset.shape, config.seed)
    by_expert = mixing_schedules(config, total)
    found = {}
    for name, options in config.experts.items():
        spec = ExpertSpec(options, by_expert.get(name), config.seed, training.batch_size, total, config.engine)
        state = initial_state({key: tensor.clone() for key, tensor in weights.items()}, spec)
        found[name] = Expert(spec, state, config.model, dataset.shape, engine.device(training.device))
    return found


def _advance(expert: Expert, data: InMemorySamples, epochs: range, threads: int) -> None:
    spec = expert.spec
    per_epoch = steps_per_epoch(len(data), spec.batch_size)
    with engine.threads(threads):
        for epoch in epochs:
            order = batches(data, seed=spec.seed, epoch=epoch, batch_size=spec.batch_size, augment=spec.options.augment)
            for index, batch in enumerate(order):
                expert.step(batch, epoch * per_epoch + index + 1, index)
            expert.epoch = epoch + 1


def _measuring(config: Config, dataset: Dataset, expert: Expert) -> float:
    """Return the seconds of one measurement on the validation split."""
    options, times = config.evaluation, []
    on = engine.device(config.training.device)
    model = engine.model_with(config.model, dataset.shape, expert.state().weights, on=on)
    with engine.threads(config.training.threads):
        for _ in range(3):
            began = time.perf_counter()
            measure(model, dataset.validation, threats=options.headline_threats, attack=options.selection_attack)
            times.append(time.perf_counter() - began)
    return statistics.median(times)


def project(folder: Path, config: Config) -> None:
    """Make a fresh copy of this project, with a repository of its own and another configuration."""
    listed = _git("ls-files", "-z", "--cached", "--others", "--exclude-standard", folder=PROJECT).split("\0")
    for name in listed:
        if name and (PROJECT / name).is_file() and name != "dvc.lock":
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(PROJECT / name, folder / name)
    (folder / "params.yaml").write_text(to_yaml(config), encoding="utf-8")
    _git("init", "--quiet", folder=folder)
    _git("add", ".", folder=folder)
    author = ["-c", "user.name=benchmark", "-c", "user.email=benchmark@localhost", "-c", "commit.gpgsign=false"]
    _git(*author, "commit", "--quiet", "--message", "copy", folder=folder)


def _git(*words: str, folder: Path) -> str:
    command = ["git", *words]
    return subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True).stdout  # noqa: S603


@dataclass(frozen=True)
class Whole:
    """Seconds of `generalist run`: all, of the evaluation, before the first stored state, after the last; CPU time."""

    seconds: float
    evaluation: float
    before: float
    after: float
    cpu: float


def pipeline(folder: Path) -> Whole:
    """Run `generalist run` in a copy."""
    programs = Path(sys.executable).parent
    path = f"{programs}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    environment = {**os.environ, "PYTHONPATH": str(folder), "PATH": path}
    for name in ("PREFECT_API_URL", "MLFLOW_TRACKING_URI"):
        environment.pop(name, None)
    log = folder / "log.txt"
    began, since, used = time.perf_counter(), time.time(), _children()
    with log.open("w") as file:
        words = [programs / "generalist", "run"]
        code = subprocess.run(words, cwd=folder, env=environment, stdout=file, stderr=file, check=False).returncode  # noqa: S603
    seconds = time.perf_counter() - began
    if code:
        raise SystemExit(f"{log.read_text()}\n`generalist run` failed; it needs the environment of `make setup`")
    evaluation = json.loads((folder / "outputs" / "evaluation.json").read_text(encoding="utf-8"))
    store = folder / ".generalist" / "store"
    states = [path for path in store.rglob("*.safetensors") if "attacks" not in path.relative_to(store).parts]
    written = sorted(own for path in states if (own := path.stat().st_mtime - since) > 0)
    after, cpu = seconds - written[-1], _children() - used
    return Whole(seconds, float(evaluation["seconds"]), before=written[0], after=after, cpu=cpu)


def _children() -> float:
    """Return the CPU seconds of processes that this one started and that have ended."""
    own = resource.getrusage(resource.RUSAGE_CHILDREN)
    return own.ru_utime + own.ru_stime


def told(whole: Whole, loop: Bare) -> tuple[dict[str, float], dict[str, float]]:
    """Return ratios, and seconds by what they are of."""
    overhead = whole.seconds - whole.evaluation - loop.seconds
    training = whole.seconds - whole.before - whole.after
    seconds = {
        "pipeline": whole.seconds,
        "its evaluation": whole.evaluation,
        "bare training loop": loop.seconds,
        "overhead": overhead,
        "- until the first state is stored": whole.before,
        "- from the first state to the last, beyond the bare loop": training - loop.seconds,
        "  - of which measuring learners on the validation split takes, one after another": loop.validation,
        "- after the last state, without the evaluation": whole.after - whole.evaluation,
        "CPU time of the pipeline's processes": whole.cpu,
    }
    ratios = {
        "pipeline_to_bare": (whole.seconds - whole.evaluation) / loop.seconds,
        "share_of_ten_minutes": overhead / TEN_MINUTES,
    }
    return ratios, seconds


def main(words: Sequence[str] | None = None) -> None:
    """Print seconds and ratios."""
    parser = machine.arguments(__doc__, quick="under a minute: 4 epochs, a short evaluation")
    parser.add_argument("--again", action="store_true", help="tell of a second training in the same project")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="an override of params.yaml")
    arguments = parser.parse_args(words)
    config = load(PROJECT / "params.yaml", overrides=[*(QUICK if arguments.quick else ()), *arguments.set])
    with tempfile.TemporaryDirectory(prefix="overhead.") as name:
        folder = Path(name)
        prepare(config.data, folder / "prepared", root=PROJECT)
        loop = bare(config, load_data(folder / "prepared"))
        (folder / "project").mkdir()
        project(folder / "project", config)
        whole = pipeline(folder / "project")
        if arguments.again:
            other = with_overrides(config, [f"seed={config.seed + 1}"])
            (folder / "project" / "params.yaml").write_text(to_yaml(other), encoding="utf-8")
            whole = pipeline(folder / "project")
    ratios, seconds = told(whole, loop)
    print(machine.table(["what", "seconds"], [[name, f"{own:.1f}"] for name, own in seconds.items()]))
    print(
        f"\n{config.training.epochs} epochs: the pipeline without its evaluation takes"
        f" {ratios['pipeline_to_bare']:.2f} times the bare loop; its overhead is"
        f" {100 * ratios['share_of_ten_minutes']:.1f} % of ten minutes"
    )
    machine.tell(ratios, torch.device("cpu"), arguments.json, seconds=seconds)


if __name__ == "__main__":
    main()
