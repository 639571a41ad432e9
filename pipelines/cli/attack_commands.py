"""Commands around attacks: attack a model file, merge the verdicts of shards."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from generalist.errors import BadInput
from pipelines.cli import options
from pipelines.cli.shell import going_on, same_command, say, starting, tell

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from generalist.attacks import AutoAttackResult

_NO_IMAGES = "is no .npz with arrays 'images' [n, C, H, W] (uint8, or float32 in [0, 1]) and 'labels' [n] (integers)"

Model = Annotated[
    Path, typer.Argument(metavar="MODEL", help="A global.safetensors of ours, or any ONNX file.", show_default=False)
]

ThreatName = Annotated[
    str,
    typer.Option(
        "--threat", metavar="NORM:EPS", help="Such as linf:8/255, l2:0.5 or l1:12; or 'attributes:1 rotation 30'."
    ),
]
Data = Annotated[
    Path | None,
    typer.Option(
        "--data",
        metavar="PATH",
        help="Prepared data (its test split), or an .npz with images and labels; by default data/prepared.",
    ),
]
Range = Annotated[
    str,
    typer.Option(
        "--images",
        metavar="FIRST:END|N",
        help="Only these, as a shard; or N images, drawn by the seed in proportion to the classes.",
    ),
]
BatchSize = Annotated[int, typer.Option("--batch-size", min=1, help="Limits memory; changes no verdict.")]
Threads = Annotated[int, typer.Option("--threads", min=1, help="CPU threads; their number may change the last bits.")]
Device = Annotated[str, typer.Option("--device", help="cpu, cuda, or auto.")]
Mean = Annotated[
    str | None, typer.Option("--mean", metavar="M,…", help="For an ONNX file that expects (image - mean) / std.")
]
Std = Annotated[str | None, typer.Option("--std", metavar="S,…", help="Likewise; one number, or one for each channel.")]
Out = Annotated[Path | None, typer.Option("--out", metavar="FILE.npz", help="Where verdicts go, image by image.")]


def attack(
    model: Model,
    threat: ThreatName,
    data: Data = None,
    version: Annotated[str, typer.Option("--version", help="standard, plus, rand or quick.")] = "standard",
    attacks: Annotated[
        list[str] | None, typer.Option("--attack", metavar="NAME", help="A single attack instead; may be repeated.")
    ] = None,
    images: Range = ":",
    seed: Annotated[int, typer.Option("--seed", min=0)] = 0,
    batch_size: BatchSize = 256,
    queries: Annotated[int, typer.Option("--queries", min=1, help="Square's queries for each image.")] = 5000,
    threads: Threads = 1,
    device: Device = "cpu",
    mean: Mean = None,
    std: Std = None,
    condition: options.Lambda = None,
    width: options.Width = None,
    state: Annotated[
        Path | None, typer.Option("--state", metavar="FILE", help="Progress is kept there; re-run to resume.")
    ] = None,
    out: Out = None,
    adversarial: Annotated[bool, typer.Option("--adversarial", help="Put the adversarial images there, too.")] = False,
) -> None:
    """Measure a model's robust accuracy with AutoAttack.

    Generalist's own weights are attacked with gradients; an ONNX file, which has none, by Square's queries alone.
    """
    starting("attacking")
    import torch

    from generalist import engine
    from generalist.atomic_files import check_file
    from generalist.attacks import autoattack
    from generalist.attacks.members import cascade_title
    from generalist.attacks.result_files import write_verdicts
    from generalist.export.normalisation import looked_at
    from generalist.threats import Threat
    from pipelines.cli.image_ranges import chosen_images
    from pipelines.cli.model_files import open_target
    from pipelines.workspace import quiet_telemetry

    quiet_telemetry()
    if out is not None:
        check_file(out, suffix=".npz")
    if state is not None:
        check_file(state)
    against, on = Threat.parse(threat), engine.device(device)
    pixels, labels, whole = _images(data)
    against.check_fits(pixels.shape[1:])
    choice = chosen_images(images, labels, seed=seed)
    with going_on(same_command()), engine.threads(threads):
        target = open_target(model, on, threads, pixels.shape[1:], mean, std, condition, width)
        if target.box:
            attacks = _without_gradients(model, attacks)
        shown = looked_at(len(labels))  # of all images: a shard may be small
        doubt = target.doubt(_unit(pixels[shown]).numpy(), labels[shown])
        if doubt:
            tell(doubt)
        result = autoattack(
            target.network,
            _unit(pixels[choice.positions]).to(on),
            torch.from_numpy(labels[choice.positions]).to(on),
            against,
            version=version,
            attacks=attacks,
            seed=seed,
            batch_size=batch_size,
            square_queries=queries,
            state=state,
            watch=lambda progress: (
                tell(f"{progress.attack}: {progress.robust} of {progress.n} still robust") if progress.images else None
            ),
        )
    name = " and ".join(attacks) if attacks else cascade_title(version, against)
    facts = {
        "model": target.digest,
        "data": whole,
        "threat": str(against),
        "attack": f"{name}{', black box' if target.box else ''}",
        "queries": queries,
        "seed": seed,
        "images": choice.told,
        **target.facts,
    }
    if out is not None:
        write_verdicts(out, result, {**facts, "first": choice.first}, adversarial=adversarial)
    _show(result, facts)


def merge(
    verdicts: Annotated[
        list[Path],
        typer.Argument(metavar="VERDICTS.npz...", help="Of the shards of one evaluation.", show_default=False),
    ],
    out: Annotated[Path | None, typer.Option("--out", metavar="FILE.npz", help="Where all of them go.")] = None,
) -> None:
    """Put the verdicts of shards together.

    They are the same as of one run over all images.
    """
    from generalist.atomic_files import check_file

    if out is not None:
        check_file(out, suffix=".npz")
    from generalist.attacks.result_files import merge_files, write_verdicts

    result, facts = merge_files(verdicts)
    missing = [name for name in ("threat", "attack", "seed") if name not in facts]
    if missing:
        raise BadInput(
            f"{verdicts[0]} doesn't tell its {' and '.join(missing)}: name files that `generalist attack … --out` wrote"
        )
    if out is not None:
        write_verdicts(out, result, facts, adversarial=result.adversarial.numel() > 0)
    _show(result, facts)


def verify(
    model: Model,
    threat: ThreatName,
    adversarial: Annotated[
        Path,
        typer.Option(
            "--adversarial",
            metavar="FILE.npz",
            help="One image for each: an array adversarial, xadv, x_adv or images, float32 in [0, 1].",
        ),
    ],
    data: Data = None,
    verdicts: Annotated[
        Path | None,
        typer.Option("--verdicts", metavar="FILE.npz", help="Of `generalist attack` on these images: lowered by them."),
    ] = None,
    name: Annotated[
        str | None, typer.Option("--name", metavar="NAME", help="Who made them; by default the file's name.")
    ] = None,
    images: Range = ":",
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of the choice of N images.")] = 0,
    batch_size: BatchSize = 256,
    threads: Threads = 1,
    device: Device = "cpu",
    mean: Mean = None,
    std: Std = None,
    condition: options.Lambda = None,
    width: options.Width = None,
    out: Out = None,
) -> None:
    """Check adversarial images that were made elsewhere.

    Each counts where it lies within the threat and the model's decision is wrong.
    """
    starting("checking adversarial images")
    import torch

    from generalist import engine
    from generalist.atomic_files import check_file
    from generalist.attacks.evidence import verify as check
    from generalist.attacks.result_files import read_verdicts, write_verdicts
    from generalist.threats import Threat
    from pipelines.cli.image_ranges import chosen_images
    from pipelines.cli.model_files import open_target
    from pipelines.workspace import quiet_telemetry

    quiet_telemetry()
    if out is not None:
        check_file(out, suffix=".npz")
    against, on = Threat.parse(threat), engine.device(device)
    pixels, labels, whole = _images(data)
    against.check_fits(pixels.shape[1:])
    choice, called = chosen_images(images, labels, seed=seed), name or adversarial.stem
    before, facts = (None, {}) if verdicts is None else read_verdicts(verdicts)
    with engine.threads(threads):
        target = open_target(model, on, threads, pixels.shape[1:], mean, std, condition, width)
        told = {"model": target.digest, "data": whole, "threat": str(against), "images": choice.told, **target.facts}
        _check_same(verdicts, facts, {**told, "first": choice.first} if facts else {})
        found = check(
            target.network,
            _unit(pixels[choice.positions]).to(on),
            torch.from_numpy(labels[choice.positions]).to(on),
            _adversarial(adversarial).to(on),
            against,
            name=called,
            before=before,
            batch_size=batch_size,
        )
    attacked = f"{facts['attack']} and {called}" if facts else f"{called}{', black box' if target.box else ''}"
    facts = {"queries": 0, "seed": seed, **facts, **told, "attack": attacked, "first": choice.first}
    if out is not None:
        write_verdicts(out, found.result, facts, adversarial=True)
    say(f"accepted {int(found.accepted.sum())} of {len(choice.positions)} images; outside {int(found.outside.sum())}")
    _show(found.result, facts)


def _check_same(path: Path | None, facts: dict[str, Any], expected: dict[str, Any]) -> None:
    """Refuse verdicts of something else."""
    differing = [name for name, value in expected.items() if facts.get(name) != value]
    if differing:
        raise BadInput(
            f"{path} is of another {differing[0]} ({facts.get(differing[0])}): give the verdicts of this model, data,"
            " threat and choice of images"
        )


def _adversarial(path: Path) -> "Tensor":
    """Return the adversarial images of a file, float32."""
    import torch

    from generalist.data.array_files import UnreadableArray, read_npz

    names = ("adversarial", "xadv", "x_adv", "images")
    try:
        arrays = read_npz(path, (), optional=names)
    except FileNotFoundError:
        raise BadInput(f"there are no adversarial images at {path}: name an .npz") from None
    except UnreadableArray as error:
        raise BadInput(f"{path} is no .npz with adversarial images ({error.reason})") from None
    found = next((arrays[name] for name in names if name in arrays), None)
    if found is None or found.dtype.name != "float32" or found.ndim != 4:
        content = "no such array" if found is None else f"{found.dtype} {list(found.shape)}"
        raise BadInput(f"{path} has {content}: give {' or '.join(names)}, float32 [n, C, H, W] in [0, 1]")
    return torch.from_numpy(found)


def _unit(pixels: "NDArray[Any]") -> "Tensor":
    """Return images of either kind as float32 in [0, 1]."""
    import torch

    from generalist.tensors import to_unit

    images = torch.from_numpy(pixels)
    return images if images.is_floating_point() else to_unit(images)


def _images(data: Path | None) -> "tuple[NDArray[Any], NDArray[Any], str]":
    """Return images [n, C, H, W] of either kind, labels int64 [n], and their digest."""
    import hashlib

    from generalist.data import load
    from pipelines.workspace import Workspace

    path = data or Workspace.find().prepared
    if path.is_dir():
        dataset = load(path)
        return dataset.test.images, dataset.test.labels, dataset.test_digest
    from generalist.data.array_files import UnreadableArray, read_npz

    try:
        arrays = read_npz(path, ("images", "labels"))
    except FileNotFoundError:
        raise BadInput(f"there is no data at {path}: prepare it with `generalist prepare`, or name an .npz") from None
    except UnreadableArray as error:
        raise BadInput(f"{path} {_NO_IMAGES} ({error.reason})") from None
    images, labels = arrays["images"], _labels(path, arrays["images"], arrays["labels"])
    digest = hashlib.sha256(images.data)
    digest.update(labels.data)
    return images, labels, digest.hexdigest()


def _labels(path: Path, images: "NDArray[Any]", labels: "NDArray[Any]") -> "NDArray[Any]":
    """Return the labels as int64, if both arrays are what they should be."""
    kinds = images.dtype.name in {"uint8", "float32"} and labels.dtype.kind in "iu"
    if not kinds or images.ndim != 4 or not images.size or labels.shape != images.shape[:1]:
        content = f"images {images.dtype} {list(images.shape)} and labels {labels.dtype} {list(labels.shape)}"
        raise BadInput(f"{path} {_NO_IMAGES}, but with {content}")
    lowest, highest = images.min(), images.max()
    if images.dtype.kind == "f" and not (lowest >= 0 and highest <= 1):
        raise BadInput(f"{path} {_NO_IMAGES}, but with pixels in [{lowest}, {highest}]: divide 8-bit images by 255")
    if labels.min() < 0 or labels.max() >= 2**31:
        raise BadInput(f"{path} {_NO_IMAGES}, but with labels in [{labels.min()}, {labels.max()}]")
    return labels.astype("int64")


def _without_gradients(path: Path, attacks: list[str] | None) -> list[str]:
    """Return what can attack a black box."""
    from generalist.attacks.members import GRADIENT_FREE

    needy = [name for name in attacks or () if name not in GRADIENT_FREE]
    if needy:
        raise BadInput(f"{path} has no gradients for {', '.join(needy)}: leave --attack out, or name square")
    return list(GRADIENT_FREE)


def _show(result: "AutoAttackResult", facts: dict[str, Any]) -> None:
    from generalist.records import Accuracy

    n = len(result.robust)
    natural, robust = (Accuracy(correct=int(mask.sum()), n=n) for mask in (result.clean, result.robust))
    doubt = f" (doubtful: {'; '.join(result.flags)})" if result.flags else ""
    say(f"natural accuracy {natural}, n = {n}")
    normalised = f", {facts['normalisation']}" if facts.get("normalisation") else ""
    at = "".join(f", {name} {facts[name]}" for name in ("lambda", "width") if facts.get(name))
    text = f"{facts['threat']}, {facts['attack']}, seed {facts['seed']}{normalised}{at}"
    say(f"robust accuracy {robust}{doubt}, n = {n}: {text}")
    for name in dict.fromkeys(name for name in result.fooled_by if name not in {None, "clean"}):
        say(f"  broken by {name}: {result.fooled_by.count(name)}")
    forward, backward = (passes.double().mean().item() for passes in (result.passes.forward, result.passes.backward))
    say(f"  passes for each image: {forward:.0f} forward, {backward:.0f} backward")
