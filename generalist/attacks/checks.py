"""What an evaluation refuses: images, labels and logits that would make a robust accuracy meaningless."""

import torch
from torch import Tensor

from generalist.errors import BadInput


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
