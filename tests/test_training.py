"""Training: the plan, and the bits of its result."""

import threading
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from generalist.config import Config, load
from generalist.data import Dataset
from generalist.errors import BadInput
from generalist.records import RoundRecord
from generalist.store import Store, tensors_digest
from generalist.training import CheckpointRef, Fact, InProcessRunner, Outcome, Trainer, ignore, plan, run_rounds
from tests.processes import another_process, forking, until
from tests.training_factory import abandon, digests, finish, first, small

# --- the plan -----------------------------------------------------------------------------------


def test_hand_backs_are_at_the_end_of_t_and_every_c_epochs_but_not_the_last() -> None:
    """t', t'+c, … before the last epoch (Generalist, algorithm 1)."""
    rounds = plan(small("training.epochs=10", "mixing.warm_up=4", "mixing.interval=3"))
    assert [(r.start, r.stop, r.redistribute) for r in rounds] == [(0, 4, True), (4, 7, True), (7, 10, False)]


def test_cuts_lie_at_checkpoints_and_at_the_end_of_each_round() -> None:
    """States are stored there."""
    rounds = plan(small("training.epochs=10", "mixing.warm_up=7", "training.checkpoint_epochs=3"))
    assert rounds[0].cuts == (3, 6, 7)
    assert rounds[1].cuts == (8,)


def test_without_a_warm_up_the_first_round_is_an_interval() -> None:
    """t' = 0: nothing to redistribute at the start."""
    assert plan(small("mixing.warm_up=0", "mixing.interval=2"))[0].stop == 2


def test_experts_that_meet_between_steps_advance_together_after_the_warm_up() -> None:
    """An interval in steps couples them; the warm-up stays apart."""
    rounds = plan(small("mixing.interval={steps: 2}"))
    assert rounds[0].groups == (("natural",), ("robust",))
    assert all(r.groups == (("natural", "robust"),) and r.coupled for r in rounds[1:])


def test_bursts_are_epoch_t_and_each_c_th_one_after_it() -> None:
    """As in the published code: in epochs 75, 80, ... 120 redistributions follow every batch, elsewhere there are none."""
    rounds = plan(load(preset="cifar10-resnet18-official"))
    assert [r.stop for r in rounds if r.coupled] == list(range(75, 121, 5))
    assert all(r.stop - r.start == 1 for r in rounds if r.coupled)
    assert not any(r.redistribute for r in rounds)
    assert [(r.start, r.stop) for r in rounds[:4]] == [(0, 74), (74, 75), (75, 79), (79, 80)]


def test_one_expert_without_mixing_has_a_candidate_at_each_checkpoint() -> None:
    """Plain training is a plan, too."""
    rounds = plan(small("mixing=null", "deploy=expert:robust", "training.checkpoint_epochs=2"))
    assert [r.stop for r in rounds] == [2, 4, 5]
    assert not any(r.redistribute for r in rounds)


# --- the same bits --------------------------------------------------------------------------------


def test_the_same_seed_gives_the_same_bits_and_another_seed_others(
    dataset: Dataset, outcome: Outcome, tmp_path: Path
) -> None:
    """In a fresh store. Another seed of torch's global generator changes nothing, and its state stays as it was."""
    torch.manual_seed(1234)
    before = torch.get_rng_state()
    again = finish(small(), dataset, tmp_path / "again")[1]
    assert torch.equal(torch.get_rng_state(), before)
    other = finish(small("seed=1"), dataset, tmp_path / "other")[1]
    assert digests(again) == digests(outcome)
    assert not set(digests(other).values()) & set(digests(outcome).values())


def test_cuts_do_not_change_bits(dataset: Dataset, outcome: Outcome, tmp_path: Path) -> None:
    """Stored after each epoch or only at the rounds' ends: the same weights."""
    assert digests(finish(small("training.checkpoint_epochs=4"), dataset, tmp_path)[1]) == digests(outcome)


def test_a_training_resumed_after_any_epoch_gives_the_same_bits(
    dataset: Dataset, outcome: Outcome, tmp_path: Path
) -> None:
    """Abandoned after k facts and started again, it goes on from the store."""
    for facts in (2, 9):
        abandon(small(), dataset, tmp_path / str(facts), after=facts)
        assert digests(finish(small(), dataset, tmp_path / str(facts))[1]) == digests(outcome)


