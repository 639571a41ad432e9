"""What users hand over: tensors with a history, and models that write on their input, fail, or give no logits."""

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from generalist.attacks import (
    VERSIONS,
    AttackProgress,
    apgd,
    attack_ensemble,
    attack_from,
    autoattack,
    fab,
    misclassified,
    model_checks,
    pgd,
    square,
)
from generalist.config import AttackOptions
from generalist.errors import BadInput
from generalist.randomness import ImageStreams
from generalist.threats import Threat
from tests.strategies import generator, problem

THREAT = Threat("linf", 0.06)
NETWORK, IMAGES, LABELS = problem(12, (3, 6, 6))


@pytest.fixture(autouse=True)
def _short(monkeypatch):
    """Few steps of every kind."""
    monkeypatch.setattr(model_checks, "_HUGE_STEPS", 2)
    few = replace(VERSIONS["standard"], targets=2, steps=4, fab_steps=3)
    monkeypatch.setitem(VERSIONS, "standard", few)
    monkeypatch.setitem(VERSIONS, "rand", replace(VERSIONS["rand"], steps=2, draws=2, restarts=1))
    monkeypatch.setattr(attack_ensemble, "_VERDICT_DRAWS", 4)


def streams() -> ImageStreams:
    """Random numbers of the images."""
    return ImageStreams.of(IMAGES, LABELS, seed=0)


ATTACKS: dict[str, Callable[..., Tensor]] = {
    "autoattack": lambda net, x, y: autoattack(net, x, y, THREAT, square_queries=20).adversarial,
    "rand": lambda net, x, y: autoattack(net, x, y, THREAT, version="rand", attacks=["apgd-ce"]).adversarial,
    "apgd": lambda net, x, y: apgd(net, x, y, THREAT, start=x, steps=3, targets=None).best,
    "fab": lambda net, x, y: fab(net, x, y, THREAT, start=x, steps=3).adversarial,
    "fab, targeted": lambda net, x, y: fab(net, x, y, THREAT, targets=(y + 1) % 4, steps=3).adversarial,
    "square": lambda net, x, y: square(net, x, y, THREAT, streams(), queries=20).adversarial,
    "pgd": lambda net, x, y: pgd(net, x, y, THREAT, steps=3, generator=generator(0)),
    "pgd from a start": lambda net, x, y: pgd(net, x, y, THREAT, steps=3, start=x),
    "pgd from the images": lambda net, x, y: pgd(net, x, y, THREAT, steps=3, random_start=False),
    "fgsm": lambda net, x, y: attack_from(AttackOptions(name="fgsm"), THREAT)(net, x, y),
}


@cache
def expected(name: str) -> Tensor:
    """Return what an attack finds on plain tensors."""
    return ATTACKS[name](NETWORK, IMAGES, LABELS)


every_attack = pytest.mark.parametrize("attack", ATTACKS)


# Tensors with a history.


def within_a_wider_one(images: Tensor) -> Tensor:
    """Return a view of every other column."""
    wide = torch.zeros(*images.shape[:3], 2 * images.shape[3])
    wide[..., ::2] = images
    return wide[..., ::2]


def from_inference_mode(images: Tensor) -> Tensor:
    """Return a tensor that autograd refuses to save."""
    with torch.inference_mode():
        return images.clone()


HISTORIES: dict[str, Callable[[Tensor], Tensor]] = {
    "needs a gradient": lambda x: x.clone().requires_grad_(x.is_floating_point()),
    "result of a function": lambda x: x.clone().requires_grad_() * 1 if x.is_floating_point() else x,
    "parameter": lambda x: nn.Parameter(x.clone(), requires_grad=x.is_floating_point()),
    "inference tensor": from_inference_mode,
    "view": lambda x: torch.cat([x, x])[len(x) :],
    "not contiguous": lambda x: within_a_wider_one(x) if x.ndim == 4 else torch.stack([x, x], 1)[:, 0],
    "channels last": lambda x: x.contiguous(memory_format=torch.channels_last) if x.ndim == 4 else x,
}


