"""AutoAttack (Croce and Hein, ICML 2020): several attacks in turn, each on the images that survived the ones before."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from generalist import engine
from generalist.attacks.attack_target import AttackTarget
from generalist.attacks.autoattack_config import AutoAttackConfig
from generalist.attacks.evaluation_state import EvaluationState
from generalist.attacks.fixed_batches import on_behalf
from generalist.attacks.losses import Network
from generalist.attacks.members import GRADIENT_FREE, chosen, meaningful, member, member_names
from generalist.attacks.model_adapter import (
    Drawn,
    Expectation,
    Precision,
    check_images,
    decision_and_views,
    eval_mode,
    in_float32,
    in_float64,
    with_fast_view,
)
from generalist.attacks.model_checks import check_gradients, check_outputs
from generalist.attacks.point_model import PointModel, views_of_points
from generalist.attacks.result import AttackProgress, AutoAttackResult
from generalist.attacks.resume import StateFile, identity
from generalist.errors import BadInput
from generalist.randomness import ImageStreams
from generalist.tensors import Logits
from generalist.threats import Threat

_VERDICT_DRAWS = 100  # of a random model, for each verdict


def autoattack(  # noqa: C901  a whole evaluation, in the order in which it happens
    model: nn.Module | Network,
    images: Tensor,
    labels: Tensor,
    threat: Threat,
    *,
    version: str = "standard",
    seed: int = 0,
    batch_size: int = 256,
    attacks: Sequence[str] | None = None,
    square_queries: int = 5000,
    views: Mapping[str, Network] | None = None,
    precision: Precision = "float32",
    state: Path | None = None,
    watch: Callable[[AttackProgress], None] | None = None,
) -> AutoAttackResult:
    """Return per-image verdicts by a cascade of attacks.

    A verdict depends on the image, its label, the model, the threat and the seed: not on batch size, order
    or neighbours (with `rand` it does, as the model draws its numbers for whole batches). Every success is
    confirmed by another forward pass in float32, inside ball (float64) and pixel range; a tie of the label with
    another class counts as broken. A module is attacked in eval mode and then put back; modes,
    `requires_grad`, `.grad` and torch's global generator are left as found.

    Args:
        model: from float32 images in [0, 1] to logits [n, classes], each image on its own and always the same;
            for `rand` it may draw from torch's global generator. A `Classifier` brings its own views.
        images: float32 [n, channels, height, width] in [0, 1], on the model's device; n may be 0.
        labels: int64 [n].
        threat: such as `Threat("linf", 8 / 255)`.
        version: which attacks, see `VERSIONS`; without those that mean nothing in the threat's space.
        seed: of all random numbers.
        batch_size: images at a time, rounded up to whole tiles (64 images on a CPU); runs, if images are large: a
            cap on memory.
        attacks: single attacks by name in place of the version's.
        square_queries: forward passes of Square per image.
        views: further differentiable functions from images to logits to take gradients through, by name, such
            as the members of an ensemble; the verdict is always by the model.
        precision: of searches: `tf32` is float32 where there is none, `bfloat16` needs a module. Verdicts are float32
            always.
        state: a file to go on from and to keep the state in; it stays when all is done.
        watch: told how far each attack is, before its first batch and after each.

    Raises:
        BadInput: an unknown name, or one that means nothing in the threat's space; images or labels of a wrong type,
            shape, range or place; a threat that allows every image; a model that fails, or gives no logits for two
            classes at least, or something that is not a number.
        StateLost: the state is damaged, or one of another evaluation.
    """
    preset, names = chosen(version, attacks)
    check_images(images, labels)
    if len(images):
        threat.check_fits(images.shape[1:])
    names = _within(threat, names, asked=attacks is not None)
    if threat.space is not None:
        result = autoattack(
            PointModel(model, threat.space),
            threat.space.points(images.detach()),
            labels,
            threat.of_points,
            version=version,
            seed=seed,
            batch_size=batch_size,
            attacks=names,
            square_queries=square_queries,
            views=views_of_points(model, views, threat.space),
            precision=precision,
            state=state,
            watch=watch,
        )
        return replace(result, adversarial=threat.space.images(result.adversarial).detach())
    if batch_size < 1 or square_queries < 1:
        raise BadInput(f"batch_size ({batch_size}) and square_queries ({square_queries}) must be 1 at least")
    random = preset.draws > 1
    tf32 = engine.arithmetic(images.device, tf32=precision == "tf32")
    with tf32, eval_mode(model), torch.inference_mode(mode=False):
        images, labels = images.detach().clone(), labels.detach().clone()
        asked, views = decision_and_views(model, views)
        exact = in_float32(asked, images.device)
        decision = Drawn(exact, seed, "verdict") if random else exact
        verdict_draws = _VERDICT_DRAWS if random else 1
        evaluation = EvaluationState(
            decision, images, labels, threat, batch_size, draws=verdict_draws, search_draws=preset.draws
        )
        if not len(images):
            return evaluation.result()
        logits = evaluation.clean_pass()
        target = (
            AttackTarget(decision, on_behalf(Expectation(asked, preset.draws, seed), model))
            if random
            else with_fast_view(model, asked, precision, images, logits)
        )
        setting = AutoAttackConfig(
            target,
            views,
            threat,
            classes=logits.shape[1],
            restarts=preset.restarts,
            targets=preset.targets,
            steps=preset.steps,
            fab_steps=preset.fab_steps,
            queries=square_queries if preset.queries is None else preset.queries,
            keep_going_when_broken=random,
        )
        file = None
        if state is not None:
            settings = repr((names, preset, setting.queries, precision))
            file = StateFile(state, identity(model, views, images, labels, logits, threat, names, settings, seed))
            stored = file.read()
            if stored is None:
                file.write(*evaluation.state(), now=True)  # a file that can't be written is known before the work
            else:
                try:
                    evaluation.resume(stored)
                except (LookupError, TypeError, ValueError):
                    raise file.damaged() from None
        streams = ImageStreams.of(images, labels, seed=seed)
        if not evaluation.examined:
            _check_model(evaluation, model, names, streams, logits, random=random)

        def before(place: str) -> None:
            for network in (decision, target.view.drawn if isinstance(target.view, Expectation) else None):
                if isinstance(network, Drawn):
                    network.begin(place)

        def after(standing: AttackProgress) -> None:
            if file is not None and standing.images:
                file.write(*evaluation.state())
            if watch is not None:
                watch(standing)

        for name in names:
            evaluation.attack(name, member(name)(setting), streams, before=before, after=after)
        if file is not None:
            file.write(*evaluation.state(), now=True)
    return evaluation.result()


def _within(threat: Threat, names: tuple[str, ...], *, asked: bool) -> tuple[str, ...]:
    """Return the attacks that mean something within a threat; refuse others that were asked for by name."""
    known = meaningful(names, threat)
    if others := [name for name in names if name not in known and (asked or not known)]:
        raise BadInput(
            f"{' and '.join(others)} can't attack within {threat}, where there is no ball of pixels: leave it out, or"
            f" ask for {' or '.join(meaningful(member_names(), threat))}"
        )
    return known


def _check_model(
    evaluation: EvaluationState,
    model: nn.Module | Network,
    names: Sequence[str],
    streams: ImageStreams,
    logits: Logits,
    *,
    random: bool,
) -> None:
    """Examine what may be wrong with the model, before any attack."""
    everything = torch.arange(len(evaluation.images), device=evaluation.images.device)
    if not random:
        for rows in everything.split(evaluation.batch_size):
            evaluation.examine(rows, check_outputs(evaluation.model, evaluation.images[rows], logits[rows]))
        if not set(names) <= set(GRADIENT_FREE):
            precise = in_float64(model)
            for rows in evaluation.robust.nonzero().squeeze(1).split(evaluation.batch_size):
                if len(rows):
                    numbers = streams.child("examination")[rows]
                    findings = check_gradients(
                        evaluation.model,
                        evaluation.images[rows],
                        evaluation.labels[rows],
                        evaluation.threat,
                        numbers,
                        precise=precise,
                    )
                    evaluation.examine(rows, findings)
    evaluation.examined = True
