"""Peers that learn from each other: the formula in float64, one snapshot a step, students, and the same bits again."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from generalist import engine
from generalist.config import Config, EngineOptions
from generalist.data import Dataset
from generalist.errors import BadInput
from generalist.models import Classifier, build
from generalist.objectives import Learner, Objective, Peer
from generalist.tensors import Batch
from tests.objective_factory import SHAPE, THREAT, context
from tests.training_factory import abandon, digests, finish, small

ADVERSARIAL = {"name": "adversarial", **THREAT}
TRADES = {"name": "trades", "beta": 6, **THREAT}
ALP = {"name": "alp", **THREAT}
SEVERAL = "{name: union, combine: mean, threats: [{norm: linf, eps: 0.1}, {norm: l2, eps: 0.1}]}"
PEERS = ("mixing=null", "deploy=expert:natural", "training.epochs=2", "training.batch_size=32")


def objective(**options: Any) -> Objective:
    """Return the objective `mutual` with these options."""
    own = peers(options, options).experts["robust"].objective
    assert isinstance(own, Objective)
    return own


def peers(first: dict[str, Any], second: dict[str, Any], *overrides: str) -> Config:
    """Return a small configuration of two peers with these options beside their name."""
    objectives = {"natural": first, "robust": second}
    written = [
        f"experts.{name}.objective={json.dumps({'name': 'mutual', **options})}" for name, options in objectives.items()
    ]
    return small(*PEERS, "experts.robust.optimizer.lr=0.1", *written, *overrides)


def network(seed: int) -> Classifier:
    """Return a small network with initial weights of its own."""
    options = small().model
    model = build(options, SHAPE)
    weights = engine.initial_weights(options, SHAPE, 0, seed)
    model.load_state_dict({name: 2 * tensor for name, tensor in weights.items()})
    return model


@pytest.fixture
def batch() -> Batch:
    """Six random images."""
    draw = torch.Generator().manual_seed(1)
    labels = torch.randint(10, (6,), generator=draw)
    return Batch(torch.rand(6, 1, 8, 8, generator=draw), labels, torch.arange(6))


def slow_kl(said: Tensor, own: Tensor, heat: float) -> Tensor:
    """Return t^2 KL(softmax(said / t) || softmax(own / t)), image by image and class by class; a mean over images."""
    terms = []
    for p, q in zip((said / heat).softmax(1), (own / heat).softmax(1), strict=True):
        terms.append(sum(a * (torch.log(a) - torch.log(b)) for a, b in zip(p, q, strict=True)))
    return heat**2 * torch.stack([torch.as_tensor(term) for term in terms]).mean()


def slow_base(name: str, net: Classifier, batch: Batch, attacked: Tensor) -> tuple[Tensor, Tensor]:
    """Return a base's loss, and the logits of its attacked images, in float64."""
    clean, moved = net(batch.images.double()), net(attacked.double())
    robust = F.cross_entropy(moved, batch.labels)
    if name == "adversarial":
        return robust, moved
    natural = F.cross_entropy(clean, batch.labels)
    if name == "trades":
        return natural + 6 * slow_kl(clean, moved, 1.0), moved
    return (natural + robust) / 2 + sum(((moved - clean) ** 2).flatten()) / clean.numel(), moved


@pytest.mark.parametrize("base", [ADVERSARIAL, TRADES, ALP], ids=lambda base: str(base["name"]))
@pytest.mark.parametrize(
    ("weights", "heat", "learns_by"),
    [((0.5, 0.25, 0.25), 1.0, "divergence"), ((0.05, 0.95, 0), 1.0, "divergence"), ((1, 0, 0.7), 2.0, "labels")],
)
def test_the_loss_is_its_formula(
    batch: Batch, base: dict[str, Any], weights: tuple[float, ...], heat: float, learns_by: str
) -> None:
    """Value and gradients against a direct computation in float64, of one peer among three; the others get none."""
    names = ("base_weight", "own_weight", "peers_weight")
    own = objective(base=base, temperature=heat, learns_by=learns_by, **dict(zip(names, weights, strict=True)))
    net, others = network(0).train(), [network(1), network(2)]
    images = [(batch.images + shift).clamp(0, 1) for shift in (0.05, -0.05)]
    frozen = [engine.FrozenNetwork(other, EngineOptions()) for other in others]
    seen = tuple(Peer(one, points) for one, points in zip(frozen, images, strict=True))
    learner = Learner(net, engine.FrozenNetwork(net, EngineOptions()), peers=seen)
    attacked = own.attacked(context(), learner, batch)
    found = own.loss(context(), learner, batch, attacked)

    slow = copy.deepcopy(net).double()
    value, logits = slow_base(base["name"], slow, batch, attacked)
    value = weights[0] * value
    for other, points in zip(others, images, strict=True):
        teacher = copy.deepcopy(other).double().requires_grad_(requires_grad=False)
        on_own = slow_kl(teacher(attacked.double()), logits, heat)
        answer = slow(points.double())
        on_theirs = (
            F.cross_entropy(answer, batch.labels)
            if learns_by == "labels"
            else slow_kl(teacher(points.double()), answer, heat)
        )
        value = value + (weights[1] * on_own + weights[2] * on_theirs) / len(others)
    assert found.value.item() == pytest.approx(value.item(), rel=1e-5)
    found.value.backward()
    value.backward()
    for parameter, expected in zip(net.parameters(), slow.parameters(), strict=True):
        assert parameter.grad is not None and expected.grad is not None
        torch.testing.assert_close(parameter.grad.double(), expected.grad, rtol=1e-3, atol=1e-5)
    assert all(parameter.grad is None for other in others for parameter in other.parameters())