@every_attack
@pytest.mark.parametrize("history", HISTORIES.values(), ids=HISTORIES)
def test_inputs_may_have_any_history(attack, history):
    """The result is that of plain tensors, has no graph, and inputs stay as they are."""
    images, labels = history(IMAGES), history(LABELS)
    needed = images.requires_grad
    found = ATTACKS[attack](NETWORK, images, labels)
    assert not found.requires_grad
    if history is HISTORIES["channels last"] and attack == "pgd":
        assert (THREAT.distance(found, IMAGES) <= 0.06).all()  # a generator draws in the order of memory
    else:
        assert torch.allclose(found, expected(attack), atol=1e-4)
    assert torch.equal(images.detach(), IMAGES) and torch.equal(labels, LABELS)
    assert images.requires_grad == needed and (not images.is_leaf or images.grad is None)


@every_attack
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode], ids=["no_grad", "inference_mode"])
def test_attacks_know_no_mode_of_autograd(attack, mode):
    """Called where gradients are switched off, they find the same."""
    plain = expected(attack)
    with mode():
        found = ATTACKS[attack](NETWORK, IMAGES.clone(), LABELS.clone())
    assert torch.equal(found, plain) and not found.is_inference()


def test_an_image_repeated_by_a_view_is_attacked_as_often():
    """A tensor whose rows share their memory."""
    images, labels = IMAGES[1:2].expand(3, -1, -1, -1), LABELS[1:2].expand(3)
    for attack in (ATTACKS["autoattack"], ATTACKS["apgd"], ATTACKS["fab"], ATTACKS["pgd from the images"]):
        found = attack(NETWORK, images, labels)
        assert found.shape == images.shape and torch.equal(found[0], found[2])


# Models that write on their input.


class InPlace(nn.Module):
    """Normalises its input where it lies."""

    def forward(self, images: Tensor) -> Tensor:
        return NETWORK(images.sub_(0.1).div_(0.8))


@every_attack
def test_a_model_that_normalises_in_place_is_attacked_as_its_twin(attack):
    """Bit for bit, and the images stay as they are."""
    images = IMAGES.clone()
    labels = NETWORK((IMAGES - 0.1) / 0.8).argmax(1)
    twin = ATTACKS[attack](lambda x: NETWORK((x - 0.1) / 0.8), images, labels)
    assert torch.equal(ATTACKS[attack](InPlace(), images, labels), twin)
    assert torch.equal(images, IMAGES)


# Models that fail.


class Model(nn.Module):
    """What a user may write: `after` changes the logits, `before` the images."""

    def __init__(self, before: Callable[[Tensor], Tensor] | None = None, after: Callable[[Tensor], Any] | None = None):
        super().__init__()
        self.network = problem(1, (3, 6, 6))[0]
        self.before, self.after = before, after

    def forward(self, images: Tensor) -> Any:
        logits = self.network(images if self.before is None else self.before(images))
        return logits if self.after is None else self.after(logits)


def raising(_: Tensor) -> Tensor:
    """Two lines, of which one is of use."""
    raise KeyError("no such layer\nand a page more")


FAILING: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "batch of 16": (
        lambda: Model(lambda x: x.view(16, 3, 6, 6)),
        r"fails on float32 images \[64, 3, 6, 6\] on cpu, .*shape '\[16, 3, 6, 6\]' is invalid",
    ),
    "batch of 32": (
        lambda: Model(lambda x: x[:32]),
        r"must map 64 images to logits \[64, classes\], but gave an output of shape \[32, 4\]",
    ),
    "bfloat16": (lambda: Model().bfloat16(), r"fails on float32 images .*RuntimeError: .*(BFloat16|bfloat16)"),
    "half": (lambda: Model().half(), "fails on float32 images .*RuntimeError: .*([hH]alf|float16)"),
    "another device": (lambda: Model().to("meta"), "on cpu, .*RuntimeError|numbers on meta"),
    "device of the output": (lambda: Model(after=lambda z: z.to("meta")), "gave an output of numbers on meta"),
    "raises": (lambda: Model(raising), r"\(KeyError: 'no such layer"),
    "tuple": (lambda: Model(after=lambda z: (z, z)), "an output of type tuple"),
    "dict": (lambda: Model(after=lambda z: {"logits": z}), "an output of type dict"),
    "numpy": (lambda: Model(after=lambda z: z.detach().numpy()), "an output of type ndarray"),
    "nothing": (lambda: Model(after=lambda _: None), "an output of type NoneType"),
    "classes": (lambda: Model(after=lambda z: z.argmax(1)), r"an output of shape \[64\]"),
    "a number": (lambda: Model(after=lambda z: z.sum()), r"an output of shape \[\]"),
    "integers": (lambda: Model(after=lambda z: (10 * z).long()), "an output of int64 numbers"),
    "truths": (lambda: Model(after=lambda z: z > 0), "an output of bool numbers"),
    "complex": (lambda: Model(after=lambda z: z.to(torch.complex64)), "an output of complex64 numbers"),
}


