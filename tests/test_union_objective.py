"""Training against several norms: each way to combine them, by closed forms and by slow computations in float64."""

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from generalist import engine
from generalist.attacks import attack_from
from generalist.attacks.multi_norm import multi_steepest_descent, worst_of
from generalist.config import AttackOptions, EngineOptions
from generalist.data import Dataset
from generalist.errors import BadInput
from generalist.models import build
from generalist.objectives import Learner, Objective
from generalist.randomness import PartOfBatch, whole_number
from generalist.tensors import Batch
from generalist.threats import Threat
from tests.objective_factory import SHAPE, context, objective
from tests.training_factory import abandon, digests, finish, small

LINF, L2, L1 = (Threat(norm, eps) for norm, eps in (("linf", 0.05), ("l2", 0.31), ("l1", 0.4)))
STEPS = 5


def union(combine: str, *threats: Threat, **more: Any) -> Objective:
    """Return the objective of these threats, PGD with few steps."""
    written = [{"norm": threat.norm, "eps": threat.eps} for threat in threats or (LINF, L2)]
    return objective(name="union", threats=written, combine=combine, attack={"steps": STEPS, **more})


@pytest.fixture
def learner() -> Learner:
    """A small network with its initial weights, twice as large: so that norms differ in what they can do."""
    options = small().model
    model = build(options, SHAPE)
    model.load_state_dict({name: 2 * tensor for name, tensor in engine.initial_weights(options, SHAPE, 0).items()})
    return Learner(model.train(), engine.FrozenNetwork(model, EngineOptions()))


@pytest.fixture
def batch() -> Batch:
    """Twelve random images."""
    draw = torch.Generator().manual_seed(1)
    labels = torch.randint(10, (12,), generator=draw)
    return Batch(torch.rand(12, 1, 8, 8, generator=draw), labels, torch.arange(12))


def slopes() -> Tensor:
    """Return three linear functions of 64 pixels: dense, of four pixels, of one."""
    rows = torch.zeros(3, 64)
    rows[0], rows[1, :4], rows[2, 7] = 1.0, 1.0, 1.0
    return rows


def linear(images: Tensor) -> Tensor:
    """Return the value of each function."""
    return images.flatten(1) @ slopes().T


def chosen(values: Tensor, which: Tensor) -> Tensor:
    """Return an image's own function, as the loss to raise."""
    return values.gather(1, which[:, None]).squeeze(1)


def gains(threat: Threat) -> list[float]:
    """Return by how much each function can rise: eps times the dual norm of its slope."""
    rows = slopes().double()
    dual = {"linf": rows.abs().sum(1), "l2": rows.norm(dim=1), "l1": rows.abs().amax(1)}[threat.norm]
    return (float(threat.eps) * dual).tolist()


@pytest.mark.parametrize("way", ["max", "msd"])
def test_on_linear_functions_each_image_gets_the_norm_of_the_largest_gain(way: str) -> None:
    """A dense slope is raised most by Linf, one of four pixels by L2, one of a single pixel by L1."""
    images, which, threats = torch.full((3, 1, 8, 8), 0.5), torch.arange(3), (LINF, L2, L1)
    attacks = [attack_from(AttackOptions(steps=40), threat) for threat in threats]
    if way == "max":
        draw = torch.Generator().manual_seed(0)
        ends = [attack(linear, images, which, loss=chosen, generator=draw) for attack in attacks]
        points, values = worst_of(linear, ends, which, chosen)
        torch.testing.assert_close(values, chosen(linear(points), which))
    else:
        points = multi_steepest_descent(linear, images, which, attacks, chosen)
    reached = (chosen(linear(points), which) - chosen(linear(images), which)).tolist()
    best = np.max([gains(threat) for threat in threats], axis=0)
    assert best.tolist() == pytest.approx([3.2, 0.62, 0.4])
    assert reached == pytest.approx(best, rel=0.02)
    for index, threat in enumerate(threats):
        assert float(threat.distance(points, images)[index]) <= float(threat.eps)


def losses(network: Any, images: Tensor, labels: Tensor) -> Tensor:
    """Return the cross-entropy of each image in float64."""
    with torch.no_grad():
        logits = network.double()(images.double())
    return -(logits - logits.logsumexp(1, keepdim=True)).gather(1, labels[:, None]).squeeze(1)


def slow(learner: Learner) -> Any:
    """Return the network in float64 and eval mode."""
    return copy.deepcopy(learner.model).eval()


def each(learner: Learner, batch: Batch, *threats: Threat) -> list[Tensor]:
    """Return PGD within each threat, one after the other with the same random numbers as the objective."""
    draw = context().generator
    options = AttackOptions(steps=STEPS)
    return [
        attack_from(options, threat)(learner.frozen, batch.images, batch.labels, generator=draw) for threat in threats
    ]


def test_max_trains_on_the_worst_attack_of_each_image(learner: Learner, batch: Batch) -> None:
    """Image by image in float64; the loss is the mean of the largest losses."""
    own, ends = union("max"), each(learner, batch, LINF, L2)
    attacked = own.attacked(context(), learner, batch)
    table = torch.stack([losses(slow(learner), images, batch.labels) for images in ends])
    assert 0 < (table[0] > table[1]).sum() < len(batch)
    for index, which in enumerate(table.argmax(0).tolist()):
        assert torch.equal(attacked[index], ends[which][index])
    value = own.loss(context(), learner, batch, attacked).value
    assert value.item() == pytest.approx(table.amax(0).mean().item(), rel=1e-5)


