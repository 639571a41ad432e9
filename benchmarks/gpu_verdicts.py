"""AutoAttack on a shard of the test images with the library alone, and the merging of shards."""

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from benchmarks import machine
from generalist import engine
from generalist.attacks import AttackProgress, AutoAttackResult, autoattack
from generalist.attacks.result_files import merge_files, write_verdicts
from generalist.config import digest, load
from generalist.data import load as load_data
from generalist.data import prepare
from generalist.errors import BadInput
from generalist.export import read_classifier
from generalist.records import Accuracy
from generalist.tensors import to_unit
from generalist.threats import threat_from
from generalist.untrusted import file_sha256

TO_BE_CONTINUED = 3


class _LateError(Exception):
    """The piece's time is over; what was found is stored."""


def attack(arguments: argparse.Namespace) -> Path | None:
    """Attack images `first` to `end`; gives the file of verdicts, or None where there is more to do.

    Raises:
        BadInput: there are not so many images, or the weights are none.
    """
    began = time.monotonic()
    config = load(preset=arguments.preset, overrides=arguments.overrides)
    options, on = config.evaluation, engine.device(config.training.device)
    if not arguments.data.exists():
        prepare(config.data, arguments.data, root=Path.cwd())
    dataset, first, end = load_data(arguments.data), arguments.first, arguments.end
    if not 0 <= first < end <= len(dataset.test):
        raise BadInput(f"images {first} to {end} are no range among {len(dataset.test)}")
    threat = threat_from(options.threats[0])
    facts = {
        "model": file_sha256(arguments.weights),
        "data": dataset.test_digest,
        "threat": str(threat),
        "attack": options.attack,
        "queries": options.square_queries,
        "seed": options.seed,
        "precision": arguments.precision,
    }

    def watch(own: AttackProgress) -> None:
        print(f"{own.attack}: {own.robust} of {own.n} still robust, {time.monotonic() - began:.0f} s", flush=True)
        if time.monotonic() - began > arguments.seconds:
            raise _LateError

    arguments.states.mkdir(parents=True, exist_ok=True)
    try:
        with engine.threads(config.training.threads):
            result = autoattack(
                read_classifier(arguments.weights, on=on),
                to_unit(torch.from_numpy(dataset.test.images[first:end].copy()).to(on)),
                torch.from_numpy(dataset.test.labels[first:end].copy()).to(on),
                threat,
                version=options.attack,
                seed=options.seed,
                batch_size=options.batch_size,
                square_queries=options.square_queries,
                precision=arguments.precision,
                state=arguments.states / f"{digest(facts)[:16]}-{first:05}-{end:05}.safetensors",
                watch=watch,
            )
    except _LateError:
        return None
    target: Path = arguments.out / f"verdicts-{first:05}-{end:05}.npz"
    write_verdicts(target, result, {**facts, "first": first})
    print(f"{target}: {time.monotonic() - began:.0f} s in this piece")
    return target


def show(result: AutoAttackResult, on: torch.device, file: Path | None) -> None:
    """Print natural and robust accuracy with n and interval."""
    n = len(result.robust)
    found = {name: Accuracy(correct=int(own.sum()), n=n) for name, own in _masks(result).items()}
    machine.tell({name: own.value for name, own in found.items()}, on, file, n=n, flags=list(result.flags))
    rows = [[name, str(own), str(n)] for name, own in found.items()]
    print("\n" + machine.table(["accuracy", "with 95 % interval", "n"], rows))


def _masks(result: AutoAttackResult) -> dict[str, torch.Tensor]:
    return {"natural": result.clean, "robust": result.robust}


def main(words: Sequence[str] | None = None) -> int:
    """Do what is asked; the exit code is 3 while there is more to do."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("attack", help="attack a shard")
    one.add_argument("first", type=int)
    one.add_argument("end", type=int)
    one.add_argument("--weights", type=Path, required=True)
    one.add_argument("--preset", required=True)
    one.add_argument("-S", dest="overrides", action="append", default=[], metavar="KEY=VALUE")
    one.add_argument("--data", type=Path, required=True, help="prepared data; made where it is not there")
    one.add_argument("--out", type=Path, required=True, help="folder of the verdicts")
    one.add_argument("--states", type=Path, required=True, help="folder to go on from")
    one.add_argument("--seconds", type=float, default=480, help="of a piece")
    one.add_argument("--precision", choices=["float32", "bfloat16"], default="float32", help="of the search")
    several = commands.add_parser("merge", help="put shards together")
    several.add_argument("verdicts", type=Path, nargs="+")
    for command in (one, several):
        command.add_argument("--json", type=Path, metavar="FILE", help="write the accuracies there")
    arguments = parser.parse_args(words)
    try:
        files = [attack(arguments)] if arguments.command == "attack" else arguments.verdicts
        if files == [None]:
            print("there is more to do: run the same command again")
            return TO_BE_CONTINUED
        result, _ = merge_files(files)
    except BadInput as error:
        print(error, file=sys.stderr)
        return 2
    show(result, machine.device("auto"), arguments.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
