"""The localized threat: a box that is flat outside of a mask, exact on linear models, and refusals of masks."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from generalist.attacks import autoattack, pgd
from generalist.config import canonical
from generalist.errors import BadInput
from generalist.threats import Space, Threat, threat_from
from pipelines.deployment_limits import configuration
from pipelines.workspace import Workspace
from tests.strategies import conv_net, generator, linear_net
from tests.training_factory import small

CENTRE = torch.zeros(8, 6, dtype=torch.bool)
CENTRE[2:6, 1:4] = True


def pictures(count: int) -> torch.Tensor:
    """Around the middle of the pixel range, which then does not bind."""
    return 0.4 + 0.2 * torch.rand(count, 1, 8, 6, generator=generator(0))


def mask(path: Path, inside: torch.Tensor) -> Path:
    """Write a mask."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(inside.numpy().astype(np.uint8) * 255).save(path)
    return path


def space_of(threat: Threat) -> Space:
    """Return the space of a threat."""
    assert threat.space is not None
    return threat.space


@pytest.mark.usefixtures("short_gradients")
@pytest.mark.parametrize(
    ("where", "attack", "share"),
    [
        ("centre", "apgd-ce", 1.01),
        ("background", "apgd-t", 1.01),
        ("centre", "fab-t", 1.01),
        ("background", "square", 2.5),
    ],
)
def test_on_a_linear_model_attacks_break_what_the_mask_allows(where: str, attack: str, share: float) -> None:
    """eps times the sum of the slopes inside; not a bit outside is another one."""
    images, inside = pictures(40), CENTRE if where == "centre" else ~CENTRE
    weights = 8 * torch.randn(3, 48, generator=generator(5))
    network = linear_net(weights, -weights.sum(1) / 2)
    logits, labels = network(images).detach().double(), network(images).argmax(1)
    slopes = (weights[labels][:, None] - weights).double()[:, :, inside.flatten()].abs().sum(2)
    leads = logits.gather(1, labels[:, None]) - logits
    exact = torch.where(slopes > 0, leads / slopes, torch.inf).amin(1)
    eps = float(exact.median())
    threat = Threat.parse(f"localized:{eps} mask {where} share 0.5")
    result = autoattack(network, images, labels, threat, attacks=[attack], square_queries=400)
    assert result.robust[exact > 1.01 * eps].all()
    assert not result.robust[share * exact < eps].any()
    moved = result.adversarial != images
    assert moved.any() and not moved[..., ~inside].any()
    assert (result.adversarial - images).abs().max() <= eps * (1 + 1e-6)


@pytest.mark.usefixtures("short_gradients")
def test_the_whole_cascade_and_pgd_stay_inside() -> None:
    """On a curved network, image by image; Square and FAB among them."""
    images, network = pictures(30), conv_net((1, 8, 6))
    labels = network(images).argmax(1)
    threat = Threat.parse("localized:0.12 mask centre")
    result = autoattack(
        network, images, labels, threat, attacks=["apgd-ce", "fab", "fab-t", "square"], square_queries=50
    )
    assert 0 < int(result.robust.sum()) < 30
    for points in (result.adversarial, pgd(network, images, labels, threat, steps=5, generator=generator(1))):
        assert torch.equal(points[..., ~CENTRE], images[..., ~CENTRE])
        assert (points - images).abs().max() <= 0.12


def test_a_mask_of_everything_is_linf() -> None:
    """PGD takes the same steps, to the bit."""
    images, network = pictures(10), conv_net((1, 8, 6))
    labels = network(images).argmax(1)
    whole = Threat.parse("localized:0.1 mask centre share 0.999")
    own, other = (
        pgd(network, images, labels, threat, steps=5, random_start=False) for threat in (whole, Threat("linf", 0.1))
    )
    assert torch.equal(own, other)


