"""Dummy classes: the head's folds, targets and losses, objectives that train towards them, and what is refused."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.func import functional_call

from generalist import engine
from generalist.attacks import attack_from, margin, pgd
from generalist.config import AttackOptions, EngineOptions, canonical, check, load
from generalist.config.section import part_names
from generalist.data import Split
from generalist.errors import BadInput
from generalist.evaluation import evaluate
from generalist.models import Classifier, LossView
from generalist.models.heads.dummy import Dummy, joint_margin
from generalist.objectives import Context, Learner, Objective
from generalist.tensors import Batch, Images, ImageShape
from generalist.threats import Threat
from tests.model_factory import TINY, made, numbers
from tests.training_factory import PARAMS, small

DUMMY = {"name": "dummy"}
CLASSES = 4
HEAD = Dummy(name="dummy")(CLASSES)
THREAT = {"norm": "linf", "eps": 0.1}


def raw_outputs(seed: int, count: int = 9, scale: float = 3.0) -> tuple[Tensor, Tensor]:
    """Random raw outputs, float64, and labels."""
    draw = torch.Generator().manual_seed(seed)
    raw = scale * torch.randn(count, 2 * CLASSES, generator=draw, dtype=torch.float64)
    return raw, torch.randint(CLASSES, (count,), generator=draw)


# --- the head -------------------------------------------------------------------------------------------


@given(st.integers(0, 10_000))
def test_the_decision_is_the_published_recovery(seed: int) -> None:
    """argmax over 2C outputs, modulo C."""
    raw, _ = raw_outputs(seed)
    assert torch.equal(HEAD.decision(raw).argmax(1), raw.argmax(1) % CLASSES)
    smooth = HEAD.views()["logsumexp"](raw)
    assert ((HEAD.decision(raw) <= smooth) & (smooth <= HEAD.decision(raw) + math.log(2) + 1e-12)).all()


@given(st.fractions(0, 1), st.fractions(0, 1))
def test_targets_are_shared_by_a_class_and_its_dummy(natural: float, adversarial: float) -> None:
    """By role; they sum to one."""
    head = Dummy.model_validate({"name": "dummy", "natural": str(natural), "adversarial": str(adversarial)})(CLASSES)
    labels = torch.tensor([2, 0])
    for role, share in (("natural", natural), ("adversarial", adversarial)):
        expected = torch.zeros(2, 2 * CLASSES)
        for row, label in enumerate(labels.tolist()):
            expected[row, label] += 1 - float(share)
            expected[row, label + CLASSES] += float(share)
        torch.testing.assert_close(head.targets(labels, role), expected)


def slow_joint(outputs: list[float], label: int, target: int | None, temperature: float) -> float:
    """Return the joint margin of one image as it is written, in Python's own float64."""
    own, dummy = outputs[label], outputs[label + CLASSES]
    weight = 1 / (1 + math.exp(-(own - dummy) / temperature))
    others = range(CLASSES) if target is None else [target]
    rival = max(outputs[k + half] for k in others if k != label for half in (0, CLASSES))
    return rival - (weight * own + (1 - weight) * dummy)


@pytest.mark.parametrize("temperature", [1.0, 0.3, math.inf])
@pytest.mark.parametrize("aimed", [False, True])
def test_the_joint_loss_is_its_formula(temperature: float, aimed: bool) -> None:
    """The best of all outputs but the label's two, or of the target's two, against the weighted two."""
    raw, labels = raw_outputs(1)
    targets = (labels + 1) % CLASSES if aimed else None
    aims = [None] * len(labels) if targets is None else targets.tolist()
    triples = zip(raw.tolist(), labels.tolist(), aims, strict=True)
    expected = torch.tensor([slow_joint(*triple, temperature) for triple in triples], dtype=torch.float64)
    torch.testing.assert_close(joint_margin(raw, labels, targets, temperature=temperature), expected)


def test_the_joint_loss_pushes_both_outputs_of_the_label() -> None:
    """By w and 1 - w, through which no gradient flows: those of logsumexp where w is softmax, one half each where even."""
    raw, labels = raw_outputs(2)
    leaf, rows = raw.clone().requires_grad_(), torch.arange(len(labels))
    (soft,) = torch.autograd.grad(joint_margin(leaf, labels, temperature=1.0).sum(), leaf)
    (smooth,) = torch.autograd.grad(HEAD.views()["logsumexp"](leaf)[rows, labels].sum(), leaf)
    for column in (labels, labels + CLASSES):
        torch.testing.assert_close(soft[rows, column], -smooth[rows, column])
    (even,) = torch.autograd.grad(joint_margin(leaf, labels, temperature=math.inf).sum(), leaf)
    assert (even[rows, labels] == -0.5).all() and (even[rows, labels + CLASSES] == -0.5).all()


