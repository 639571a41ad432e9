"""Auto-PGD against a slow, plain account of its published description, and closed forms."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from generalist.attacks import apgd, cross_entropy, margin
from generalist.attacks.apgd_state import ApgdState
from generalist.attacks.attack_target import AttackTarget
from generalist.errors import BadInput
from generalist.threats import Threat
from tests.exact_linear import exact_distances
from tests.strategies import Recorder, conv_net, generator, images, linear_net, norms, seeds, threats


class Textbook:
    """APGD for one image, written from the description with lists and loops; float64."""

    def __init__(self, network, loss, image, label, norm, eps):
        self.network, self.of_logits, self.image, self.label = network, loss, image, label
        self.norm, self.eps = norm, eps
        self.halvings = self.jumps = self.stalls = 0

    def project(self, point):
        offset = point - self.image
        if self.norm == "linf":
            offset = offset.clamp(-self.eps, self.eps)
        elif offset.norm() > self.eps:
            offset = offset / offset.norm() * self.eps
        return (self.image + offset).clamp(0, 1)

    def direction(self, gradient):
        return gradient.sign() if self.norm == "linf" else gradient / (gradient.norm() + 1e-12)

    def loss(self, point):
        leaf = point.clone().requires_grad_()
        loss = self.of_logits(self.network(leaf[None]), self.label[None])[0]
        return loss.item(), torch.autograd.grad(loss, leaf)[0]

    def run(self, start, steps, checks):
        """All iterates, the start first; `checks` are the iterations after which the step size is looked at."""
        point, older, eta = start, start, 2 * self.eps
        best_loss, gradient = self.loss(point)
        best, best_gradient = point, gradient
        losses, best_losses, reduced, path = [], [best_loss], True, [point]
        for k in range(steps):
            share = 1.0 if k == 0 else 0.75
            ahead = self.project(point + eta * self.direction(gradient))
            newer = self.project(point + share * (ahead - point) + (1 - share) * (point - older))
            older, point = point, newer
            loss, gradient = self.loss(point)
            path.append(point)
            losses.append(loss)
            if loss > best_loss:
                best_loss, best, best_gradient = loss, point, gradient
            if k + 1 in checks:
                window = k + 1 - max([check for check in checks if check < k + 1], default=0)
                rises = sum(losses[i] > (losses[i - 1] if i else 0.0) for i in range(k + 1 - window, k + 1))
                stuck = not reduced and best_losses[-1] >= best_loss
                self.stalls += stuck and rises > 0.75 * window
                reduced = rises <= 0.75 * window or stuck
                best_losses.append(best_loss)
                if reduced:
                    self.halvings += 1
                    self.jumps += not torch.equal(point, best)
                    eta, point, gradient = eta / 2, best, best_gradient
        return path, best, best_loss


CHECKS = {100: (22, 41, 57, 70, 80, 87, 93, 99), 20: (4, 7, *range(9, 21))}


def lead_of_others(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Return a loss that is negative while the label wins."""
    return -margin(logits, labels)


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize(("steps", "loss"), [(100, cross_entropy), (20, cross_entropy), (20, lead_of_others)])
def test_every_step_is_that_of_a_plain_account(norm, steps, loss):
    """Momentum, step sizes, check points, restarts from the best point: to 1e-9, for each image."""
    count, numbers = 300 // steps, generator(3)
    pixels = torch.rand(count, 2, 4, 5, dtype=torch.float64, generator=numbers)
    network = conv_net((2, 4, 5), seed=1).double()
    labels = network(pixels).argmax(1)
    threat = Threat(norm, 0.3 if norm == "linf" else 0.8)
    start = threat.random_start(pixels, numbers)
    asked = Recorder(network, count)
    result = apgd(asked, pixels, labels, threat, start=start, loss=loss, steps=steps, stop_when_broken=False)
    halvings = jumps = stalls = 0
    for row in range(count):
        account = Textbook(network, loss, pixels[row], labels[row], norm, float(threat.eps))
        path, best, best_loss = account.run(start[row], steps, CHECKS[steps])
        assert_close(torch.stack(asked.seen)[:, row], torch.stack(path), atol=1e-9, rtol=0)
        assert_close(result.best[row], best, atol=1e-9, rtol=0)
        assert result.best_loss[row].item() == pytest.approx(best_loss, abs=1e-9)
        halvings, jumps, stalls = halvings + account.halvings, jumps + account.jumps, stalls + account.stalls
    assert halvings >= 10 and jumps >= 5, "the comparison must have met what it compares"
    assert stalls >= 1 or (norm, steps) != ("l2", 20)


def test_the_check_points_are_the_published_ones():
    """For 100 steps; and for few steps there is a window of one at least."""
    assert tuple(ApgdState.windows(100)) == CHECKS[100] and tuple(ApgdState.windows(20)) == CHECKS[20]
    assert list(ApgdState.windows(100).values()) == [22, 19, 16, 13, 10, 7, 6, 6]
    assert ApgdState.windows(3) == {1: 1, 2: 1, 3: 1}


