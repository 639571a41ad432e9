"""Random numbers keyed by what they are for; nothing reads or moves torch's global generator.

Streams are named by purpose and are the same for all experts, so two trainings that agree in seed
and options share their bits whatever their experts are called.
"""

import hashlib
import math
from collections.abc import Callable
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

Stream = Literal["init", "auxiliary", "order", "augment", "attack", "evaluation"]


def generator(seed: int, stream: Stream, *key: int, device: torch.device | str = "cpu") -> torch.Generator:
    """Return a generator for one purpose at one place of the training.

    Args:
        seed: the configuration's seed.
        stream: the purpose.
        key: where in the training, such as (epoch, step).
        device: where its numbers are drawn.
    """
    text = repr((seed, stream, *key)).encode()
    state = int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little")
    return torch.Generator(device=device).manual_seed(state & (2**63 - 1))


def permutation(seed: int, epoch: int, count: int) -> Tensor:
    """Return the order of the training images in an epoch: int64 [count]."""
    return torch.randperm(count, generator=generator(seed, "order", epoch))


class PartOfBatch(torch.Generator):
    """Random numbers of some rows of a batch: those that a plain generator draws for them in the whole batch.

    It works through `uniform_like` and its sisters, so whatever is drawn for images goes through these.
    """

    rows: slice
    whole: int

    def __new__(cls, numbers: torch.Generator, rows: slice, whole: int) -> "PartOfBatch":
        """Return the numbers of a fresh generator, for `rows` of a batch of `whole`."""
        part: PartOfBatch = super().__new__(cls, numbers.device)  # type: ignore[call-arg]  # torch's takes the device
        part.manual_seed(numbers.initial_seed())
        part.rows, part.whole = rows, whole
        return part


def uniform_like(images: Tensor, low: float, high: float, *, generator: torch.Generator) -> Tensor:
    """Return uniform numbers in [low, high), shaped as the images."""
    return _filled(images, generator, lambda room: room.uniform_(low, high, generator=generator))


def normal_like(images: Tensor, *, std: float = 1.0, generator: torch.Generator) -> Tensor:
    """Return normal numbers of mean 0, shaped as the images."""
    return _filled(images, generator, lambda room: room.normal_(0, std, generator=generator))


def exponential_like(images: Tensor, *, generator: torch.Generator) -> Tensor:
    """Return exponential numbers of mean 1, shaped as the images."""
    return _filled(images, generator, lambda room: room.exponential_(generator=generator))


def whole_number(below: int, *, generator: torch.Generator) -> int:
    """Return a number in [0, below) for a whole batch: the same in every process that shares it."""
    return int(torch.randint(below, (), generator=generator, device=generator.device))


def _filled(images: Tensor, generator: torch.Generator, fill: Callable[[Tensor], Tensor]) -> Tensor:
    if not isinstance(generator, PartOfBatch):
        return fill(torch.empty_like(images))
    drawn = fill(images.new_empty((generator.whole, *images.shape[1:])))[generator.rows]
    if len(drawn) != len(images):
        raise ValueError(f"numbers for {len(images)} images, but this process has {len(drawn)} of the batch")
    return drawn


