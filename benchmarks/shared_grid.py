"""What a grid of t' and c costs where its cells share their work, and that each has the bits of a training of its own.

    python benchmarks/shared_grid.py

The grid of `generalist ablate warm-up-and-interval`, cell after cell into one empty store; then a training of each
cell from an empty store of its own. Counts epochs of experts, and compares the weights of every candidate and of
every expert at the end.
"""

import tempfile
import time
from pathlib import Path

import torch

from benchmarks.machine import arguments, tell
from benchmarks.trainings import prepared
from generalist.config import Config
from generalist.data import Dataset
from generalist.store import Store, tensors_digest
from generalist.training import Sharing, Trainer
from pipelines.tuning import ablation
from pipelines.tuning.space import Space
from pipelines.tuning.trial_training import SharingRunner, as_trained, training_of_trial


def main() -> None:
    """Print the counts, and whether bits agree."""
    parser = arguments(__doc__, quick="every fifth cell is compared, not each")
    parser.add_argument("--name", default="warm-up-and-interval", help="the ablation")
    parser.add_argument("--set", action="append", default=[], help="an override, such as training.epochs=20")
    given = parser.parse_args()
    space = Space(ablation.read(given.name, preset=None, overrides=given.set))
    dataset = prepared(space.config, f"grid-{space.config.data.name}")
    cells = [space.at(point) for point in space.grid()]
    asked = trained = 0
    found: list[list[str]] = []
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        for config in cells:
            own = training_of_trial(space, config, dataset, Store(Path(folder)), Path())
            found.append(_bits(own))
            asked, trained = asked + own.work.asked, trained + own.work.trained
        together = time.perf_counter() - began
    print(f"{len(cells)} cells: {asked} epochs of experts asked for, {trained} trained: {trained / asked:.1%}")
    compared = range(0, len(cells), 5 if given.quick else 1)
    began = time.perf_counter()
    other = [cell for cell in compared if _alone(cells[cell], dataset) != found[cell]]
    alone = (time.perf_counter() - began) * len(cells) / len(compared)
    print(
        f"{len(compared)} of them trained alone: {len(compared) - len(other)} to the same bits, {len(other)} to others"
    )
    print(f"{together:.0f} s together, {alone:.0f} s alone: {alone / together:.2f} times as long")
    ratios = {"trained_of_asked": trained / asked, "alone_of_together": alone / together, "different": len(other)}
    tell(ratios, torch.device("cpu"), given.json)


def _alone(config: Config, dataset: Dataset) -> list[str]:
    with tempfile.TemporaryDirectory() as folder:
        return _bits(SharingRunner(Trainer(as_trained(config), dataset, Store(Path(folder)), sharing=Sharing())))


def _bits(own: SharingRunner) -> list[str]:
    """Return the digests of all candidates, and of the experts at the end."""
    ended = list(own.rounds())
    experts = own.training.learners(ended[-1].last).values()
    return [*(one.candidate.record.digest for one in ended), *(tensors_digest(weights) for weights in experts)]


if __name__ == "__main__":
    main()
