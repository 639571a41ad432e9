"""Training with no orchestration: `python -m generalist.training`, or by several processes under `torchrun`."""

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

from generalist import engine
from generalist.atomic_files import check_writable, write_atomically
from generalist.config import Config
from generalist.config import load as load_config
from generalist.data import Dataset, Manifest, last_batch, prepare, request_digest
from generalist.data import load as load_data
from generalist.errors import BadInput
from generalist.export import write_weights
from generalist.records import EpochRecord, GlobalRecord, Measured
from generalist.training.facts import Fact
from generalist.training.run import Outcome, run
from generalist.training.shared_store import SharedStore

DONE, WRONG_INPUT, TO_BE_CONTINUED, STOPPED = 0, 2, 3, 130
"""Exit codes."""

Tell = Callable[[str], None]


class _LateError(Exception):
    """The seconds that were given are over."""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise BadInput(f"{message}; see python -m generalist.training --help")


def main(arguments: Sequence[str] | None = None) -> int:
    """Train as the arguments say; returns the exit code."""
    began = time.monotonic()
    try:
        with engine.join_launched() as group:
            return _train(_parser().parse_args(arguments), group, began)
    except BadInput as error:
        sys.stderr.write(f"{error}\n")
        return WRONG_INPUT
    except KeyboardInterrupt:
        sys.stderr.write("stopped; the same command goes on from what is stored\n")
        return STOPPED


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="python -m generalist.training", description=__doc__, allow_abbrev=False)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--params", type=Path, metavar="FILE", help="the configuration")
    what.add_argument("--preset", metavar="NAME", help="a configuration that comes with the project")
    parser.add_argument("-S", "--set", action="append", default=[], metavar="KEY=VALUE", help="override, as often as")
    parser.add_argument("--data", type=Path, required=True, metavar="FOLDER", help="prepared data; made if missing")
    parser.add_argument("--store", type=Path, required=True, metavar="FOLDER", help="states, from which to go on")
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="for weights and history.json")
    parser.add_argument("--seconds", type=float, metavar="N", help="stop at the first record after N seconds")
    return parser


def _train(options: argparse.Namespace, group: engine.ProcessGroup, began: float) -> int:
    check_writable(options.out)
    config = engine.with_device(load_config(options.params, preset=options.preset, overrides=options.set))
    if group.size > 1 and config.training.processes != "one":
        raise BadInput(
            f"torchrun has started {group.size} processes for every expert, and training.processes asks for others:"
            " set training.processes to one"
        )
    group.settle(engine.device(config.training.device))
    engine.check_compiler(config.engine, config.training.device)
    dataset = _data(config, options.data, group)
    tell: Tell = _say if group.rank == 0 else _nothing

    def late() -> bool:
        return options.seconds is not None and time.monotonic() - began >= options.seconds

    def tell_or_stop(fact: Fact) -> None:
        tell(_line(fact, config.training.epochs))
        if group.broadcast_from_rank0(late):
            raise _LateError

    try:
        outcome = run(config, dataset, SharedStore(options.store, group), tell_or_stop)
    except _LateError:
        tell(f"stopped after {options.seconds:g} seconds; the same command goes on from what is stored")
        return TO_BE_CONTINUED
    if group.rank == 0:
        _write(outcome, config, dataset, options.out)
    tell(f"{options.out}: {', '.join(outcome.learners)}; chosen after epoch {outcome.chosen.epoch}")
    return DONE


def _data(config: Config, folder: Path, group: engine.ProcessGroup) -> Dataset:
    """Return prepared data; where there is none, the first process makes it, in a folder that all processes see."""

    def ready() -> None:
        if not folder.exists():
            prepare(config.data, folder, root=Path.cwd())
        if Manifest.read(folder).request_digest != request_digest(config.data):
            raise BadInput(f"{folder} was prepared by another section `data`: name another folder as --data")

    group.broadcast_from_rank0(ready)
    dataset = load_data(folder)
    images, size = len(dataset.train), config.training.batch_size
    for batch in (min(size, images), last_batch(images, size)):  # the first of an epoch, and its last
        group.rows(batch)
    return dataset


def _write(outcome: Outcome, config: Config, dataset: Dataset, folder: Path) -> None:
    for name, weights in outcome.learners.items():
        path = folder / f"{name}.safetensors"
        write_weights(path, weights, model=config.model, shape=dataset.shape, data=dataset.digest)
    write_atomically(folder / "history.json", outcome.history.model_dump_json(indent=1).encode())


def _line(fact: Fact, epochs: int) -> str:
    if isinstance(fact, EpochRecord):
        speed = fact.images / max(fact.seconds, 1e-9)
        text = f"{fact.expert}: epoch {fact.epoch}/{epochs}, loss {fact.loss:.4f}, accuracy {100 * fact.accuracy:.1f} %"
        return f"{text}, {speed:,.0f} images/s{_measured(fact.validation)}"
    if isinstance(fact, GlobalRecord):
        return f"global learner: epoch {fact.epoch}/{epochs}{_measured(fact.validation)}"
    return f"round {fact.round}, epoch {fact.epoch}/{epochs}{_measured(fact.validation)}"


def _measured(accuracies: Measured | None) -> str:
    if accuracies is None:
        return ""
    return f", validation: natural {100 * accuracies.natural.value:.1f} %, robust {100 * accuracies.robust.value:.1f} %"


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def _nothing(line: str) -> None:
    """Say nothing, as all processes but the first do."""


if __name__ == "__main__":
    sys.exit(main())
