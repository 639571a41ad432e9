"""Several processes inside one expert: the result of one process, and the same bits in all of them."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor

from generalist import engine
from generalist.config.section import part_names
from generalist.data import Dataset
from generalist.errors import BadInput
from generalist.experts import Expert
from generalist.platform_fingerprint import fingerprint
from generalist.randomness import PartOfBatch, exponential_like, generator, normal_like, uniform_like
from generalist.store import tensors_digest
from generalist.tensors import Batch, Images, Weights
from generalist.threats import Threat
from generalist.training import run
from generalist.training.shared_store import SharedStore
from tests.ranks import forking, together
from tests.training_factory import digits, first, small

pytestmark = pytest.mark.long

TOLERANCE = 1e-5
"""Of one more than the norm of each tensor, as `docs/operations.md` states it for a few steps."""

L2 = "threat: {norm: l2, eps: 0.5}, attack: {name: pgd, steps: 2, step_size: null, random_start: true}"
ADVERSARIAL = f"{{name: adversarial, {L2}}}"
ONE = "experts={{robust: {{objective: {}, optimizer: {{name: sgd, lr: 1e-3, momentum: 0.9}}}}}}"
DRAWN = "{name: union, combine: random, threats: [{norm: l2, eps: 0.5}, {norm: l2, eps: 0.3}], attack: {steps: 2}}"
SGD = "optimizer: {name: sgd, lr: 1e-3, momentum: 0.9}"
PEERS = (
    f"experts={{robust: {{objective: {{name: mutual, base: {DRAWN}}}, {SGD}}},"
    f" other: {{objective: {{name: mutual, base: {ADVERSARIAL}}}, {SGD}}}}}"
)
ALONE = ("mixing=null", "deploy=expert:robust", "training.epochs=1")
TRAININGS = {
    "augmented": (f"experts.robust.objective={ADVERSARIAL}", "experts.robust.augment=[crop, flip]"),
    "batchnorm": ("model={name: resnet18, width: 2}", ONE.format(ADVERSARIAL), *ALONE),
    "peers": ("model={name: resnet18, width: 2}", PEERS, *ALONE),
    "two views": (f"experts.robust.objective={{name: consistency, {L2}}}", "experts.robust.augment=[crop, flip]"),
    "one step": (ONE.format("{name: gat, threat: {norm: l2, eps: 0.5}}"), *ALONE),
    "trades": (ONE.format(f"{{name: trades, {L2}, beta: 6}}"), *ALONE),
}
"""L2 attacks take no signs, which rounding could turn."""

gathered = dist.all_gather


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Digits: 361 images to train on, 40 to measure with."""
    whole = digits(tmp_path_factory.mktemp("digits") / "data")
    return replace(whole, train=first(whole.train, 361), validation=first(whole.validation, 40))


def learners(name: str, dataset: Dataset, store: Path, group: engine.ProcessGroup) -> dict[str, Weights]:
    """Return what a training ends with; its batches have 179 images, the last one of an epoch has 3."""
    config = small("training.batch_size=179", "training.epochs=2", "mixing.warm_up=1", *TRAININGS[name])
    return run(config, dataset, SharedStore(store, group)).learners


def digests(found: dict[str, Weights]) -> dict[str, str]:
    """Return what must be the same to the bit."""
    return {name: tensors_digest(weights) for name, weights in found.items()}


# --- a training --------------------------------------------------------------------------------


@forking
@pytest.mark.parametrize("name", TRAININGS)
def test_two_processes_train_what_one_does(name: str, dataset: Dataset, tmp_path: Path) -> None:
    """All learners agree to the stated tolerance, random starts and augmentation included."""
    alone = learners(name, dataset, tmp_path / "alone", engine.ProcessGroup())
    one, two = together(tmp_path / "ranks", lambda group: learners(name, dataset, tmp_path / "shared", group))
    assert digests(one) == digests(two)
    for learner, weights in alone.items():
        for key, tensor in weights.items():
            difference = (one[learner][key].double() - tensor.double()).norm()
            assert difference <= TOLERANCE * (1 + tensor.double().norm()), (learner, key)
    assert digests(one) != digests(alone)  # nobody may take one for the other


@forking
def test_the_same_command_gives_the_same_bits_in_all_processes(dataset: Dataset, tmp_path: Path) -> None:
    """Three processes, twice; weights of the living experts, not those that the first process has stored."""

    def living(group: engine.ProcessGroup) -> list[str]:
        seen: list[str] = []
        differentiate, update = Expert.differentiate, Expert.update

        def measured(self: Expert, batch: Batch, number: int, index: int, *attacked: Any) -> tuple[Tensor, Tensor]:
            loss, correct = differentiate(self, batch, number, index, *attacked)
            seen.append(tensors_digest({"loss": loss, "correct": correct}))
            return loss, correct

        def updated(self: Expert, number: int) -> None:
            update(self, number)
            seen.append(tensors_digest(self.weights))

        Expert.differentiate = measured  # type: ignore[method-assign]  # in a process that ends with this function
        Expert.update = updated  # type: ignore[method-assign]
        learners("batchnorm", dataset, tmp_path / f"store {turn}", group)
        return seen

    turns = []
    for turn in (1, 2):
        turns += together(tmp_path / f"turn {turn}", living, size=3)
    assert len(turns[0]) == 6  # gradients and weights of three steps
    assert all(seen == turns[0] for seen in turns)