def test_in_the_limit_the_joint_loss_is_the_decision_s_margin() -> None:
    """At temperature 0, w is 1 for the larger output."""
    raw, labels = raw_outputs(3)
    sharp = joint_margin(raw, labels, temperature=1e-9)
    torch.testing.assert_close(sharp, -margin(HEAD.decision(raw), labels))


@pytest.mark.parametrize("name", sorted(TINY))
def test_every_architecture_takes_it(name: str) -> None:
    """Twice the raw outputs, one logit a class, and views that an evaluation and an attack can name."""
    model, images = made(name, head=DUMMY, **TINY[name]).eval(), numbers(2)
    assert model(images).shape == (2, 20) and model.decision(model(images)).shape == (2, 10)
    views = model.views()
    assert [*views] == ["decision", "logsumexp", "joint", "joint-even"] and [*model.nonadaptive()] == ["raw"]
    assert torch.equal(views["joint"](images), model(images)) and isinstance(views["joint"], LossView)
    assert torch.equal(model.nonadaptive()["raw"](images), model(images))


def test_a_plain_head_is_left_out_of_digests() -> None:
    """So the keys of stored states, the facts beside weights and the digests of configurations are what they were."""
    model = load(PARAMS).model
    assert canonical(model) == {"name": "small_cnn", "width": 32}
    assert model.model_dump()["head"] == {"name": "plain"}
    assert canonical(small("model.head={name: dummy}").model)["head"] == DUMMY | {"natural": 0.25, "adversarial": 1.0}


# --- objectives -----------------------------------------------------------------------------------------


def two_hot(base: dict[str, Any], **options: Any) -> Objective:
    """Return the objective that the configuration would name."""
    tree = small("mixing=null", "deploy=expert:robust").model_dump(mode="json")
    tree["model"]["head"] = DUMMY
    tree["experts"]["robust"]["objective"] = {"name": "two_hot", "base": base, **options}
    objective = check(tree).experts["robust"].objective
    assert isinstance(objective, Objective)
    return objective


@pytest.fixture
def learner() -> Learner:
    """A small network without BatchNorm, in training mode."""
    model = made("small_cnn", head=DUMMY, width=2)
    return Learner(model.train(), engine.FrozenNetwork(model, EngineOptions()))


@pytest.fixture
def batch() -> Batch:
    """Seven random images."""
    labels = torch.randint(10, (7,), generator=torch.Generator().manual_seed(4))
    return Batch(numbers(7), labels, torch.arange(7))


def context(progress: float = 0.0) -> Context:
    """Return a step with fresh random numbers."""
    return Context(torch.Generator().manual_seed(0), _progress=float(progress))


def slow_loss(base: str, model: Classifier, weights: dict[str, Tensor], batch: Batch, attacked: Images) -> Tensor:
    """Return the loss of section 2.3 of the specification, image by image in float64."""
    total = torch.zeros((), dtype=torch.float64)
    for image, other, label in zip(batch.images.double(), attacked.double(), batch.labels.tolist(), strict=True):
        both = functional_call(model, weights, (torch.stack((image, other)),))
        (clean, moved), (p, q) = both - both.exp().sum(1, keepdim=True).log(), both.softmax(1)
        halves = -(0.75 * clean[label] + 0.25 * clean[label + 10]), -moved[label + 10]
        if base == "natural":
            total = total + halves[0]
            continue
        total = total + sum(halves) / 2
        divergence = (p * (clean - moved)).sum()
        if base == "trades":
            total = total + 6 * divergence
        if base == "mart":
            others = max(q[k] for k in range(20) if k != label)
            total = total - torch.log(1.0001 - others) + 5 * divergence * (1.0000001 - p[label])
    return total / len(batch)


BASES: dict[str, dict[str, Any]] = {
    "natural": {},
    **{name: {"threat": THREAT, "attack": {"steps": 2}} for name in ("adversarial", "trades", "mart")},
}


