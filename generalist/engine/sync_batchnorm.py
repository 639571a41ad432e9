"""BatchNorm over the batch of all processes, on every device: torch's own SyncBatchNorm needs GPUs."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from generalist.engine.process_group import ProcessGroup, sum_in_rank_order
from generalist.models import Classifier

_PIXELS = (0, 2, 3)  # all dimensions but the channels


def convert_sync_batchnorm(model: Classifier, group: ProcessGroup) -> Classifier:
    """Return the model with BatchNorms that in training see the images of all processes; alone, it stays as it is.

    Parameters, buffers and their names stay the same.
    """
    if group.size > 1:
        for name, module in list(model.named_modules()):
            if type(module) is nn.BatchNorm2d:
                above, _, attribute = name.rpartition(".")
                setattr(model.get_submodule(above), attribute, SynchronisedBatchNorm(module, group))
    return model


class SynchronisedBatchNorm(nn.BatchNorm2d):
    """The tensors of a BatchNorm2d; in training, statistics are those of all processes' images together."""

    def __init__(self, norm: nn.BatchNorm2d, group: ProcessGroup) -> None:
        affine, tracked = norm.affine, norm.track_running_stats
        super().__init__(norm.num_features, norm.eps, norm.momentum, affine, tracked, device="meta")
        for name, tensor in (*norm.named_parameters(recurse=False), *norm.named_buffers(recurse=False)):
            setattr(self, name, tensor)
        self.train(norm.training)
        self.group = group

    def forward(self, given: Tensor) -> Tensor:
        """Normalise values [batch, channels, height, width], and follow the statistics in training."""
        if not self.training:
            return super().forward(given)
        result, mean, variance, count = _Normalise.apply(given, self.weight, self.bias, self.eps, self.group)  # type: ignore[no-untyped-call]
        self._follow(mean, variance * (count / (count - 1)))
        normalised: Tensor = result
        return normalised

    @torch.no_grad()
    def _follow(self, mean: Tensor, variance: Tensor) -> None:
        if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
            return
        self.num_batches_tracked.add_(1)
        new = 1 / self.num_batches_tracked if self.momentum is None else self.momentum
        self.running_mean.mul_(1 - new).add_(new * mean)
        self.running_var.mul_(1 - new).add_(new * variance)


class _Normalise(torch.autograd.Function):
    """(x - mean) / sqrt(variance + eps) * weight + bias, mean and variance over the images of all processes.

    Processes tell each other means and variances, not sums of squares, whose difference would lose digits (Chan,
    Golub and LeVeque 1983, equation 2.1). Gradients of weight and bias stay this process's part of the sum.
    """

    @staticmethod
    def forward(
        ctx: Any, given: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float, group: ProcessGroup
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        values = given.float()
        own_variance, own_mean = torch.var_mean(values, dim=_PIXELS, correction=0)
        own_count = own_mean.new_full((1,), given.numel() // given.shape[1])
        parts = torch.stack(group.all_gather(torch.cat((own_count, own_mean, own_variance)))).double()
        counts, (means, variances) = parts[:, :1], parts[:, 1:].chunk(2, dim=1)
        count = counts.sum()
        mean = (counts * means).sum(0) / count
        variance = (counts * (variances + (means - mean).square())).sum(0) / count
        scale = (variance + eps).rsqrt().float()
        mean, variance = mean.float(), variance.float()
        ctx.save_for_backward(given, weight, mean, scale, count)
        ctx.group = group
        ctx.mark_non_differentiable(mean, variance, count)
        result = (values - _wide(mean)) * _wide(scale if weight is None else scale * weight)
        result = result if bias is None else result + _wide(bias)
        return result.to(given.dtype), mean, variance, count

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor, *_: Any) -> tuple[Tensor, Tensor | None, Tensor | None, None, None]:
        given, weight, mean, scale, count = ctx.saved_tensors
        gradient = gradient.float()
        normalised = (given.float() - _wide(mean)) * _wide(scale)
        sums = torch.cat((gradient.sum(_PIXELS), (gradient * normalised).sum(_PIXELS)))
        of_bias, of_weight = sums.chunk(2)
        means = (sum_in_rank_order(ctx.group.all_gather(sums)).double() / count).float()
        constant, slope = means.chunk(2)
        of_given = (gradient - _wide(constant) - normalised * _wide(slope)) * _wide(
            scale if weight is None else scale * weight
        )
        has = weight is not None
        return of_given.to(given.dtype), of_weight if has else None, of_bias if has else None, None, None


def _wide(by_channel: Tensor) -> Tensor:
    """Return one number per channel, ready to meet images."""
    return by_channel.view(1, -1, 1, 1)
