"""What a finished training on a GPU machine leaves: weights in small files, its history, and a table of throughput."""

import shutil
from collections.abc import Sequence
from pathlib import Path

from benchmarks import machine
from benchmarks.counting import iteration, training_pass
from benchmarks.roofline import Peaks
from benchmarks.sides import Case
from generalist import engine
from generalist.config import Config, load
from generalist.data import load as load_data
from generalist.records import History

LARGEST = 15 * 2**20
"""Bytes of a file."""


def split(path: Path, folder: Path, largest: int = LARGEST) -> list[Path]:
    """Write a file's parts, `NAME.part00` and so on, at most so large each; `cat` joins them again."""
    for old in folder.glob(f"{path.name}.part*"):
        old.unlink()
    content, parts = path.read_bytes(), []
    for index, start in enumerate(range(0, len(content), largest)):
        parts.append(folder / f"{path.name}.part{index:02}")
        parts[-1].write_bytes(content[start : start + largest])
    return parts


def counted(case: Case, config: Config) -> dict[str, int]:
    """Return the floating-point operations of each expert's training for one image."""
    forward, attack = training_pass(case, 1, bytes_each=4).flops, iteration(case, 1, bytes_each=4).flops
    found = {}
    for name, expert in config.experts.items():
        options = getattr(expert.objective, "attack", None)
        found[name] = forward + (0 if options is None else int(options.steps) * attack)
    return found


def throughput(history: History, flops: dict[str, int]) -> tuple[dict[str, float], float]:
    """Return images a second by expert, and floating-point operations a second of all, over all epochs' seconds."""
    images = {name: sum(record.images for record in history.epochs if record.expert == name) for name in flops}
    seconds = {name: sum(own.seconds for own in history.epochs if own.expert == name) for name in flops}
    work = sum(images[name] * flops[name] for name in flops)
    return {name: images[name] / seconds[name] for name in flops}, work / sum(seconds.values())


def main(words: Sequence[str] | None = None) -> None:
    """Write the files and print the table."""
    parser = machine.arguments(__doc__)
    parser.add_argument("trained", type=Path, help="what `python -m generalist.training` wrote")
    parser.add_argument("--preset", required=True)
    parser.add_argument("-S", dest="overrides", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--data", type=Path, required=True, help="prepared data")
    parser.add_argument("--out", type=Path, required=True, help="folder of the results")
    arguments = parser.parse_args(words)
    overrides = tuple(arguments.overrides)
    config, dataset = load(preset=arguments.preset, overrides=overrides), load_data(arguments.data)
    history = History.model_validate_json((arguments.trained / "history.json").read_bytes())
    on = engine.device(config.training.device)
    speed, achieved = throughput(history, counted(Case(arguments.preset, dataset.shape, 1, overrides), config))
    with engine.threads(1):
        peaks = Peaks.of(on, quick=on.type == "cpu")
    best = max(peaks.products.values())
    seconds = sum(record.seconds for record in history.epochs)
    last = history.rounds[-1].validation
    lines = [["epochs", str(config.training.epochs)], ["seconds of all experts' epochs", f"{seconds:.1f}"]]
    lines += [[f"{name}, images/s", f"{own:,.0f}"] for name, own in speed.items()]
    lines += [
        ["counted arithmetic, of the fastest product measured", f"{100 * achieved / best:.1f} %"],
        [f"natural, validation, n = {last.natural.n}", str(last.natural)],
        [f"robust, validation, n = {last.robust.n}", str(last.robust)],
    ]
    name = config.deploy.removeprefix("expert:")
    parts = split(arguments.trained / f"{name}.safetensors", arguments.out)
    shutil.copyfile(arguments.trained / "history.json", arguments.out / "history.json")
    table = machine.table([arguments.preset, ""], lines)
    (arguments.out / "table.md").write_text(
        f"{table}\n\n{machine.machine(on)}, {machine.versions()}\n", encoding="utf-8"
    )
    machine.tell({"of_peak": achieved / best}, on, arguments.json, images_per_second=speed, seconds=seconds)
    print(f"{arguments.out}: {', '.join(part.name for part in parts)}, history.json, table.md\n\n{table}")


if __name__ == "__main__":
    main()