@pytest.mark.parametrize("base", BASES)
def test_a_loss_towards_two_hot_targets_is_its_formula(learner: Learner, batch: Batch, base: str) -> None:
    """With its gradients: half the cross-entropy of clean and of attacked images in place of the base's own."""
    objective, model = two_hot({"name": base, **BASES[base]}), learner.model
    attacked = objective.attacked(context(), learner, batch)
    loss = objective.loss(context(), learner, batch, attacked)
    loss.value.backward()
    # Also the constants that normalise images.
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    weights = {name: tensor.detach().double().requires_grad_() for name, tensor in tensors.items()}
    expected = slow_loss(base, model, weights, batch, attacked)
    expected.backward()
    assert loss.value.item() == pytest.approx(expected.item(), rel=1e-5)
    for name, parameter in model.named_parameters():
        slow = weights[name].grad
        assert slow is not None and parameter.grad is not None
        torch.testing.assert_close(parameter.grad.double(), slow, rtol=1e-3, atol=1e-5)
    assert loss.logits.shape == (7, 10)


@pytest.mark.parametrize("base", BASES)
def test_before_its_phase_the_loss_is_the_base_s(learner: Learner, batch: Batch, base: str) -> None:
    """To the bit; within the phase it is another; between two knots it is on the line between both."""
    own = {"name": base, **BASES[base]}
    later = two_hot(own, share=[[0.5, 0], [0.5, 1]])
    attacked = later.attacked(context(), learner, batch)

    def value(share: Any, progress: float) -> Tensor:
        return two_hot(own, share=share).loss(context(progress), learner, batch, attacked).value

    alone = later.own_base.loss(context(), learner, batch, attacked).value  # type: ignore[attr-defined]
    assert torch.equal(value([[0.5, 0], [0.5, 1]], 0.49), alone)
    assert torch.equal(value([[0.5, 0], [0.5, 1]], 0.5), value(1, 0))
    assert not torch.equal(value(1, 0), alone)
    torch.testing.assert_close(value(0.3, 0), 0.7 * alone + 0.3 * value(1, 0))


def test_phases_count_by_what_they_are_at_each_step() -> None:
    """Trainings whose phases begin later share their states up to there; the base counts as it acts."""
    begin, middle = np.array([0.0, 0.25]), np.array([0.5, 0.75])
    base = {"name": "adversarial", **BASES["adversarial"]}
    early, late = (two_hot(base, share=[[at, 0], [at, 1]]) for at in (0.5, 0.8))
    assert early.effective(begin) == late.effective(begin)
    assert early.effective(middle) != late.effective(middle)
    written = two_hot({**base, "attack": {"steps": 2, "step_size": 0.125}}, share=[[0.8, 0], [0.8, 1]])
    assert written.effective(middle) == late.effective(middle)
    assert two_hot(base, attack_view="decision").effective(begin) != two_hot(base).effective(begin)


@pytest.mark.parametrize("view", ["raw", "decision", "logsumexp"])
def test_training_attacks_see_what_is_asked_for(learner: Learner, batch: Batch, view: str) -> None:
    """The cross-entropy of raw outputs as published, or of folded ones."""
    objective = two_hot({"name": "adversarial", **BASES["adversarial"]}, attack_view=view)
    functions = learner.model.views() | learner.model.nonadaptive()
    attack = attack_from(AttackOptions(steps=2), Threat("linf", 0.1))
    expected = attack(functions[view], batch.images, batch.labels, generator=torch.Generator().manual_seed(0))
    assert torch.equal(objective.attacked(context(), learner, batch), expected)


# --- the safe sink --------------------------------------------------------------------------------------


class Sink(Classifier):
    """Two pixels: the first leads to the label's dummy class at once, the second to the other class."""

    def __init__(self) -> None:
        super().__init__(ImageShape(1, 1, 2, 2, mean=(0.0,), std=(1.0,)), Dummy(name="dummy")(2))

    def embed(self, normalised: Images) -> Tensor:
        return normalised.flatten(1)

    def raw_outputs(self, features: Tensor) -> Tensor:
        a, b = features.T
        return torch.stack((4 - 30 * a - 30 * b, 20 * b - 1, 30 * a - 8 * b, -9 + 0 * a), dim=1)


def test_an_attack_that_does_not_know_the_recovery_ends_in_the_dummy_class() -> None:
    """One gradient step does; the joint loss finds the other class in the same ball."""
    model, images, labels = Sink().eval(), torch.zeros(1, 1, 1, 2), torch.zeros(1, dtype=torch.int64)
    raw, fold, joint = model.nonadaptive()["raw"], model.views()["decision"], model.views()["joint"]
    threat = Threat("linf", 0.3)
    assert isinstance(joint, LossView) and fold(images).argmax() == 0
    published = pgd(raw, images, labels, threat, steps=1, step_size=0.3, random_start=False)
    assert raw(published).argmax() == 2 and fold(published).argmax() == 0
    found = pgd(joint, images, labels, threat, steps=40, step_size=0.02, random_start=False, loss=joint.loss)
    assert fold(found).argmax() == 1