@forking
def test_only_the_first_process_has_the_store(dataset: Dataset, tmp_path: Path) -> None:
    """The others may be on machines that can't see its folder; what is there is taken by all, what is damaged by none."""

    def train(group: engine.ProcessGroup) -> dict[str, str]:
        return digests(learners("augmented", dataset, tmp_path / f"store {group.rank}", group))

    one, two = together(tmp_path / "ranks", train)
    assert one == two
    assert not (tmp_path / "store 1").exists()
    assert together(tmp_path / "again", train) == [one, one]
    for path in (tmp_path / "store 0").glob("*/*.safetensors"):
        path.write_bytes(path.read_bytes()[:-1])
    assert together(tmp_path / "mended", train) == [one, one]


@forking
def test_attacks_ask_no_other_process(dataset: Dataset, tmp_path: Path) -> None:
    """The number of messages is that of the steps, however many gradients an attack takes."""

    def messages(group: engine.ProcessGroup) -> int:
        count = 0

        def counted(parts: list[Tensor], own: Tensor) -> None:
            nonlocal count
            count += 1
            gathered(parts, own)

        dist.all_gather = counted
        learners("augmented", dataset, tmp_path / "store", group)
        return count

    assert together(tmp_path / "ranks", messages) == [12, 12]  # 2 experts, 2 epochs of 3 batches


@forking
def test_keys_of_states_tell_how_many_processes_trained(tmp_path: Path) -> None:
    """Alone, they are what they always were; and each process measures by itself."""
    alone = fingerprint("cpu", 1)
    assert "processes" not in alone
    told = together(tmp_path, lambda _: (fingerprint("cpu", 1), fingerprint("cpu", 1, evaluation=True)))
    assert told == [({**alone, "processes": 2}, fingerprint("cpu", 1, evaluation=True))] * 2


@forking
def test_the_first_process_answers_for_all(tmp_path: Path) -> None:
    """Its answer, or its complaint; the others are not asked."""

    def asked(group: engine.ProcessGroup) -> tuple[int, str]:
        def refuse() -> int:
            raise BadInput(f"said by {group.rank}")

        with pytest.raises(BadInput) as caught:
            group.broadcast_from_rank0(refuse)
        return group.broadcast_from_rank0(lambda: group.rank), str(caught.value)

    assert together(tmp_path, asked, size=3) == [(0, "said by 0")] * 3


@forking
def test_a_batch_with_fewer_images_than_processes_is_refused(tmp_path: Path) -> None:
    """In one sentence; every other batch is divided without a gap."""

    def divided(group: engine.ProcessGroup) -> list[list[int]]:
        with pytest.raises(BadInput, match=r"a batch of 2 images can't be shared by 3 processes: choose"):
            group.rows(2)
        return [list(range(count))[group.rows(count)] for count in range(3, 12)]

    for parts in zip(*together(tmp_path, divided, size=3), strict=True):
        assert [row for part in parts for row in part] == list(range(parts[-1][-1] + 1))
        assert max(map(len, parts)) - min(map(len, parts)) <= 1


# --- random numbers ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "draw",
    [
        *(
            lambda own, numbers, norm=norm: Threat(norm, 0.3).random_start(own, numbers)
            for norm in part_names("threats")
        ),
        lambda own, numbers: normal_like(own, std=0.1, generator=numbers),
        lambda own, numbers: uniform_like(own, -1.0, 2.0, generator=numbers),
        lambda own, numbers: exponential_like(own, generator=numbers),
    ],
    ids=[*part_names("threats"), "normal", "uniform", "exponential"],
)
def test_parts_of_a_batch_draw_what_the_whole_draws(draw: Callable[[Images, torch.Generator], Images]) -> None:
    """To the bit, and in the same order where several are drawn."""
    pixels = torch.rand(7, 3, 5, 4, generator=generator(0, "order"))
    numbers = generator(1, "attack", 2, 3)
    parts = [(rows, PartOfBatch(numbers, rows, len(pixels))) for rows in (slice(0, 3), slice(3, 7))]
    for _ in range(2):
        whole = draw(pixels, numbers)
        assert torch.equal(torch.cat([draw(pixels[rows], own) for rows, own in parts]), whole)


def test_numbers_for_other_images_than_ones_own_are_refused() -> None:
    """An objective that draws for something else would get numbers that no single process sees."""
    part = PartOfBatch(generator(0, "attack"), slice(0, 3), 7)
    with pytest.raises(ValueError, match="numbers for 4 images, but this process has 3"):
        normal_like(torch.zeros(4, 1, 2, 2), generator=part)


def test_a_single_process_pays_nothing() -> None:
    """The batch, the generator, the model and the numbers are those that went in."""
    group = engine.group()
    batch = Batch(torch.zeros(2, 1, 8, 8), torch.zeros(2, dtype=torch.int64), torch.arange(2))
    numbers = generator(0, "attack")
    part, draw = group.part(batch, numbers)
    assert part is batch
    assert draw is numbers
    assert group.share(batch, batch) is None
    loss, correct = torch.ones(()), torch.ones((), dtype=torch.int64)
    assert group.sums([], loss, correct) == (loss, correct)
