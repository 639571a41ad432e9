"""BatchNorm folded into the convolutions before it: the same eval-mode function with fewer operations."""

import warnings

from torch import nn


def folded(model: nn.Module) -> nn.Module:
    """A copy of a network in eval mode in which each convolution and its BatchNorm are one convolution.

    Logits differ by rounding, unless one convolution is used twice: compare. Where there is nothing to fold, or torch
    can't trace the network, it is the network itself.
    """
    if not any(isinstance(part, nn.modules.batchnorm._BatchNorm) for part in model.modules()):
        return model
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of torch about its own parts
            from torch.fx.experimental.optimization import fuse  # takes a second, and few need it

            fused: nn.Module = fuse(model)
    except Exception:  # noqa: BLE001  whatever tracing meets in somebody's code
        return model
    return fused.eval()