def test_an_evaluation_leads_with_what_knows_the_recovery() -> None:
    """Nothing stands by the decision; what stands as published is in a column that says that it is not adaptive."""
    split = Split(np.zeros((12, 1, 1, 2), np.uint8), np.zeros(12, np.int64))
    # Streams of random numbers are by image and place, so that starts differ.
    split.images[:, 0, 0, 0] = np.arange(12)
    options = small("evaluation.threats.0.eps=0.3", "evaluation.pgd.steps=20").evaluation
    names = ("zero", "one")
    (threat,) = evaluate(
        Sink(), split, options=options, class_names=names, name="it", epoch=1, digest="d"
    ).evaluation.threats
    counts = {name: accuracy.correct for name, accuracy in threat.columns.items()}
    assert counts["cascade"] == counts["joint/pgd"] == threat.worst.correct == 0
    assert counts["raw (non-adaptive)/cascade"] > 3


# --- bad input ------------------------------------------------------------------------------------------

ADVERSARIAL = "{name: adversarial, threat: {norm: linf, eps: 0.15}}"
ROBUST = "experts.robust.objective={name: two_hot, base: %s, %s}"
ANCHORED = "{name: anchored, threat: {norm: linf, eps: 0.15}}"


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["model.head={name: dummy, natural: 1.5}"], "model.head.natural is 1.5, but it should be less than or equal"),
        (["model.head={name: dummy, adversarial: -1}"], "model.head.adversarial is -1, but it should be greater than"),
        (["model.head.name=dumy"], "model.head: unknown name 'dumy'; did you mean 'dummy'?"),
        (["experts.robust.head={name: dummy}"], "experts.robust: unknown key 'head'"),
        (
            [ROBUST % (ADVERSARIAL, "share: 1")],
            "the head plain has no dummy classes for its targets: set model.head to {name: dummy}, or name the base",
        ),
        (
            ["model.head.name=dummy", ROBUST % (ADVERSARIAL, "attack_view: desicion")],
            "attack_view is 'desicion', which the head dummy does not have; did you mean 'decision'?",
        ),
        (["model.head.name=dummy", ROBUST % (ADVERSARIAL, "attack_view: joint")], "known here"),
        (["model.head.name=dummy", ROBUST % (ADVERSARIAL, "share: 0")], "it is 0 throughout: name the base alone"),
        (["model.head.name=dummy", ROBUST % (ADVERSARIAL, "share: 2")], "let its values lie between 0 and 1"),
        (
            ["model.head.name=dummy", ROBUST % (ADVERSARIAL, "share: [[0.9, 0], [0.9, 1], [0.5, 1], [0.5, 0]]")],
            "experts.robust.objective.share: the knots of a schedule need progress values between 0 and 1 in rising",
        ),
        (
            ["model.head.name=dummy", ROBUST % (ADVERSARIAL, "share: [[1.5, 0], [1.5, 1]]")],
            "experts.robust.objective.share: the knots of a schedule need progress values between 0 and 1 in rising",
        ),
        (["model.head.name=dummy", ROBUST % (ANCHORED, "share: 1")], "anchored has no cross-entropy with labels"),
        (
            ["model.head.name=dummy", ROBUST % ("{name: two_hot, base: {name: natural}}", "share: 1")],
            "two_hot has no cross-entropy with labels",
        ),
        (["model.head.name=dummy", ROBUST % ("{name: trads}", "share: 1")], "did you mean 'trades'?"),
        (
            ["model.head.name=dummy", ROBUST % ("{name: trades}", "share: 1")],
            "experts.robust.objective.base: 'threat' is missing",
        ),
    ],
)
def test_what_can_t_be_is_refused_in_a_sentence(overrides: list[str], expected: str) -> None:
    """Phases, shares, views and heads that are none; one that mixes with another head can't even be written."""
    with pytest.raises(BadInput) as refusal:
        load(PARAMS, overrides=overrides)
    assert expected in str(refusal.value)
    assert len(str(refusal.value).splitlines()) == 1


def test_every_head_is_found_by_its_name() -> None:
    """In its own file."""
    assert part_names("models.heads") == ["dummy", "plain"]
