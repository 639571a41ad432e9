"""How a model and images are handed to attacks: checked, in eval mode, by the decision, through views, put back after.

Models that draw random numbers give each pass numbers of its own, and their expectation is attacked.
"""

import copy
import hashlib
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Literal

import torch
from torch import Tensor, nn

from generalist import engine
from generalist.attacks.attack_target import AttackTarget
from generalist.attacks.fixed_batches import checked_answer, logits_of, on_behalf, tile_size
from generalist.attacks.losses import Network
from generalist.errors import BadInput
from generalist.models import Classifier
from generalist.tensors import Images, Logits

Precision = Literal["float32", "tf32", "bfloat16"]
_SLACK = {"float32": 0.0, "tf32": 0.02, "bfloat16": 0.1}
"""Of the spread of logits, by which a view may differ. Ours: TF32 moves those of ResNet-18 by up to 7e-3 of the largest
(docs/decisions.md), and bfloat16, whose mantissa is three bits shorter, by 8 times as much."""


@contextmanager
def eval_mode(model: nn.Module | Network) -> Iterator[None]:
    """Put a module into eval mode, without gradients of its parameters; other callables are taken as they are."""
    parts = [part for part in model.modules() if part.training] if isinstance(model, nn.Module) else []
    parameters = (
        [parameter for parameter in model.parameters() if parameter.requires_grad]
        if isinstance(model, nn.Module)
        else []
    )
    try:
        for part in parts:
            part.training = False
        for parameter in parameters:
            parameter.requires_grad = False
        yield
    finally:
        for part in parts:
            part.training = True
        for parameter in parameters:
            parameter.requires_grad = True


def decision_and_views(
    model: nn.Module | Network, views: Mapping[str, Network] | None
) -> tuple[Network, dict[str, Network]]:
    """Return the deployed function, and the further views to take gradients through.

    The function is named as the model where it fails, and gets a copy of the images, as `checked_answer` says.
    """
    model_views: dict[str, Network] = {"decision": model}
    if isinstance(model, Classifier):
        model_views = model.views() | model.nonadaptive()
    asked = model_views.pop("decision")
    decision = on_behalf(lambda points: checked_answer(asked, points, model=model), model)
    return decision, {**model_views, **(views or {})}


def in_float64(model: nn.Module | Network) -> Network | None:
    """Return the decision of a copy that computes in float64, for measurements; None where there is no such copy.

    Args:
        model: in eval mode; only a module can be copied. A copy that was made may still fail when it is asked.
    """
    if not isinstance(model, nn.Module):
        return None
    try:
        # What torch.compile made would be compiled anew for a handful of passes.
        finer = copy.deepcopy(getattr(model, "_orig_mod", model)).double()
    except Exception:  # noqa: BLE001  a stranger's module may be anything, and nothing depends on its copy
        return None
    return decision_and_views(finer, None)[0]


def _has_tf32(on: torch.device) -> bool:
    return on.type == "cuda"


def in_float32(decision: Network, on: torch.device) -> Network:
    """Return the decision in float32 also where TF32 is allowed around it: verdicts are float32."""
    if not _has_tf32(on):
        return decision

    def exact(points: Images) -> Logits:
        with engine.arithmetic(on):
            return decision(points)

    return on_behalf(exact, decision)


def with_fast_view(
    model: nn.Module | Network, decision: Network, precision: Precision, images: Images, logits: Logits
) -> AttackTarget:
    """Return the decision in float32, with a view of lower precision to search through where one is wanted and there.

    TF32 is a setting that holds around the whole search (`engine.arithmetic`), which the decision switches off; on a
    CPU it is float32.

    Args:
        model: in eval mode.
        decision: its deployed function.
        precision: of the view.
        images: one at least.
        logits: of the decision there; a view that disagrees is not taken.

    Raises:
        BadInput: the precision is unknown, or the model can't be computed in it.
    """
    if precision not in _SLACK:
        raise BadInput(f"there is no precision '{precision}' of searches; use one of {', '.join(_SLACK)}")
    on = images.device
    if precision == "float32" or (precision == "tf32" and not _has_tf32(on)):
        return AttackTarget(decision)
    if precision == "bfloat16" and not isinstance(model, nn.Module):
        raise BadInput("searches in bfloat16 need a torch.nn.Module; hand one over, or use float32")

    exact = in_float32(decision, on)

    def view(points: Images) -> Logits:
        with torch.autocast(on.type, torch.bfloat16, enabled=precision == "bfloat16"):
            return decision(points)

    on_behalf(view, decision)
    few, slack = slice(0, tile_size(on)), _SLACK[precision]
    spread = (logits[few].amax(1) - logits[few].amin(1)).clamp_min(1e-30)
    try:
        difference = (logits_of(view, images[few]) - logits[few]).abs().amax(1) / spread
    except BadInput as error:
        raise BadInput(f"the model can't be searched in {precision} ({error}): use precision='float32'") from error
    return (
        AttackTarget(exact, view, slack) if bool((difference <= slack).all()) else AttackTarget(exact, slack=math.inf)
    )