def test_a_folder_of_masks_allows_all_of_them(tmp_path: Path) -> None:
    """Pixels that are not black in one; its content, not its place, is what states are known by."""
    top = torch.zeros(8, 6, dtype=torch.bool)
    top[0, :2] = True
    mask(tmp_path / "one" / "a.png", CENTRE)
    mask(tmp_path / "one" / "b.png", top)
    mask(tmp_path / "two" / "both.png", CENTRE | top)
    images = pictures(2)
    one, two = (
        threat_from(small(f"evaluation.threats=[{{norm: localized, eps: 0.1, mask: {tmp_path / name}}}]").evaluation.threats[0])
        for name in ("one", "two/both.png")
    )  # fmt: skip
    assert torch.equal(space_of(one).free(images)[0, 0] > 0, CENTRE | top)
    assert str(one) == str(two) and "one" not in str(one)
    assert canonical(space_of(one)) == canonical(space_of(two)) != canonical(space_of(Threat.parse("localized:0.1")))
    assert space_of(one).model_dump(mode="json")["mask"] == str(tmp_path / "one")


@pytest.mark.parametrize(
    ("inside", "sentence"),
    [
        (torch.ones(5, 6, dtype=torch.bool), "is of 5x6 pixels, but images are of 8x6: give masks of that size"),
        (torch.zeros(8, 6, dtype=torch.bool), "lets no pixel of 8x6 images change: give one that isn't empty"),
    ],
)
def test_masks_that_do_not_fit_are_refused(tmp_path: Path, inside: torch.Tensor, sentence: str) -> None:
    """Before any pass."""
    path = mask(tmp_path / "mask.png", inside)
    network = conv_net((1, 8, 6))
    with pytest.raises(BadInput, match=sentence):
        autoattack(network, pictures(2), torch.zeros(2).long(), Threat.parse(f"localized:0.1 mask {path}"))


def test_what_is_no_mask_is_refused(tmp_path: Path) -> None:
    """Each in a sentence with what to do."""
    mask(tmp_path / "sizes" / "a.png", CENTRE)
    mask(tmp_path / "sizes" / "b.png", CENTRE[:3])
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "a.png").write_bytes(b"no image")
    for name, sentence in (
        ("sizes", "are of 3x6 and 8x6 pixels: give all the same size"),
        ("empty", "is neither an image nor a folder with one"),
        ("nowhere", "is neither an image nor a folder with one"),
        ("broken", "is no image that Pillow can read"),
    ):
        with pytest.raises(BadInput, match=sentence):
            Threat.parse(f"localized:0.1 mask {tmp_path / name}").check_fits((1, 8, 6))
    with pytest.raises(BadInput, match="lets no pixel of 1x1 images change"):
        Threat.parse("localized:0.1 mask background").check_fits((1, 1, 1))
    with pytest.raises(BadInput, match="'share' says how large the centre is: leave it out"):
        small("evaluation.threats=[{norm: localized, eps: 0.1, mask: masks, share: 0.5}]")
    with pytest.raises(BadInput, match="eps is 8, but it should be less than 1"):
        small("evaluation.threats=[{norm: localized, eps: 8}]")


def test_objectives_that_begin_beside_the_image_may_train_on_it() -> None:
    """TRADES moves pixels through the threat's own box; a step from noise of its own does not."""
    small("experts.robust.objective={name: trades, threat: {norm: localized, eps: 0.1}}")
    with pytest.raises(BadInput, match="moves pixels of its own accord"):
        small("experts.robust.objective={name: n_fgsm, threat: {norm: localized, eps: 0.1}}")


def test_a_deployment_s_mask_lies_in_the_project(tmp_path: Path) -> None:
    """As its other paths do."""
    workspace = Workspace(tmp_path, tmp_path)
    override = f"evaluation.threats=[{{norm: localized, eps: 0.1, mask: {tmp_path.parent.parent}}}]"
    with pytest.raises(BadInput, match="outside of the project"):
        configuration(workspace, params=None, preset="digits", overrides=[override], trusted=False)
