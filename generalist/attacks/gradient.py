"""PGD, and FGSM as its single step: one loop of projected gradient ascent, the inner loop of adversarial training."""

import functools
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from generalist import engine
from generalist.attacks.fixed_batches import checked_answer, detached
from generalist.attacks.losses import Loss, Network, Reference, cross_entropy, misclassified
from generalist.config import AttackOptions
from generalist.errors import BadInput
from generalist.tensors import Images, PerImage
from generalist.threats import Threat


def input_gradient(network: Network, images: Images, labels: Reference, loss: Loss) -> Images:
    """Return the gradient of each image's loss with respect to that image.

    Args:
        network: from images to logits.
        images: float [batch, channels, height, width].
        labels: int64 [batch], or what else the loss compares logits with.
        loss: one number per image.
    """
    return _outputs_and_gradient(network, images, labels, loss)[1]


def _outputs_and_gradient(network: Network, images: Images, labels: Reference, loss: Loss) -> tuple[Tensor, Images]:
    leaf = images.detach().requires_grad_()
    with torch.enable_grad():
        outputs = network(leaf)
        (gradient,) = torch.autograd.grad(loss(outputs, labels).sum(), leaf)
    return outputs.detach(), gradient


@torch.inference_mode(mode=False)
def pgd(
    network: Network,
    images: Images,
    labels: Reference,
    threat: Threat,
    *,
    steps: int,
    step_size: float | None = None,
    random_start: bool = True,
    loss: Loss = cross_entropy,
    generator: torch.Generator | None = None,
    start: Images | None = None,
    scale: PerImage | None = None,
    patience: int | None = None,
) -> Images:
    """Attack by projected gradient ascent (Madry et al., ICLR 2018): exactly `steps` gradients, to the last point.

    Gradients are with respect to the images alone; the network's parameters, their `.grad` and torch's
    global generator stay as they are. Modes are the caller's: hand over a network in eval mode.

    Args:
        network: from images to logits, differentiable.
        images: float [batch, channels, height, width] in [0, 1]; this and the other tensors may need gradients, be
            views, or come from inference mode.
        labels: int64 [batch], or what else the loss compares the network's outputs with, one row per image.
        threat: the ball to stay in.
        steps: gradients to take.
        step_size: pixel units, by default 2.5 eps / steps.
        random_start: begin at a random point of the ball, drawn by `generator`; otherwise at the images.
        loss: what to raise, one number per image.
        generator: random numbers of the start, on the device of the images.
        start: begin at these points, projected, instead.
        scale: factor on eps and on the step size of each image, 1 by default.
        patience: an image stays at the first point that is misclassified after so many steps from such points; by
            default it never stays. With as many as there are steps it doesn't either.

    Raises:
        BadInput: no steps, or a random start without a generator; a start in a space that has no images as points; a
            network that fails, or gives no logits.
    """
    if steps < 1:
        raise BadInput(f"the attack has {steps} steps; give it one at least")
    if start is None and random_start and generator is None:
        raise BadInput("a random start needs a generator: pass generator=… or random_start=False")
    if (space := threat.space) is not None:
        if start is not None and not space.moves_pixels:
            raise BadInput(f"an attack within {threat} can't begin at given images: let it begin at random")
        points = pgd(
            space.through(network),
            space.points(images),
            labels,
            threat.of_points,
            steps=steps,
            step_size=None if step_size is None else space.unit * step_size,
            random_start=random_start,
            loss=loss,
            generator=generator,
            start=start,
            scale=scale,
            patience=patience,
        )
        return space.images(points)
    images, labels = detached(images), detached(labels)
    size = 2.5 * threat.eps / steps if step_size is None else float(step_size)
    if start is not None:
        points = threat.ball(images, scale).project_(start.detach().clone())
    elif random_start and generator is not None:
        ball = threat.ball(images, scale)
        points = ball.project_(ball.random_offset(generator).add_(images))
    else:
        points = images.clone()

    # A network of ours is trusted, as thousands of its passes may be one graph; another one may do anything.
    asked = network if isinstance(network, engine.FrozenNetwork) else functools.partial(checked_answer, network)

    def ascend(points: Tensor, images: Tensor, labels: Tensor, scale: Tensor | None = None) -> Tensor:
        ball = threat.ball(images, scale)
        wrong = torch.zeros(len(points), dtype=torch.int64, device=points.device)
        with torch.no_grad():
            for _ in range(steps):
                outputs, gradient = _outputs_and_gradient(asked, points, labels, loss)
                step = ball.steepest_ascent(gradient)
                if patience is not None:
                    wrong += misclassified(outputs, labels)
                    step *= (wrong <= patience).view(-1, 1, 1, 1)
                if scale is None:
                    ball.project_(points.add_(step, alpha=size))
                else:
                    ball.project_(points.add_(step * (scale.view(-1, 1, 1, 1) * size)))
        return points

    def agrees(result: Tensor, expected: Tensor) -> bool:
        farthest = float(threat.eps) * (1 if scale is None else scale)
        inside = (threat.distance(result, images) <= farthest + _APART).all()
        equal = (result - expected).abs() <= _APART
        return bool(inside & (result.amin() >= 0) & (result.amax() <= 1) & (equal.float().mean() >= _EQUAL))

    inputs = (points, images, labels) if scale is None else (points, images, labels, scale)
    return engine.repeated(network, ("pgd", loss, threat, steps, size, patience), ascend, inputs, agrees)


_APART, _EQUAL = 1e-4, 0.99
"""Where a sign hangs on the last bits of a gradient, a repeated attack may go another way; this share must not."""


@dataclass(frozen=True)
class ResolvedAttack:
    """An attack of the configuration with every default filled in: those that do the same are equal.

    Attributes:
        threat: the ball to stay in.
        steps, step_size, random_start: of `pgd`.
    """

    threat: Threat
    steps: int
    step_size: float
    random_start: bool

    @property
    def settings(self) -> dict[str, Any]:
        """Plain values, by their names in `pgd`."""
        return {"steps": self.steps, "step_size": self.step_size, "random_start": self.random_start}

    def __call__(self, network: Network, images: Images, labels: Reference, **more: Any) -> Images:
        """Return adversarial images, as `pgd` makes them; `more` are its loss, generator and start."""
        return pgd(network, images, labels, self.threat, **self.settings, **more)


def attack_from(options: AttackOptions, threat: Threat) -> ResolvedAttack:
    """Return the attack that the configuration names: FGSM is one whole step from the image."""
    single = options.name == "fgsm"
    steps = 1 if single else options.steps
    usual = float(threat.eps) if single else 2.5 * threat.eps / steps
    size = usual if options.step_size is None else float(options.step_size)
    return ResolvedAttack(threat, steps, size, options.random_start and not single)
