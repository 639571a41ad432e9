"""Objectives as a configuration names them, a small network to train by them, and a batch of random images."""

import copy
import dataclasses
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from generalist import engine
from generalist.config import ConditionOptions, EngineOptions, check
from generalist.config.section import part, plugin
from generalist.models import Classifier, build
from generalist.objectives import Context, Learner, Objective, Peer
from generalist.tensors import Batch, Images, ImageShape
from tests.training_factory import small

SHAPE = ImageShape(1, 8, 8, 10, (0.3,), (0.4,))
THREAT = {"threat": {"norm": "linf", "eps": 0.1}, "attack": {"steps": 3}}
NEEDED = {
    **THREAT,
    "threats": [THREAT["threat"], {"norm": "l2", "eps": 0.4}],
    "combine": "mean",
    "base": {"name": "adversarial", **THREAT},
}
"""What an objective may need to be told."""


def objective(**options: Any) -> Objective:
    """Return the objective that the configuration would name, of an expert with all that it needs."""
    tree = small("mixing=null", "deploy=expert:robust", "training.epochs=4").model_dump(mode="json")
    robust, needs = tree["experts"]["robust"], part("objectives", options["name"], Objective).needs
    if not isinstance(needs, frozenset):  # those of the objective that it stands around
        needs = plugin("objectives", options).needs
    if "unlabelled" in needs:
        tree["data"]["unlabelled"] = "rest"
    robust["objective"] = options
    tree["model"]["head"] = {"name": "dummy" if options["name"] == "two_hot" else "plain"}
    if "averaging" in needs:
        robust["averaging"] = 0.9
    if "two_views" in needs:
        robust["augment"] = ["crop"]
    if "teacher" in needs:
        tree["experts"]["natural"]["sequence"] = {"stop": 2}
        start_from = "natural" if "start_from" in needs else None
        robust["sequence"] = {"start": 2, "start_from": start_from, "teacher": "natural"}
    if "condition" in needs:
        tree["model"]["condition"], tree["evaluation"]["conditions"] = {}, [1]
        del tree["experts"]["natural"]
    found = check(tree).experts["robust"].objective
    assert isinstance(found, Objective)
    return found


def every_option(name: str) -> dict[str, Any]:
    """Return what an objective of this name can't do without."""
    fields = part("objectives", name, Objective).model_fields
    return {"name": name} | {key: value for key, value in NEEDED.items() if key in fields}


def new_learner(own: Objective | None = None) -> Learner:
    """Return a small network with its initial weights, beside an average, a teacher and a peer with others.

    It is conditional where an objective needs that, and has beside it what the objective trains along.
    """
    options = small().model
    if own is not None and "condition" in own.needs:
        options = options.model_copy(update={"condition": ConditionOptions()})
    model = build(options, SHAPE)
    model.load_state_dict(engine.initial_weights(options, SHAPE, 0))

    def fixed(seed: int | None = None) -> engine.FrozenNetwork:
        weights = None if seed is None else engine.initial_weights(options, SHAPE, seed)
        return engine.FrozenNetwork(model, EngineOptions(), weights)

    peer = Peer(fixed(1), torch.rand(12, 1, 8, 8, generator=torch.Generator().manual_seed(2)))
    beside = None if own is None else own.auxiliary(model)
    return Learner(model.train(), fixed(), average=fixed(2), teacher=fixed(1), peers=(peer,), auxiliary=beside)


def random_batch() -> Batch:
    """Return twelve random images, with other ones as their second views, and as many without labels."""
    draw = torch.Generator().manual_seed(1)
    labels = torch.randint(10, (12,), generator=draw)
    images, second, unlabelled = (torch.rand(12, 1, 8, 8, generator=draw) for _ in range(3))
    return Batch(images, labels, torch.arange(12), second, unlabelled)


def with_conditions(own: Objective, step: Context, learner: Learner, batch: Batch) -> Batch:
    """Return the batch as its step has it."""
    return dataclasses.replace(batch, condition=own.conditions(step, learner, batch))


def centres(own: Objective, batch: Batch) -> Images:
    """Return what an objective attacks."""
    others = {"two_views": batch.second, "unlabelled": batch.unlabelled}
    also = [images for need, images in others.items() if need in own.needs and images is not None]
    return torch.cat([batch.images, *also])


def context(own: Objective | None = None, seed: int = 0, *, progress: float = 0.0, **more: Any) -> Context:
    """Return a step with fresh random numbers; given an objective, with its tables as they begin."""
    tables = {} if own is None else own.tables(SHAPE.classes, 12)
    return Context(torch.Generator().manual_seed(seed), **{"tables": tables, **more}, _progress=progress)


def check_formula(
    own: Objective,
    step: Context,
    learner: Learner,
    batch: Batch,
    attacked: Images,
    slow: Callable[[Classifier], Tensor],
) -> None:
    """Compare an objective's loss and its gradients with those of a formula, a function of the network in float64."""
    exact = copy.deepcopy(learner.model).double()
    expected, value = slow(exact), own.loss(step, learner, batch, attacked).value
    torch.testing.assert_close(value.double(), expected, rtol=1e-4, atol=1e-5)
    pairs = zip(
        torch.autograd.grad(value, list(learner.model.parameters())),
        torch.autograd.grad(expected, list(exact.parameters())),
        strict=True,
    )
    for found, true in pairs:
        torch.testing.assert_close(found.double(), true, rtol=1e-3, atol=1e-5)