MUTUAL = {"base": {"name": "adversarial", "threat": {"norm": "linf", "eps": 0.15}, "attack": {"steps": 2}}}
BATCHNORM = "model={name: preact_resnet18, width: 2}"


def swapped(config: Config) -> Config:
    """Return the same with its experts in the other order."""
    return config.model_copy(update={"experts": dict(reversed(config.experts.items()))})


def test_peers_are_seen_in_one_snapshot_with_their_batchnorm(few: Dataset, tmp_path: Path) -> None:
    """So that their order is without effect, though the training pass of the first moves its statistics."""
    config = peers(MUTUAL, MUTUAL, BATCHNORM, "training.epochs=1", "evaluation.selection_attack.steps=1")
    one = digests(finish(config, few, tmp_path / "one")[1])
    assert digests(finish(swapped(config), few, tmp_path / "other")[1]) == one
    assert one["natural"] != one["robust"]


def test_a_killed_training_goes_on_to_the_same_bits(few: Dataset, tmp_path: Path) -> None:
    """From any record on; both depend on each other."""
    config = peers(MUTUAL, MUTUAL)
    whole = digests(finish(config, few, tmp_path / "whole")[1])
    abandon(config, few, tmp_path / "left", after=3)
    assert digests(finish(config, few, tmp_path / "left")[1]) == whole
    slower = peers(MUTUAL, MUTUAL, "experts.natural.optimizer.lr=0.01")
    assert digests(finish(slower, few, tmp_path / "slower")[1])["robust"] != whole["robust"]


@pytest.mark.long
def test_processes_give_the_same_bits(few: Dataset, tmp_path: Path) -> None:
    """Coupled experts are in one of them."""
    whole = digests(finish(peers(MUTUAL, MUTUAL), few, tmp_path / "one")[1])
    apart = finish(peers(MUTUAL, MUTUAL, "training.processes=experts"), few, tmp_path / "two")[1]
    assert digests(apart) == whole


def test_nobody_learns_from_a_student(few: Dataset, tmp_path: Path) -> None:
    """What it does is without effect on its teacher; what the teacher does is not on it."""
    student = {"base": {"name": "natural"}, "student": True}
    with pytest.raises(
        BadInput, match=r"experts\.robust learns from its peers, and there are none: add an expert that"
    ):
        peers(student, MUTUAL)

    def trained(rate: float, teachers: float, name: str) -> dict[str, str]:
        rates = (f"experts.natural.optimizer.lr={rate}", f"experts.robust.optimizer.lr={teachers}")
        teacher = f"experts.robust.objective={json.dumps(MUTUAL['base'])}"
        return digests(finish(peers(student, MUTUAL, teacher, *rates), few, tmp_path / name)[1])

    one, other, third = trained(0.05, 0.05, "one"), trained(0.01, 0.05, "other"), trained(0.05, 0.01, "third")
    assert one["robust"] == other["robust"] != third["robust"]
    assert len({one["natural"], other["natural"], third["natural"]}) == 3


def test_each_expert_may_have_initial_weights_of_its_own(few: Dataset, tmp_path: Path) -> None:
    """Two experts that are otherwise the same part from the start; the first has the weights of all."""
    alike = (
        *PEERS,
        "training.epochs=1",
        "experts.natural.objective={name: natural}",
        "experts.robust.objective={name: natural}",
    )
    common = digests(finish(small(*alike), few, tmp_path / "store")[1])
    own = digests(finish(small(*alike, "training.own_initial_weights=true"), few, tmp_path / "store")[1])
    assert common["natural"] == common["robust"] == own["natural"] != own["robust"]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ("training.own_initial_weights=true", r"own_initial_weights can't be had with mixing, which needs one initial"),
        ("experts.robust.objective={name: mutual, base: {name: mutual, base: {name: natural}}}", "needs peers"),
        ("experts.robust.objective={name: mutual, base: {name: anchored, threat: {norm: l2, eps: 1}}}", "start_from"),
        (
            f"experts.robust.objective={{name: mutual, base: {SEVERAL}}}",
            "needs several attacks of each image: take another",
        ),
        (
            "experts.robust.objective={name: mutual, base: {name: two_hot, base: {name: natural}}}",
            "the head plain has no dummy classes for its targets",
        ),
        ("experts.robust.perturbation={name: awp, gamma: 0.1}", r"experts\.robust\.perturbation can't be had"),
        ("experts.robust.sequence={stop: 1}", r"experts\.robust\.sequence can't be had"),
    ],
)
def test_what_can_t_be_is_refused(change: str, sentence: str) -> None:
    """In one sentence that says how to mend it."""
    mutual = "experts.natural.objective={name: mutual, base: {name: natural}}"
    with pytest.raises(BadInput, match=sentence):
        small(mutual, change)


def test_images_that_are_attacked_several_times_are_not_learnt_from() -> None:
    """Whoever the peer is."""
    with pytest.raises(BadInput, match=r"experts\.robust\.objective attacks each image several times"):
        small("experts.natural.objective={name: mutual, base: {name: natural}}", f"experts.robust.objective={SEVERAL}")