def test_mean_trains_on_all_attacks(learner: Learner, batch: Batch) -> None:
    """The mean over norms and images; accuracy is that on the worst; gradients are those of the mean."""
    own, ends = union("mean"), each(learner, batch, LINF, L2)
    attacked = own.attacked(context(), learner, batch)
    assert torch.equal(attacked, torch.stack(ends, dim=1)) and own.attacks_per_image == 2
    found = own.loss(context(), learner, batch, attacked)
    network = slow(learner).double().requires_grad_()
    direct = torch.stack([F.cross_entropy(network(images.double()), batch.labels) for images in ends]).mean()
    assert found.value.item() == pytest.approx(direct.item(), rel=1e-5)
    direct.backward()
    found.value.backward()
    for parameter, other in zip(learner.model.parameters(), network.parameters(), strict=True):
        torch.testing.assert_close(parameter.grad.double(), other.grad, rtol=1e-3, atol=1e-5)
    table = torch.stack([losses(slow(learner), images, batch.labels) for images in ends])
    for row, which, image in zip(found.logits, table.argmax(0).tolist(), range(len(batch)), strict=True):
        torch.testing.assert_close(row, learner.model(ends[which])[image], rtol=1e-4, atol=1e-5)


def slow_msd(network: Any, image: Tensor, label: Tensor) -> Tensor:
    """Return the point of MSD for one image, as the paper's algorithm 2 and its code say, in float64."""
    image, best, highest = image.double(), None, -np.inf
    point = image.clone()
    for _ in range(STEPS):
        leaf = point.clone().requires_grad_()
        (slope,) = torch.autograd.grad(F.cross_entropy(network(leaf[None]), label[None]), leaf)
        towards = []
        for norm, eps in (("linf", float(LINF.eps)), ("l2", float(L2.eps))):
            size = 2.5 * eps / STEPS
            moved = point + size * (slope.sign() if norm == "linf" else slope / slope.norm()) - image
            moved = moved.clamp(-eps, eps) if norm == "linf" else moved * min(1.0, eps / float(moved.norm()))
            towards.append((image + moved).clamp(0, 1))
        values = [float(losses(network, one[None], label[None])) for one in towards]
        point = towards[int(np.argmax(values))]
        if max(values) > highest:
            best, highest = point, max(values)
    assert best is not None
    return best


def test_msd_takes_the_best_step_of_any_norm_and_keeps_the_best_point(learner: Learner, batch: Batch) -> None:
    """From the images themselves, image by image in float64."""
    attacked = union("msd").attacked(context(), learner, batch)
    network = slow(learner).double()
    expected = torch.stack([slow_msd(network, *pair) for pair in zip(batch.images, batch.labels, strict=True)])
    assert (attacked - expected).abs().amax() < 1e-5
    inside = [threat.distance(attacked, batch.images) <= float(threat.eps) for threat in (LINF, L2)]
    assert (inside[0] | inside[1]).all() and not inside[0].all() and not inside[1].all()
    assert torch.equal(attacked, union("msd", random_start=False).attacked(context(seed=1), learner, batch))


def test_random_attacks_the_whole_batch_by_one_norm(learner: Learner, batch: Batch) -> None:
    """Each comes about as often; processes that share a batch draw the same."""
    own, met = union("random", LINF, L1), []
    for seed in range(12):
        attacked = own.attacked(context(seed=seed), learner, batch)
        draw = context(seed=seed).generator
        which = whole_number(2, generator=draw)
        met.append(which)
        attack = attack_from(AttackOptions(steps=STEPS), (LINF, L1)[which])
        assert torch.equal(attacked, attack(learner.frozen, batch.images, batch.labels, generator=draw))
    assert 3 <= sum(met) <= 9
    part = PartOfBatch(torch.Generator().manual_seed(5), slice(0, 3), 12)
    numbers, whole = [whole_number(1000, generator=part) for _ in range(4)], torch.Generator().manual_seed(5)
    assert numbers == [whole_number(1000, generator=whole) for _ in range(4)] and len(set(numbers)) > 1


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"threats": [{"norm": "linf", "eps": 0.1}]}, "'threats' of a union are two at least"),
        ({"threats": [{"norm": "linf", "eps": 0.1}, {"norm": "linf", "eps": "1/10"}]}, "no two of them the same"),
        ({"attack": {"step_size": 0.1}}, r"'attack\.step_size' is one for all threats of a union"),
        ({"combine": "sum"}, "max"),
    ],
)
def test_what_is_no_union_is_refused(change: dict[str, Any], sentence: str) -> None:
    """In a sentence that says how to mend it."""
    options = {"name": "union", "threats": [{"norm": "linf", "eps": 0.1}, {"norm": "l2", "eps": 0.1}], "combine": "max"}
    with pytest.raises(BadInput, match=sentence):
        objective(**{**options, **change})


def test_options_act_as_they_are_resolved() -> None:
    """`fgsm` is one step of PGD from the image, and where msd starts is not an option."""
    progress = np.zeros(1)
    assert union("msd", random_start=False).effective(progress) == union("msd").effective(progress)
    assert union("max", random_start=False).effective(progress) != union("max").effective(progress)
    assert [one["step_size"] for one in union("max").effective(progress)["attack"]] == pytest.approx([0.025, 0.155])


def test_a_training_goes_on_to_the_same_bits(dataset: Dataset, tmp_path: Path) -> None:
    """Also where the norm is drawn for every batch."""
    written = (
        "experts.robust.objective={name: union, combine: random, attack: {steps: 2},"
        " threats: [{norm: linf, eps: 0.15}, {norm: l1, eps: 1.5}]}"
    )
    config = small(written, "training.epochs=2", "mixing.warm_up=1")
    whole = digests(finish(config, dataset, tmp_path / "whole")[1])
    abandon(config, dataset, tmp_path / "left", after=3)
    assert digests(finish(config, dataset, tmp_path / "left")[1]) == whole