@settings(max_examples=15)
@given(images(smallest=2, largest=6), threats(), seeds, st.integers(1, 15))
def test_every_point_asked_is_allowed(pixels, threat, seed, steps):
    """In ball and pixel range, at each step, from any start; what is returned is among them."""
    network = Recorder(conv_net(tuple(pixels.shape[1:]), seed=seed), len(pixels))
    start = pixels + torch.randn(pixels.shape, generator=generator(seed))
    labels = torch.zeros(len(pixels), dtype=torch.int64)
    result = apgd(network, pixels, labels, threat, start=start, steps=steps, stop_when_broken=False)
    assert len(network.seen) == steps + 1
    for points in [*network.seen, result.best, result.adversarial]:
        assert (points >= 0).all() and (points <= 1).all()
        assert (threat.distance(points, pixels) <= float(threat.eps) * (1 + 1e-6)).all()


@settings(max_examples=4)
@given(seeds, norms)
def test_the_best_point_is_the_one_of_the_highest_loss_seen(seed, norm):
    """And its loss is that loss."""
    network = conv_net((1, 4, 4), seed=seed)
    pixels = torch.rand(3, 1, 4, 4, generator=generator(seed))
    labels, threat = network(pixels).argmax(1), Threat(norm, 0.2)
    asked = Recorder(network, 3)
    start = threat.random_start(pixels, generator(seed))
    result = apgd(asked, pixels, labels, threat, start=start, steps=25, stop_when_broken=False)
    losses = torch.stack([cross_entropy(network(points), labels) for points in asked.seen]).detach()
    assert_close(result.best_loss, losses.amax(0), atol=1e-5, rtol=1e-5)
    assert_close(cross_entropy(network(result.best), labels).detach(), result.best_loss, atol=1e-5, rtol=1e-5)


@settings(max_examples=4)
@given(seeds, norms)
def test_leaving_at_the_first_success_changes_no_verdict(seed, norm):
    """It only saves passes: an image takes them up to its first misclassified point, which is then returned."""
    network = conv_net((1, 4, 4), seed=seed)
    pixels = torch.rand(20, 1, 4, 4, generator=generator(seed))
    labels, threat = network(pixels).argmax(1), Threat(norm, 0.15 if norm == "linf" else 0.4)
    start = threat.random_start(pixels, generator(seed))
    asked = Recorder(network, 20)
    (all_the_way, whole_cost), (leaving, cost) = (
        AttackTarget(asked).counted(pixels),
        AttackTarget(network).counted(pixels),
    )
    whole = apgd(all_the_way, pixels, labels, threat, start=start, steps=20, stop_when_broken=False)
    early = apgd(leaving, pixels, labels, threat, start=start, steps=20)
    wrong = torch.stack([network(points).argmax(1) != labels for points in asked.seen])
    assert torch.equal(whole.broken, wrong.any(0)) and torch.equal(early.broken, whole.broken)
    assert (whole_cost.forward == 21).all() and torch.equal(whole_cost.backward, whole_cost.forward)
    for row in range(20):
        hits = wrong[:, row].nonzero().flatten().tolist()
        assert cost.forward[row] == cost.backward[row] == (hits[0] + 1 if hits else 21)
        assert torch.equal(early.adversarial[row], asked.seen[hits[0]][row] if hits else start[row])
        assert torch.equal(whole.adversarial[row], asked.seen[hits[-1]][row] if hits else start[row])


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_on_a_linear_model_of_two_classes_it_breaks_exactly_what_can_be_broken(norm):
    """Every image whose exact distance is below eps (by 1 %), and none above."""
    numbers = generator(0)
    pixels = torch.rand(60, 1, 5, 5, generator=numbers).round(decimals=1)
    weights = torch.randn(25, generator=numbers)
    network = linear_net(torch.stack([weights, -weights]), torch.zeros(2))
    labels = network(pixels).argmax(1)
    exact = exact_distances(network[1].weight.detach(), network[1].bias.detach(), pixels, labels, norm)
    eps = exact.median().item()
    threat = Threat(norm, eps)
    result = apgd(network, pixels, labels, threat, start=threat.random_start(pixels, numbers))
    assert result.broken[exact < 0.99 * eps].all()
    assert not result.broken[exact > eps].any()
    assert 10 < result.broken.sum() < 50


def test_no_gradient_is_noticed():
    """An image that no gradient reaches is called blind, and is not broken; the others are not blind."""
    weight = torch.eye(4)[:2]

    def network(points: torch.Tensor) -> torch.Tensor:
        flat = points.flatten(1)
        return torch.where(flat[:, :1] > 0.5, torch.tensor([[1.0, 0.0]]), flat @ weight.T + torch.tensor([5.0, 0.0]))

    pixels = torch.tensor([0.9, 0.1]).view(2, 1, 1, 1).repeat(1, 1, 2, 2)
    target, cost = AttackTarget(network).counted(pixels)
    result = apgd(target, pixels, torch.zeros(2).long(), Threat("linf", 0.1), start=pixels, steps=3)
    assert cost.zero_gradient.tolist() == [True, False] and not result.broken.any()


def test_a_run_without_steps_is_refused():
    """Rather than returning its start."""
    pixels = torch.rand(1, 1, 3, 3)
    with pytest.raises(BadInput, match="0 steps"):
        apgd(conv_net((1, 3, 3)), pixels, torch.zeros(1).long(), Threat("linf", 0.1), start=pixels, steps=0)