class ImageStreams:
    """One stream of random numbers per image, keyed by the image and by what the numbers are for.

    The numbers of an image depend on its own pixels and label, the seed and the purpose, never on the
    images beside it, their order or their number; nothing is consumed, so drawing twice gives the
    same. Each number is a hash of (key, draw, element): splitmix64's output function (Steele, Lea and
    Flood 2014), once over the draw and once over the element. Numbers lie on the device of the keys.
    """

    def __init__(self, keys: Int[Tensor, " batch"]) -> None:
        self.keys = keys

    @classmethod
    def of(
        cls, images: Float[Tensor, "batch channels height width"], labels: Int[Tensor, " batch"], *, seed: int
    ) -> "ImageStreams":
        """Return the streams of these images: keyed by the seed and the SHA-256 of float32 pixels and label."""
        pixels = images.detach().to("cpu", torch.float32).contiguous().numpy()
        classes = labels.detach().to("cpu", torch.int64).numpy()
        heads = [
            hashlib.sha256(image.tobytes() + label.tobytes()).digest()[:8]
            for image, label in zip(pixels, classes, strict=True)
        ]
        keys = torch.tensor([int.from_bytes(head, "little", signed=True) for head in heads], dtype=torch.int64)
        return cls(keys.to(images.device)).child(seed)

    def child(self, *purpose: str | int) -> "ImageStreams":
        """Return independent streams of the same images for a purpose, such as ("apgd-ce", restart)."""
        text = repr(purpose).encode()
        word = int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little", signed=True)
        return ImageStreams(_mix_(self.keys ^ word))

    def __len__(self) -> int:
        return len(self.keys)

    def __getitem__(self, rows: Tensor) -> "ImageStreams":
        """Return the streams of some of the images, by mask or by indices."""
        return ImageStreams(self.keys[rows])

    def uniform(self, draw: int | range, *shape: int) -> Tensor:
        """Return float32 in [0, 1), multiples of 2^-24: [batch, *shape], or [batch, draws, *shape] for a range."""
        return _unit(self._bits(draw, shape) >> 40)

    def normal(self, draw: int | range, *shape: int) -> Tensor:
        """Return float32 standard normal, shaped as in `uniform` (Box and Muller 1958)."""
        bits = self._bits(draw, shape)
        # In float64, as a library's float32 logarithm may round differently by the place in memory.
        radius = _unit(bits >> 40).double().add_(2**-25).log_().mul_(-2).sqrt_()
        angle = _unit(bits).double().mul_(2 * math.pi)
        return radius.mul_(angle.cos_()).float()

    def integers(self, draw: int | range, *shape: int, below: int) -> Tensor:
        """Return int64 in [0, below) for below up to 2^30, shaped as in `uniform`."""
        return ((self._bits(draw, shape) >> 32) & 0xFFFFFFFF).mul_(below) >> 32

    def signs(self, draw: int | range, *shape: int) -> Tensor:
        """Return float32 of -1 and 1, shaped as in `uniform`."""
        return ((self._bits(draw, shape) >> 62) & 2).sub_(1).float()

    def _bits(self, draw: int | range, shape: tuple[int, ...]) -> Tensor:
        """Return 64 random bits as int64: [batch, *shape] or [batch, draws, *shape]."""
        draws = draw if isinstance(draw, range) else range(draw, draw + 1)
        device, count = self.keys.device, math.prod(shape)
        counters = torch.arange(draws.start, draws.stop, draws.step, device=device).add_(1).mul_(_GAMMA)
        elements = torch.arange(1, count + 1, device=device).mul_(_GAMMA)
        bits = _mix_(_mix_(self.keys[:, None] + counters)[:, :, None] + elements)
        lengths = (len(draws), *shape) if isinstance(draw, range) else shape
        return bits.view(len(self), *lengths)


_GAMMA = 0x9E3779B97F4A7C15 - 2**64  # splitmix64's odd increment, the golden ratio in 64 bits, as a signed number


def _mix_(bits: Tensor) -> Tensor:
    """Apply splitmix64's output function in place, on int64 that wraps around; >> keeps the sign, hence the masks."""
    bits.bitwise_xor_((bits >> 30) & 0x3FFFFFFFF).mul_(0xBF58476D1CE4E5B9 - 2**64)
    bits.bitwise_xor_((bits >> 27) & 0x1FFFFFFFFF).mul_(0x94D049BB133111EB - 2**64)
    return bits.bitwise_xor_((bits >> 31) & 0x1FFFFFFFF)


def _unit(bits: Tensor) -> Tensor:
    """Return the lowest 24 bits as float32 in [0, 1)."""
    return (bits & 0xFFFFFF).float().mul_(2**-24)