def test_a_finished_training_is_not_computed_again(
    dataset: Dataset, whole: tuple[Path, list[Fact], Outcome], finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second run finds everything, and tells the same history."""
    _, facts, first = whole
    monkeypatch.setattr("generalist.expert_group.ExpertGroup.epoch", lambda *_: pytest.fail("trained again"))
    monkeypatch.setattr("generalist.training.validation.measure", lambda *_, **__: pytest.fail("measured again"))
    again, second = finish(small(), dataset, finished)
    assert again == facts
    assert digests(second) == digests(first)


def test_experts_in_threads_give_the_same_bits(dataset: Dataset, outcome: Outcome, tmp_path: Path) -> None:
    """Two Python threads, one store."""
    training = Trainer(small(), dataset, Store(tmp_path))
    positions = training.start()
    for round_ in training.rounds:
        cuts = {}

        def advance(group: tuple[str, ...], round_=round_, positions=positions, cuts=cuts) -> None:  # type: ignore[no-untyped-def]
            cuts.update(training.advance(round_, group, positions, ignore))

        threads = [threading.Thread(target=advance, args=(group,)) for group in round_.groups]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        positions = training.mix(round_, cuts).onward
    last = {name: own[-1] for name, own in cuts.items()}
    weights = training.learners(last)
    assert {name: tensors_digest(tensor) for name, tensor in weights.items()} == {
        name: digest for name, digest in digests(outcome).items() if name != "global"
    }


@pytest.mark.long
@forking
def test_experts_in_two_processes_give_the_same_bits(dataset: Dataset, outcome: Outcome, tmp_path: Path) -> None:
    """Both train everything into one store at once; whoever comes first, the states are the same."""
    store, told = tmp_path / "store", [tmp_path / "one", tmp_path / "other"]

    def train(end: Path) -> None:
        end.write_text(str(digests(finish(small(), dataset, store)[1])), encoding="ascii")

    with another_process(lambda: train(told[0])), another_process(lambda: train(told[1])):
        until(lambda: all(end.exists() and end.stat().st_size for end in told))
    assert [end.read_text(encoding="ascii") for end in told] == [str(digests(outcome))] * 2
    assert digests(finish(small(), dataset, store)[1]) == digests(outcome)


def _last_keys(config: Config, dataset: Dataset, store: Path) -> list[CheckpointRef]:
    """Of both experts at the end of the warm-up."""
    training = Trainer(config, dataset, Store(store))
    start = {name: training._keys.start(name) for name in config.experts}
    return [max(training._keys.ahead(training.rounds[0], (name,), start)[name].items())[1] for name in start]


@pytest.mark.parametrize(
    "override",
    [
        "training.images=mapped",
        "training.checkpoint_minutes=1",
        "training.processes=experts",
        "training.checkpoint_epochs=3",
        "evaluation.attack=standard",
        "registry.criterion=robust",
        "deploy=expert:robust",
    ],
)
def test_what_decides_no_bits_is_in_no_key(dataset: Dataset, tmp_path: Path, override: str) -> None:
    """So it re-uses all that was trained."""
    assert _last_keys(small(override), dataset, tmp_path) == _last_keys(small(), dataset, tmp_path)


# --- what is trained ------------------------------------------------------------------------------


def test_a_burst_in_every_epoch_is_an_interval_of_one_step(dataset: Dataset, tmp_path: Path) -> None:
    """Both redistribute after every batch, the last one set aside; so they share all states, too."""
    burst = small("mixing.burst=true", "mixing.warm_up=1", "mixing.interval=1", "training.epochs=3")
    every = small("mixing.interval={steps: 1}", "mixing.warm_up=0", "training.epochs=3")
    expected = finish(every, dataset, tmp_path)[1]
    work = Trainer(burst, dataset, Store(tmp_path)).forecast()
    assert all(not part.epochs for part in work)
    assert digests(finish(burst, dataset, tmp_path / "2")[1]) == digests(expected)


def test_experts_of_a_burst_are_the_global_learner_after_every_step(dataset: Dataset, tmp_path: Path) -> None:
    """In epoch t' and in each c-th one after it; in between they go their own ways, from one point."""
    config = small("mixing.burst=true", "mixing.warm_up=2", "mixing.interval=2", "training.epochs=5")
    training, apart = Trainer(config, dataset, Store(tmp_path)), []
    for end in run_rounds(training, InProcessRunner(training, ignore)):
        learners, mixed = training.learners(end.last), training.states.global_learner(end.last)
        apart.append(not torch.equal(learners["natural"]["linear.weight"], learners["robust"]["linear.weight"]))
        assert end.round.coupled == (not apart[-1])
        assert end.round.coupled == torch.equal(learners["robust"]["linear.weight"], mixed["linear.weight"])
    assert apart == [True, False, True, False, True]


def test_coupled_experts_equal_independent_ones_where_the_interval_is_an_epoch(
    dataset: Dataset, outcome: Outcome, tmp_path: Path
) -> None:
    """c = 1 epoch given in steps: redistributions between steps and between segments are one thing."""
    steps = -(-len(dataset.train) // 256)
    together = finish(small(f"mixing.interval={{steps: {steps}}}"), dataset, tmp_path)[1]
    assert digests(together) == digests(outcome)


BRIEF = ("training.epochs=3", "mixing.warm_up=1")


@pytest.fixture(scope="module")
def brief(dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    """The outcome of a training with two redistributions."""
    return finish(small(*BRIEF), dataset, tmp_path_factory.mktemp("brief"))[1]


@pytest.mark.parametrize(
    "override",
    [
        "mixing.redistribute=mixture",
        "mixing.momentum=reset",
        "mixing.decay=0.2",
        "mixing.interval={steps: 1}",
        "mixing.burst=true",
        "experts.natural.averaging=0.5",
        "experts.natural.optimizer={name: adam, lr: 1e-3}",
    ],
)
def test_each_option_of_mixing_has_an_effect_and_resumes_to_the_same_bits(
    dataset: Dataset, brief: Outcome, tmp_path: Path, override: str
) -> None:
    """Another result than the default, and the same result after an interruption."""
    config = small(*BRIEF, override)
    whole = finish(config, dataset, tmp_path / "whole")[1]
    assert digests(whole)["robust"] != digests(brief)["robust"]
    abandon(config, dataset, tmp_path / "cut", after=5)
    assert digests(finish(config, dataset, tmp_path / "cut")[1]) == digests(whole)


def test_a_single_expert_is_its_own_deployed_learner(dataset: Dataset, tmp_path: Path) -> None:
    """Plain training, no global learner."""
    config = small("mixing=null", "deploy=expert:natural")
    facts, outcome = finish(config, dataset, tmp_path)
    assert set(outcome.learners) == {"natural", "robust"}
    assert all(fact.weights == {} for fact in facts if isinstance(fact, RoundRecord))
    assert outcome.chosen.digest == digests(outcome)["natural"]


def test_an_epoch_that_would_leave_a_single_image_is_trained(dataset: Dataset, tmp_path: Path) -> None:
    """BatchNorm over one pixel of one image has no variance: that image joins the batch before."""
    few = replace(dataset, train=first(dataset.train, 9), validation=first(dataset.validation, 4))
    alone = ("mixing=null", "deploy=expert:robust")
    config = small(*alone, "model={name: resnet18, width: 2}", "training.batch_size=4", "training.epochs=1")
    assert set(finish(config, few, tmp_path)[1].learners) == {"natural", "robust"}


@pytest.mark.parametrize(("images", "batch_size"), [(9, 1), (1, 64)])
def test_batches_of_single_images_are_refused_where_they_cannot_be_trained(
    dataset: Dataset, tmp_path: Path, images: int, batch_size: int
) -> None:
    """Before any work; a network without BatchNorm trains on them."""
    few = replace(dataset, train=first(dataset.train, images))
    size = f"training.batch_size={batch_size}"
    with pytest.raises(BadInput, match=r"the BatchNorm of resnet18 can't train on single images: give it two at least"):
        Trainer(small("model={name: resnet18, width: 2}", size), few, Store(tmp_path))
    Trainer(small(size), few, Store(tmp_path))


def test_the_choice_is_the_best_round_on_the_validation_split(dataset: Dataset, finished: Path) -> None:
    """By the configured criterion; of equals the latest."""
    for criterion in ("harmonic", "natural", "robust"):
        facts, outcome = finish(small(f"registry.criterion={criterion}"), dataset, finished)
        rounds = [fact for fact in facts if isinstance(fact, RoundRecord)]
        best = max(record.validation.by(criterion) for record in rounds)
        assert outcome.chosen == [r for r in rounds if r.validation.by(criterion) == best][-1]


def test_fast_steps_are_plain_ones_but_for_rounding(dataset: Dataset, tmp_path: Path) -> None:
    """After an epoch without and with the fast paths weights differ by rounding: here no sign of a gradient flipped."""
    weights = []
    for plain in ("true", "false"):
        config = small("training.epochs=2", "mixing.warm_up=1", f"engine.eager={plain}")
        weights.append(finish(config, dataset, tmp_path / plain)[1].learners)
    for name, plainly in weights[0].items():
        for key, tensor in plainly.items():
            torch.testing.assert_close(weights[1][name][key], tensor, rtol=1e-2, atol=1e-4)
    assert any(not torch.equal(weights[1]["robust"][key], own) for key, own in weights[0]["robust"].items())


def test_values_that_lie_otherwise_in_memory_resume_to_the_same_bits(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """channels_last reaches weights, momenta and shares, but no file; a resumed training ends with the same bits."""
    monkeypatch.setattr("generalist.engine.networks.WIDE", 2)
    config = small(*BRIEF)
    whole = finish(config, dataset, tmp_path / "whole")[1]
    abandon(config, dataset, tmp_path / "cut", after=3)
    again = finish(config, dataset, tmp_path / "cut")[1]
    for name, own in whole.learners.items():
        assert tensors_digest(again.learners[name]) == tensors_digest(own)
        assert all(tensor.is_contiguous() for tensor in own.values())