class Drawn:
    """A network whose n-th pass since `begin` draws numbers that depend on the seed, the purpose, the place and n."""

    def __init__(self, network: Network, seed: int, purpose: str) -> None:
        self.network, self.seed, self.purpose = network, seed, purpose
        self.begin("")

    def begin(self, place: str) -> None:
        """Start numbering passes anew, for one place of an evaluation."""
        self.key, self.passes = f"{self.seed} {self.purpose} {place}", 0

    def __call__(self, images: Images) -> Logits:
        with _numbers(f"{self.key} {self.passes}", images.device):
            self.passes += 1
            return self.network(images)


class Expectation:
    """log of the mean softmax over some draws: what an attack on the expected answer climbs (Athalye et al. 2018)."""

    def __init__(self, network: Network, draws: int, seed: int) -> None:
        self.drawn, self.draws = Drawn(network, seed, "search"), draws

    def __call__(self, images: Images) -> Logits:
        logs = torch.stack([self.drawn(images).float().log_softmax(1) for _ in range(self.draws)])
        return logs.logsumexp(0) - math.log(self.draws)


@contextmanager
def _numbers(key: str, device: torch.device) -> Iterator[None]:
    """Seed torch's global generators by a key, and put them back."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        seed = int.from_bytes(hashlib.blake2b(key.encode(), digest_size=7).digest(), "little")
        torch.default_generator.manual_seed(seed)
        if device.type == "cuda":
            torch.cuda.manual_seed(seed)
        yield


def check_images(images: Tensor, labels: Tensor) -> None:
    """Refuse what can't be attacked, before any pass.

    Raises:
        BadInput: images are not float32 [n, channels, height, width] in [0, 1], or labels not int64 [n] from 0 up on
            the same device.
    """
    for name, given in (("images", images), ("labels", labels)):
        if not isinstance(given, Tensor):
            raise BadInput(f"{name} must be a torch.Tensor, not {type(given).__name__}: convert them first")
    if images.dtype != torch.float32 or images.ndim != 4 or (len(images) and not images.numel()):
        raise BadInput(
            f"images must be float32 [n, channels, height, width], not {_described(images)}: convert them first"
        )
    if labels.dtype != torch.int64 or labels.shape != images.shape[:1]:
        raise BadInput(f"labels must be int64 [{len(images)}], one class per image, not {_described(labels)}")
    if labels.device != images.device:
        raise BadInput(f"labels are on {labels.device}, but images on {images.device}: move them to one device")
    if not len(images):
        return
    if not bool(((images >= 0) & (images <= 1)).all()):
        low, high = images.min().item(), images.max().item()
        raise BadInput(f"pixels must lie in [0, 1], but they span [{low:.4g}, {high:.4g}]: scale them first")
    if int(labels.min()) < 0:
        raise BadInput(f"label {int(labels.min())} is no class: classes are counted from 0")


def check_logits(logits: Tensor, labels: Tensor) -> None:
    """Refuse logits [n, classes] that can't be judged by these labels.

    Raises:
        BadInput: there are fewer than two classes or fewer than the labels name, or a logit is not a number.
    """
    classes = logits.shape[1]
    if classes < 2:
        raise BadInput(f"the model has {classes} outputs; a verdict needs logits of two classes at least")
    if int(labels.max()) >= classes:
        raise BadInput(f"label {int(labels.max())} is out of range: the model has {classes} classes, counted from 0")
    broken = int(logits.isnan().any(dim=1).sum())
    if broken:
        raise BadInput(f"the model gave NaN logits for {broken} of {len(logits)} images; mend the model first")


def _described(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {list(tensor.shape)}"
