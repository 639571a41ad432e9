"""What every file of `generalist/threats/spaces` keeps, by being there."""

import pytest
import torch

from generalist.attacks import autoattack, pgd
from generalist.config.section import part_names
from generalist.randomness import ImageStreams
from generalist.threats import Space, Threat
from tests.strategies import conv_net, generator

THREATS = {
    "attributes": "attributes:0.2 rotation 30 translation 0.2 scale 0.2 blur 1 contrast 0.3 brightness 0.1",
    "localized": "localized:0.2 mask centre",
}
"""An example of each: a space can't be had without its options."""

pytestmark = pytest.mark.parametrize("name", part_names("threats.spaces"))


def example(name: str) -> tuple[Threat, Space]:
    """Return the example of a space."""
    threat = Threat.parse(THREATS[name])
    assert threat.space is not None
    return threat, threat.space


def pictures(count: int = 12) -> torch.Tensor:
    """Return images with a width that is not their height."""
    return torch.rand(count, 1, 6, 5, generator=generator(0))


def test_the_points_of_images_give_the_images(name: str) -> None:
    """To the bit, in both precisions, black and white among them; a point lies in [0, 1]."""
    _, space = example(name)
    for images in (pictures(), pictures().double(), pictures().round(), pictures().expand(-1, 3, -1, -1)):
        points = space.points(images)
        assert torch.equal(space.images(points), images)
        assert points.amin() >= 0 and points.amax() <= 1


def test_images_of_any_allowed_point_are_images(name: str) -> None:
    """In [0, 1] and of the images' shape; what is not free stays, and the images' own points are not changed."""
    threat, space = example(name)
    points = space.points(pictures())
    kept, start = points.clone(), threat.of_points.random_start(points, generator(1))
    images = space.images(start)
    assert images.shape == pictures().shape and images.amin() >= 0 and images.amax() <= 1
    fixed = (space.free(points) == 0).expand_as(points)
    assert torch.equal(start[fixed], kept[fixed]) and torch.equal(points, kept)
    assert not torch.equal(images, pictures())
    assert (threat.of_points.distance(start, points) <= threat.of_points.eps * (1 + 1e-6)).all()


def test_images_don_t_hang_on_their_neighbours(name: str) -> None:
    """Nor on their order: attacks ask in tiles."""
    threat, space = example(name)
    points = threat.of_points.random_start(space.points(pictures()), generator(1))
    rows = torch.tensor([7, 0, 11])
    assert torch.equal(space.images(points[rows]), space.images(points)[rows])


def test_the_gradient_is_that_of_finite_differences(name: str) -> None:
    """In float64, along what is free, between the places where a pixel's neighbours change."""
    threat, space = example(name)
    points = threat.of_points.random_start(space.points(pictures(4).double()), generator(2))
    weights = torch.randn(pictures(1).shape, generator=generator(3), dtype=torch.float64)
    leaf = points.clone().requires_grad_()
    (gradient,) = torch.autograd.grad((space.images(leaf) * weights).sum(), leaf)
    for index in (space.free(points)[0] > 0).nonzero().tolist():
        place = (slice(None), *index)
        ahead, behind = points.clone(), points.clone()
        ahead[place] += 1e-7
        behind[place] -= 1e-7
        change = ((space.images(ahead) - space.images(behind)) * weights).flatten(1).sum(1) / 2e-7
        assert torch.allclose(gradient[place], change, rtol=1e-5, atol=1e-5)


@pytest.mark.usefixtures("short_gradients")
def test_attacks_break_only_what_is_allowed(name: str) -> None:
    """Success is by the decision at an image that the space makes; what stands is told with the image as it was."""
    threat, space = example(name)
    images, network = pictures(30), conv_net((1, 6, 5))
    labels = network(images).argmax(1)
    result = autoattack(network, images, labels, threat, square_queries=100)
    assert 0 < int(result.robust.sum()) < 30
    assert torch.equal(network(result.adversarial).argmax(1) == labels, result.robust)
    assert torch.equal(result.adversarial[result.robust], images[result.robust])
    attacked = pgd(network, images, labels, threat, steps=10, generator=generator(0))
    still = network(attacked).argmax(1) == labels
    assert not bool((result.robust & ~still).any())  # PGD breaks nothing that the cascade leaves
    assert attacked.shape == images.shape and not attacked.requires_grad
    assert space.members is None or set(filter(None, result.fooled_by)) <= set(space.members)


@pytest.mark.usefixtures("short_gradients")
def test_verdicts_don_t_hang_on_batches(name: str) -> None:
    """As in balls: image by image."""
    threat, _ = example(name)
    images, network = pictures(30), conv_net((1, 6, 5))
    labels = network(images).argmax(1)
    whole = autoattack(network, images, labels, threat, attacks=["apgd-ce"])
    part = autoattack(network, images[5:9], labels[5:9], threat, attacks=["apgd-ce"])
    assert torch.equal(whole.robust[5:9], part.robust) and torch.equal(whole.adversarial[5:9], part.adversarial)


def test_a_radius_of_nothing_changes_nothing(name: str) -> None:
    """Nor does a scale of 0 for one image."""
    threat, _ = example(name)
    images, network = pictures(), conv_net((1, 6, 5))
    labels, scale = network(images).argmax(1), torch.ones(12)
    scale[3] = 0
    assert torch.equal(pgd(network, images, labels, threat.scaled(0.0), steps=3, generator=generator(0)), images)
    moved = pgd(network, images, labels, threat, steps=3, generator=generator(0), scale=scale)
    assert torch.equal(moved[3], images[3]) and not torch.equal(moved, images)


def test_a_threat_reads_back_as_it_is_written(name: str) -> None:
    """Its name in records is what `generalist attack` takes; identities tell it from others."""
    threat, _ = example(name)
    assert Threat.parse(str(threat)) == threat and hash(Threat.parse(str(threat))) == hash(threat)
    assert threat.identity != threat.scaled(0.5).identity
    assert threat.of_points.identity != threat.scaled(0.5).of_points.identity


def test_random_numbers_are_those_of_the_images(name: str) -> None:
    """A boundary offset of some points is a part of that of all."""
    threat, space = example(name)
    points, rows = space.points(pictures()), torch.tensor([7, 0])
    streams = ImageStreams.of(points, torch.zeros(12, dtype=torch.int64), seed=4)
    ball = threat.of_points.ball(points)
    assert torch.equal(ball.of(rows).boundary_offset(streams[rows]), ball.boundary_offset(streams)[rows])
