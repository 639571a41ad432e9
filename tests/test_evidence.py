"""Adversarial images from elsewhere count inside of the ball alone, where the decision is wrong, and once."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from benchmarks import reference_models
from generalist.attacks import autoattack
from generalist.attacks.evidence import Evidence, verify
from generalist.attacks.result_files import read_verdicts
from generalist.errors import BadInput
from generalist.export.weights import write_weights
from generalist.tensors import to_unit
from generalist.threats import Threat
from tests import aa_reference
from tests.command_line import generalist, refused
from tests.model_factory import GREY, made, options

EPS = 0.1
SLOPE = torch.tensor([1.0, -1.0])


def brightness(points: torch.Tensor) -> torch.Tensor:
    """Return logits of a classifier that says 0 for images brighter than a half."""
    return (points.flatten(1).mean(1) - 0.5)[:, None] * SLOPE


def shown(images: torch.Tensor, moved: torch.Tensor, **more: object) -> Evidence:
    """Return what moved images show against that classifier."""
    labels = brightness(images).argmax(1)
    return verify(brightness, images, labels, moved, Threat("linf", EPS), name="somebody", **more)  # type: ignore[arg-type]


@given(st.lists(st.tuples(st.integers(200, 800), st.integers(-150, 150)), min_size=1, max_size=9))
def test_each_counts_within_the_ball_alone_and_where_it_is_wrong(places: list[tuple[int, int]]) -> None:
    """On a classifier of brightness, shifts are judged by hand."""
    before = torch.tensor([place / 1000 for place, _ in places])
    images = before[:, None, None, None].expand(-1, 1, 2, 2).contiguous()
    moved = images + torch.tensor([shift / 1000 for _, shift in places])[:, None, None, None]
    found = shown(images, moved)
    far = (moved - images).abs().flatten(1).amax(1)
    sure = (far < EPS * 0.999) | (far > EPS * 1.002)
    wrong = brightness(moved).argmax(1) != brightness(images).argmax(1)
    tied = (brightness(moved).abs().amax(1) < 1e-5) | (brightness(images).abs().amax(1) < 1e-5)
    clear = sure & ~tied
    assert torch.equal(found.outside[clear], (far > EPS)[clear])
    assert torch.equal(found.accepted[clear], ((far < EPS) & wrong)[clear])
    assert [name == "somebody" for name in found.result.fooled_by] == found.accepted.tolist()
    inside = (found.result.adversarial - images).abs().flatten(1).amax(1) <= EPS * (1 + 1e-6)
    assert bool(inside.all())


def test_no_numbers_pixels_out_of_range_and_other_shapes_count_for_nothing() -> None:
    """The first two are outside, the last is refused, as are verdicts of other images and threats without a ball."""
    images = torch.full((3, 1, 2, 2), 0.51)
    moved = torch.stack([torch.full((1, 2, 2), value) for value in (float("nan"), -0.01, 0.45)])
    found = shown(images, moved)
    assert found.outside.tolist() == [True, True, False] and found.accepted.tolist() == [False, False, True]
    with pytest.raises(BadInput, match="give one for each, of the same kind and order"):
        shown(images, moved[:2])
    labels = brightness(images).argmax(1)
    other = autoattack(brightness, 1 - images, labels, Threat("linf", EPS), attacks=["square"], square_queries=1)
    with pytest.raises(BadInput, match="of another model or of other images"):
        shown(images, moved, before=other)
    with pytest.raises(BadInput, match="no ball of pixels"):
        verify(brightness, images, labels, moved, Threat.parse("attributes:1 rotation 30"), name="x")


def test_the_minimum_is_taken_image_by_image() -> None:
    """What stood falls, what had fallen keeps who broke it; shown twice, nothing more is accepted."""
    images = torch.tensor([0.52, 0.55, 0.9])[:, None, None, None].expand(-1, 1, 2, 2).contiguous()
    first = shown(images, torch.where(images == images[0], images - 0.05, images))
    assert first.result.robust.tolist() == [False, True, True]
    both = shown(images, images - 0.09, before=first.result)
    assert both.accepted.tolist() == [False, True, False] and both.result.robust.tolist() == [False, False, True]
    assert torch.equal(both.result.adversarial[0], first.result.adversarial[0])
    assert bool((both.result.passes.forward >= first.result.passes.forward).all())
    again = shown(images, images - 0.09, before=both.result)
    assert not again.accepted.any() and torch.equal(again.result.robust, both.result.robust)


@pytest.mark.long
@pytest.mark.parametrize("network", reference_models.NETWORKS)
def test_all_that_the_original_broke_is_accepted_and_the_union_is_above_neither(network: str) -> None:
    """Adversarial images of the original AutoAttack, in every norm, beside verdicts of ours by a few steps."""
    images, labels = aa_reference.data()
    model = aa_reference.network(network)
    files = sorted(aa_reference.folder().glob(f"{network}_L*_standard_seed0_bs200_adv.npz"))
    assert files
    for file in files:
        norm, eps = file.stem.removeprefix(f"{network}_").split("_")[:2]
        threat = Threat(norm.lower(), float(eps.removeprefix("eps")))
        with np.load(file) as arrays:
            adversarial = torch.from_numpy(arrays["xadv"])
        with torch.no_grad():
            clean, theirs = (model(points).argmax(1) == labels for points in (images, adversarial))
        alone = verify(model, images, labels, adversarial, threat, name="original")
        assert not alone.outside.any(), file.name
        assert torch.equal(alone.accepted, clean & ~theirs), file.name
        ours = autoattack(model, images, labels, threat, attacks=["square"], square_queries=20)
        union = verify(model, images, labels, adversarial, threat, name="original", before=ours).result
        assert torch.equal(union.robust, ours.robust & alone.result.robust)


@pytest.mark.long
def test_the_command_lowers_verdicts_by_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Adversarial images of a strong attack, shown beside the verdicts of a weak one, give the strong one's."""
    monkeypatch.chdir(tmp_path)
    model = options("small_cnn", width=3)
    classifier = made("small_cnn", width=3).eval()
    write_weights(Path("w.safetensors"), classifier.state_dict(), model=model, shape=GREY, data="d")
    pixels = np.random.default_rng(0).integers(0, 256, (24, 1, 8, 8), dtype=np.uint8)
    with torch.no_grad():
        labels = classifier(to_unit(torch.from_numpy(pixels))).argmax(1).numpy()
    np.savez("data.npz", images=pixels, labels=labels)
    common = ("w.safetensors", "--data", "data.npz", "--threat", "linf:0.05")
    for out, words in (("weak.npz", ("--attack", "square", "--queries", "3")), ("strong.npz", ("--attack", "apgd-ce"))):
        assert generalist("attack", *common, *words, "--out", out, "--adversarial").exit_code == 0
    shown = ("verify", *common, "--adversarial", "strong.npz", "--verdicts", "weak.npz", "--out", "both.npz")
    done = generalist(*shown)
    assert done.exit_code == 0, done.output
    weak, strong, both = (read_verdicts(Path(name)) for name in ("weak.npz", "strong.npz", "both.npz"))
    assert torch.equal(both[0].robust, weak[0].robust & strong[0].robust)
    assert int(weak[0].robust.sum()) > int(both[0].robust.sum()) and both[1]["attack"] == "square and strong"
    assert f"accepted {int((weak[0].robust & ~strong[0].robust).sum())} of 24 images; outside 0" in done.stdout
    assert generalist("verify", *common, "--adversarial", "strong.npz").exit_code == 0

    other = ("w.safetensors", "--data", "data.npz", "--threat", "linf:0.06")
    told = refused("verify", *other, "--adversarial", "strong.npz", "--verdicts", "weak.npz")
    assert "is of another threat (linf:0.05)" in told
    assert "there are no adversarial images at nowhere.npz" in refused(
        "verify", *common, "--adversarial", "nowhere.npz"
    )
    np.savez("x.npz", points=np.zeros((24, 1, 8, 8), np.float32))
    assert "has no such array: give adversarial or xadv" in refused("verify", *common, "--adversarial", "x.npz")