@pytest.mark.parametrize(("model", "reason"), FAILING.values(), ids=FAILING)
@pytest.mark.parametrize("attack", ["autoattack", "rand", "fab", "square"])
def test_a_model_that_fails_is_told_in_one_sentence(attack, model, reason):
    """Which names its class, and keeps the error that it raised."""
    with pytest.raises(BadInput, match=reason) as told:
        ATTACKS[attack](model(), IMAGES, LABELS)
    sentence = str(told.value)
    assert sentence.startswith("the model Model ") and "\n" not in sentence
    assert (told.value.__cause__ is not None) == ("fails" in sentence)


@pytest.mark.parametrize("name", ["pgd", "fgsm"])
def test_attacks_of_training_tell_it_too(name):
    """Here in batches as they come."""
    with pytest.raises(BadInput, match=r"the model Model fails on float32 images \[12, 3, 6, 6\] on cpu, .*KeyError"):
        ATTACKS[name](Model(raising), IMAGES, LABELS)


def test_it_is_told_before_any_attack(monkeypatch):
    """Also where only gradients fail, and by the name of a function, where it is one."""

    class Broken(torch.autograd.Function):
        @staticmethod
        def forward(_, points):
            return points.clone()

        @staticmethod
        def backward(_, gradient):
            raise NotImplementedError("no backward pass")

    def unfinished(points: Tensor) -> Tensor:
        return NETWORK(Broken.apply(points))

    watched: list[AttackProgress] = []
    with pytest.raises(BadInput, match=r"the model unfinished has no gradient at .*NotImplementedError: no backward"):
        autoattack(unfinished, IMAGES, LABELS, THREAT, watch=watched.append)
    assert not watched
    with pytest.raises(BadInput, match="the model unfinished has no gradient"):
        autoattack(unfinished, IMAGES, LABELS, THREAT, version="rand")
    black_box = autoattack(unfinished, IMAGES, LABELS, THREAT, attacks=["square"], square_queries=20)
    assert black_box.clean.any()


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
        MemoryError(),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
        KeyboardInterrupt(),
    ],
    ids=["cuda", "python", "cpu", "interrupt"],
)
def test_a_lack_of_memory_keeps_its_name(error):
    """As callers try smaller batches then; and Ctrl-C is no failure of a model."""

    def full(_: Tensor) -> Tensor:
        raise error

    with pytest.raises(type(error)) as raised:
        autoattack(Model(full), IMAGES, LABELS, THREAT)
    assert raised.value is error


def test_a_model_that_takes_half_precision_itself_is_attacked():
    """Casting inside is its own affair; verdicts are those of its answers."""
    model = Model(lambda x: x.bfloat16(), lambda z: z.float())
    model.network.bfloat16()
    result = autoattack(model, IMAGES, LABELS, THREAT, square_queries=20)
    assert torch.equal(result.clean, ~misclassified(model(IMAGES), LABELS)) and "gradient mismatch" not in result.flags


@pytest.mark.parametrize(
    ("images", "labels", "reason"),
    [
        (IMAGES.numpy(), LABELS, "images must be a torch.Tensor, not ndarray"),
        (list(IMAGES), LABELS, "images must be a torch.Tensor, not list"),
        (IMAGES, LABELS.tolist(), "labels must be a torch.Tensor, not list"),
        (IMAGES, np.asarray(LABELS), "labels must be a torch.Tensor, not ndarray"),
        (IMAGES, LABELS.to("meta"), "labels are on meta, but images on cpu: move them to one device"),
    ],
)
def test_other_containers_and_places_are_refused(images, labels, reason):
    """Before the model is asked anything."""
    with pytest.raises(BadInput, match=reason):
        autoattack(NETWORK, images, labels, THREAT)
