"""Experts that train in a part of the epochs: they begin at another one's weights, are taught by it, stand still."""

import json
from pathlib import Path
from typing import ClassVar, Literal

import pytest
import torch
from pydantic import TypeAdapter
from pydantic_core import to_jsonable_python
from torch import Tensor
from torch.nn import functional as F

from generalist.config import Config
from generalist.data import Dataset
from generalist.errors import BadInput
from generalist.objectives import Context, Learner, Loss, Objective
from generalist.records import EpochRecord
from generalist.store import Store
from generalist.tensors import Batch, Images
from generalist.training import CheckpointRef, Trainer
from generalist.training.plan import plan
from tests.training_factory import abandon, digests, finish, small

ALONE = ("mixing=null", "deploy=expert:robust")
SHORT = "experts.natural.sequence={stop: 2}"
TAUGHT = (
    SHORT,
    "experts.robust.sequence={start: 2, start_from: natural, teacher: natural}",
    "experts.robust.objective={name: anchored, threat: {norm: linf, eps: 0.1}, attack: {steps: 2}}",
)
FOLLOWING = (SHORT, "experts.robust.sequence={start: 2, start_from: natural}")
STARTED = (*FOLLOWING, "experts.robust.optimizer.lr=1e-9", "experts.robust.optimizer.weight_decay=0")


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (("experts.robust.sequence={start: 5}",), "experts.robust.sequence goes from epoch 5 to 5 of 5"),
        (("experts.robust.sequence={stop: 9}",), "experts.robust.sequence goes from epoch 0 to 9 of 5"),
        (
            ("experts.robust.sequence={start: 2, start_from: other}",),
            "names 'other', but the other experts are: natural",
        ),
        (("experts.robust.sequence={start_from: natural}",), "natural, its start_from, begins after 0: raise"),
        (TAUGHT[1:], "robust begins after 2 epochs, but natural, its teacher, ends after 5"),
        ((*TAUGHT, "experts.robust.sequence.teacher=null"), "sequence.teacher is needed by the objective anchored"),
        ((*TAUGHT, "experts.robust.sequence.start_from=null"), "sequence.start_from is needed by the objective"),
        (TAUGHT[:2], "sequence.teacher is without effect on the objective adversarial"),
        ((SHORT, "mixing.burst=true"), "experts can't meet between steps"),
        ((SHORT, "mixing.interval={steps: 3}"), "experts can't meet between steps"),
    ],
)
def test_a_sequence_that_can_not_be_is_refused(overrides: tuple[str, ...], sentence: str) -> None:
    """With the expert, and what to mend."""
    with pytest.raises(BadInput, match=sentence):
        small(*(() if "mixing" in overrides[-1] else ALONE), *overrides)


def test_rounds_end_where_experts_begin_and_end() -> None:
    """In the others an expert stands still; without mixing nothing is redistributed."""
    rounds = plan(small(*ALONE, *TAUGHT, "training.checkpoint_epochs=5"))
    assert [(round_.start, round_.stop) for round_ in rounds] == [(0, 2), (2, 5)]
    assert [own.still for own in rounds] == [{"robust"}, {"natural"}]
    assert [own.beginning for own in rounds] == [{"robust"}, set()]
    mixed = plan(small(*TAUGHT, "mixing.warm_up=3"))
    assert [(own.stop, own.redistribute) for own in mixed] == [(2, False), (3, True), (4, True), (5, False)]


def test_an_expert_that_ends_early_is_one_of_a_shorter_training(dataset: Dataset, tmp_path: Path) -> None:
    """To the bit, its schedule along its own steps; who begins at its weights has them."""
    falling = "experts.natural.schedule=[[0, 1], [1, 0.1]]"
    facts, both = finish(small(*ALONE, *STARTED, falling), dataset, tmp_path / "both")
    short = ("training.epochs=2", "mixing=null", "deploy=expert:natural", falling)
    _, alone = finish(small(*short), dataset, tmp_path / "alone")
    assert digests(both)["natural"] == digests(alone)["natural"]
    for name, own in both.learners["robust"].items():
        torch.testing.assert_close(own, alone.learners["natural"][name], rtol=0, atol=1e-6)
    trained = [(fact.expert, fact.epoch) for fact in facts if isinstance(fact, EpochRecord)]
    assert trained == [("natural", 1), ("natural", 2), ("robust", 3), ("robust", 4), ("robust", 5)]


@pytest.mark.parametrize("mixing", [ALONE, ()])
def test_a_sequence_goes_on_to_the_same_bits(dataset: Dataset, tmp_path: Path, mixing: tuple[str, ...]) -> None:
    """However it is cut, wherever it was left; mixed, too."""
    config = small(*mixing, *TAUGHT)
    whole = digests(finish(config, dataset, tmp_path / "whole")[1])
    abandon(config, dataset, tmp_path / "left", after=6)
    assert digests(finish(config, dataset, tmp_path / "left")[1]) == whole
    if not mixing:
        rare = finish(small(*mixing, *TAUGHT, "training.checkpoint_epochs=4"), dataset, tmp_path / "rare")[1]
        assert digests(rare)["natural"] == whole["natural"]


def test_a_position_with_a_teacher_travels_as_plain_values(dataset: Dataset, tmp_path: Path) -> None:
    """As Prefect's tasks get it."""
    ends = Trainer(small(*ALONE, *TAUGHT), dataset, Store(tmp_path)).ends()[5]
    assert ends["robust"].teacher is not None
    carried = json.loads(json.dumps(to_jsonable_python(ends)))
    assert TypeAdapter(dict[str, CheckpointRef]).validate_python(carried) == ends


@pytest.mark.long
def test_processes_know_the_teacher(dataset: Dataset, tmp_path: Path) -> None:
    """The same bits, with a process for each expert."""
    whole = digests(finish(small(*ALONE, *TAUGHT), dataset, tmp_path / "one")[1])
    apart = finish(small(*ALONE, *TAUGHT, "training.processes=experts"), dataset, tmp_path / "two")[1]
    assert digests(apart) == whole


def test_who_has_ended_is_mixed_and_handed_nothing(dataset: Dataset, tmp_path: Path) -> None:
    """The natural expert keeps its weights, and its share goes on: the global learner knows both."""
    _, mixed = finish(small(*FOLLOWING, "mixing.warm_up=3"), dataset, tmp_path / "mixed")
    _, alone = finish(small("training.epochs=2", "mixing=null", "deploy=expert:natural"), dataset, tmp_path / "alone")
    assert digests(mixed)["natural"] == digests(alone)["natural"]
    assert digests(mixed)["global"] not in (digests(mixed)["natural"], digests(mixed)["robust"])


class Remembering(Objective):
    """Cross-entropy weighed by how often each class was seen, and pulled to what the expert's own average says."""

    needs: ClassVar[frozenset[str]] = frozenset({"averaging"})
    name: Literal["remembering"] = "remembering"

    def tables(self, classes: int, images: int) -> dict[str, Tensor]:
        return {"seen": torch.ones(classes), "last": torch.zeros(images, dtype=torch.int64)}

    def attacked(self, context: Context, learner: Learner, batch: Batch) -> Images:
        context.tables["seen"].index_add_(0, batch.labels, torch.ones(len(batch)))
        context.tables["last"][batch.ids] = context.epoch
        return batch.images

    def loss(self, context: Context, learner: Learner, batch: Batch, attacked: Images) -> Loss:
        assert learner.average is not None
        raw = learner.model(batch.images)
        weights = 1 / context.tables["seen"]
        pull = (raw - learner.average(batch.images)).square().mean()
        return Loss(F.cross_entropy(raw, batch.labels, weight=weights / weights.mean()) + pull, raw)


AVERAGED = ("training.epochs=3", "mixing.warm_up=1", "experts.robust.averaging=0.9")


def remembering() -> Config:
    """Return a configuration whose robust expert remembers."""
    config = small(*AVERAGED)
    experts = {**config.experts, "robust": config.experts["robust"].model_copy(update={"objective": Remembering()})}
    return config.model_copy(update={"experts": experts})


def test_what_an_objective_remembers_is_part_of_the_state(dataset: Dataset, tmp_path: Path) -> None:
    """Stopped after any epoch, it goes on with its tables to the same bits."""
    whole = digests(finish(remembering(), dataset, tmp_path / "whole")[1])
    assert whole["robust"] != digests(finish(small(*AVERAGED), dataset, tmp_path / "plain")[1])["robust"]
    abandon(remembering(), dataset, tmp_path / "left", after=5)
    assert digests(finish(remembering(), dataset, tmp_path / "left")[1]) == whole


class Mutual(Objective):
    """Cross-entropy, and a pull to what the peers say."""

    needs: ClassVar[frozenset[str]] = frozenset({"peers"})
    name: Literal["mutual"] = "mutual"

    def loss(self, context: Context, learner: Learner, batch: Batch, attacked: Images) -> Loss:
        (peer,) = learner.peers
        raw = learner.model(batch.images)
        pull = (raw - peer.network(batch.images).detach()).square().mean()
        return Loss(F.cross_entropy(raw, batch.labels) + pull, raw)


def mutual(order: tuple[str, str], *overrides: str) -> Config:
    """Return a configuration of two experts that differ in their learning rates and learn from each other."""
    config = small(
        "training.epochs=2", *overrides, "mixing=null", "deploy=expert:natural", "experts.robust.optimizer.lr=0.1"
    )
    experts = {name: config.experts[name].model_copy(update={"objective": Mutual()}) for name in order}
    return config.model_copy(update={"experts": experts})


def test_peers_are_read_before_any_of_them_steps(dataset: Dataset, tmp_path: Path) -> None:
    """So their order is without effect; both depend on each other, and go on to the same bits."""
    one = digests(finish(mutual(("natural", "robust")), dataset, tmp_path / "one")[1])
    other = digests(finish(mutual(("robust", "natural")), dataset, tmp_path / "other")[1])
    assert one == other
    abandon(mutual(("natural", "robust")), dataset, tmp_path / "left", after=3)
    assert digests(finish(mutual(("natural", "robust")), dataset, tmp_path / "left")[1]) == one
    slower = mutual(("natural", "robust"), "experts.natural.optimizer.lr=0.01")
    assert digests(finish(slower, dataset, tmp_path / "slower")[1])["robust"] != one["robust"]
