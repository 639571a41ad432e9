"""The attribute threat: closed forms of its changes, exact verdicts on linear models, and the worst of a grid."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from generalist import engine
from generalist.attacks import autoattack, misclassified, pgd
from generalist.config import canonical
from generalist.data import Dataset
from generalist.errors import BadInput
from generalist.evaluation import evaluate, measure, protocol
from generalist.models import Classifier
from generalist.records import Evaluation, Measured, Protocol, RoundRecord
from generalist.report.styles import threats_in_words
from generalist.store import StateLost
from generalist.tensors import to_unit
from generalist.threats import Space, Threat, threat_from
from generalist.training import Outcome
from tests.strategies import conv_net, generator, linear_net
from tests.training_factory import first, small

BOTH = (
    "evaluation.threats=[{norm: attributes, rotation: 20, translation: 0.125, grid: {rotation: 5, translation: 3}},"
    " {norm: linf, eps: 0.05}]"
)


def space_of(written: str) -> Space:
    """Return the space of a threat."""
    space = Threat.parse(written).space
    assert space is not None
    return space


def by(written: str, change: list[float], images: torch.Tensor) -> torch.Tensor:
    """Return images by one choice, in shares of each range."""
    return space_of(written).changed(images, torch.tensor(change))


def pictures(*shape: int) -> torch.Tensor:
    """Return random images."""
    return torch.rand(*shape, generator=generator(0))


def test_a_rotation_by_a_right_angle_is_rot90() -> None:
    """Counter-clockwise; by two of them, too."""
    images = pictures(3, 2, 7, 7)
    assert_close(by("attributes:1 rotation 90", [1.0], images), torch.rot90(images, 1, (2, 3)), atol=1e-5, rtol=0)
    assert_close(by("attributes:1 rotation 90", [-1.0], images), torch.rot90(images, -1, (2, 3)), atol=1e-5, rtol=0)
    assert_close(by("attributes:1 rotation 180", [1.0], images), torch.rot90(images, 2, (2, 3)), atol=1e-5, rtol=0)


def test_a_translation_by_whole_pixels_is_a_shift_to_the_bit() -> None:
    """To the right, and down; what comes from outside is black."""
    images = pictures(3, 1, 8, 4)
    moved = by("attributes:1 translation 0.25", [1.0, -0.5], images)  # of 4 columns 1, of 8 rows 1
    expected = torch.zeros_like(images)
    expected[:, :, :-1, 1:] = images[:, :, 1:, :-1]
    assert torch.equal(moved, expected)


def test_a_translation_by_half_a_pixel_is_the_mean_of_two() -> None:
    """Bilinear."""
    images = pictures(3, 1, 8, 4)
    moved = by("attributes:1 translation 0.25", [0.5, 0.0], images)
    assert_close(moved[..., 1:], (images[..., 1:] + images[..., :-1]) / 2)


def test_a_scale_by_two_is_every_pixel_twice_as_far_from_the_middle() -> None:
    """The middle pixel stays."""
    images = pictures(3, 1, 9, 9)
    larger = by("attributes:1 scale 0.5", [1.0], images)  # by 1.5: 3 pixels for 2
    assert_close(larger[:, :, 4, 4], images[:, :, 4, 4])
    assert_close(larger[:, :, 1, 7], images[:, :, 2, 6])


def test_a_blur_is_the_gaussian_s_and_keeps_flat_images() -> None:
    """Against weights written out."""
    images = pictures(2, 1, 9, 9)
    blurred = by("attributes:1 blur 1", [1.0], images)
    offsets = torch.arange(-3.0, 4.0)
    weights = torch.exp(-(offsets**2) / 2)
    weights /= weights.sum()
    expected = (images[:, 0, 1:8, 1:8] * weights[:, None] * weights).sum((1, 2))
    assert_close(blurred[:, 0, 4, 4], expected)
    flat = torch.full((1, 1, 5, 5), 0.3)
    assert_close(by("attributes:1 blur 2", [1.0], flat), flat)
    assert torch.equal(by("attributes:1 blur 1", [0.0], images), images)


def test_on_a_linear_model_contrast_and_brightness_break_what_they_can() -> None:
    """A class gains by them b |Σ d| + c |d · (x - mean)|, where nothing is cut at the pixel range."""
    images = 0.4 + 0.2 * pictures(30, 1, 4, 6)
    weights = 8 * torch.randn(3, 24, generator=generator(1))
    network = linear_net(weights, -weights.sum(1) / 2)
    logits = network(images).detach().double()
    labels = logits.argmax(1)
    differences = (weights[None] - weights[labels][:, None]).double()  # to each class from the label
    flat = images.flatten(1).double()
    along = (differences * (flat - flat.mean(1, keepdim=True))[:, None]).sum(2)
    gain = 0.02 * differences.sum(2).abs() + 0.1 * along.abs()
    lead = logits.gather(1, labels[:, None]) - logits - gain
    lead[torch.arange(30), labels] = torch.inf
    exact = lead.amin(1)
    threat = Threat.parse("attributes:1 contrast 0.1 brightness 0.02")
    result = autoattack(network, images, labels, threat)
    clear = exact.abs() > 1e-3
    assert torch.equal(result.robust[clear], exact[clear] > 0)
    assert 2 < int(result.robust.sum()) < 28
    assert result.flag_counts["gradient mismatch"] == result.flag_counts["unconfirmed successes"] == 0


def test_on_a_linear_model_the_grid_of_whole_pixels_is_every_shift() -> None:
    """9 shifts of each image, asked for one by one."""
    images = pictures(40, 1, 6, 6)
    space = space_of("attributes:1 translation 0.16666666666666666")
    shifts = {
        tuple(point.tolist()): change(images)
        for point, change in zip(space.grid_points(), space.changes(), strict=True)
    }
    assert len(shifts) == 25
    for (right, down), moved in shifts.items():
        if right in {-1.0, 0.0, 1.0} and down in {-1.0, 0.0, 1.0}:
            rolled = torch.nn.functional.pad(images, (1, 1, 1, 1))
            top, left = 1 - int(down), 1 - int(right)
            assert torch.equal(moved, rolled[:, :, top : top + 6, left : left + 6])


def test_pgd_finds_what_the_grid_finds_or_more_on_one_attribute() -> None:
    """An attack by gradients is not beaten by a coarse grid where the loss is concave."""
    images = 0.4 + 0.2 * pictures(60, 1, 4, 6)
    weights = 8 * torch.randn(2, 24, generator=generator(1))
    network = linear_net(weights, -weights.sum(1) / 2)
    labels = network(images).argmax(1)
    threat = Threat.parse("attributes:1 contrast 0.5")
    attacked = pgd(network, images, labels, threat, steps=20, generator=generator(2))
    assert threat.space is not None
    for change in threat.space.changes():
        broken = misclassified(network(change(images)), labels)
        assert bool((misclassified(network(attacked), labels) | ~broken).all())


@pytest.fixture(scope="module")
def model(dataset: Dataset, outcome: Outcome) -> Classifier:
    """A classifier that is right on most images."""
    return engine.model_with(small().model, dataset.shape, outcome.learners["natural"], on=torch.device("cpu"))


@pytest.mark.usefixtures("short_gradients")
def test_an_evaluation_has_the_grid_beside_the_attacks_that_apply(model: Classifier, dataset: Dataset) -> None:
    """Each column says what it is; the worst is image by image; the other threat has its own columns."""
    config, split = small(BOTH), first(dataset.test, 40)
    verdicts = evaluate(
        model, split, options=config.evaluation, class_names=dataset.class_names, name="natural", epoch=5, digest="d"
    )
    natural = verdicts.evaluation
    turned, pixels = natural.threats
    name = "attributes:1 rotation 20 translation 0.125"
    assert (turned.threat, [*turned.columns]) == (name, ["pgd", "apgd-ce+apgd-t", "grid 5x3x3"])
    assert (pixels.threat, [*pixels.columns]) == ("linf:0.05", ["pgd", "cascade"])

    space = threat_from(config.evaluation.threats[0]).space
    assert space is not None
    network = model.views()["decision"]
    images, labels = to_unit(torch.tensor(split.images)), torch.tensor(split.labels)
    stands = network(images).argmax(1) == labels
    for change in space.changes():
        stands &= ~misclassified(network(change(images)), labels)
    arrays = verdicts.arrays
    assert np.array_equal(arrays[f"natural/{name}/grid 5x3x3"], stands.numpy())
    held = np.logical_and.reduce([arrays[f"natural/{name}/{column}"] for column in turned.columns])
    assert turned.worst.correct == held.sum() < natural.natural.correct
    assert turned.worst.n == 40

    asked = protocol(config, dataset).model_copy(update={"n": 40})
    assert asked.attacks["grid 5x3x3"] == "worst of grid 5x3x3, 45 points"
    assert asked.headline == "worst of PGD and apgd-ce and apgd-t and worst of grid 5x3x3"
    assert Protocol.model_validate_json(asked.model_dump_json()) == asked
    half = Measured(natural=natural.natural, robust=turned.worst)
    record = Evaluation(
        protocol=asked,
        deployed="natural",
        chosen=RoundRecord(round=0, epoch=5, weights={}, handed_back=False, validation=half, digest="d"),
        criterion="harmonic",
        learners={"natural": natural},
        numerics={},
        seconds=1.0,
    )
    without = turned.model_copy(update={"columns": {"pgd": turned.columns["pgd"]}, "worst": turned.columns["pgd"]})
    lacking = natural.model_copy(update={"threats": (without, pixels), "union": without.worst})
    with pytest.raises(ValueError, match="lacks attacks of the protocol"):
        Evaluation.model_validate({**record.model_dump(), "learners": {"natural": lacking.model_dump()}})


def test_norms_alone_have_the_protocol_that_they_had(dataset: Dataset) -> None:
    """Digests of protocols decide which champions compare."""
    asked = protocol(small(), dataset)
    assert asked.attacks_within == {} and "attacks_within" not in asked.model_dump(mode="json")
    assert [*asked.attacks] == ["pgd", "cascade"]


def test_rounds_are_chosen_by_it(model: Classifier, dataset: Dataset) -> None:
    """On the validation split by PGD, FGSM and the quick cascade alike."""
    config = small(BOTH)
    for attack in ("{name: pgd, steps: 3}", "{name: quick}"):
        options = small(BOTH, f"evaluation.selection_attack={attack}").evaluation
        found = measure(
            model,
            first(dataset.validation, 30),
            threats=config.evaluation.threats[:1],
            attack=options.selection_attack,
            fgsm=True,
        )
        assert found.robust.correct < found.natural.correct
        assert found.fgsm is not None and found.fgsm.correct < found.natural.correct


@pytest.mark.usefixtures("short_gradients")
def test_an_evaluation_goes_on_in_the_same_ranges_alone(tmp_path: Path) -> None:
    """A finished state gives the verdicts again; one of other ranges is refused."""
    images = 0.4 + 0.2 * pictures(10, 1, 4, 6)
    weights = 8 * torch.randn(2, 24, generator=generator(1))
    network, state = linear_net(weights, -weights.sum(1) / 2), tmp_path / "state.safetensors"
    labels = network(images).argmax(1)
    threat = Threat.parse("attributes:1 contrast 0.3")
    whole = autoattack(network, images, labels, threat, attacks=["apgd-ce"], state=state)
    again = autoattack(network, images, labels, threat, attacks=["apgd-ce"], state=state)
    assert torch.equal(whole.robust, again.robust) and torch.equal(whole.adversarial, again.adversarial)
    with pytest.raises(StateLost, match="another threat"):
        autoattack(network, images, labels, Threat.parse("attributes:1 contrast 0.2"), attacks=["apgd-ce"], state=state)


def test_readers_see_its_ranges() -> None:
    """In the report and in tables."""
    assert threats_in_words(["attributes:1 rotation 30"]) == "attributes\u00a01 rotation 30"
    threat = Threat.parse("attributes:1/2 rotation 30 blur 1")
    assert str(threat) == "attributes:1/2 rotation 30 blur 1"
    assert canonical(small(BOTH).evaluation.threats[0])["rotation"] == 20.0


@pytest.mark.parametrize(
    ("threat", "sentence"),
    [
        ("{norm: attributes}", "change nothing: give one at least of rotation"),
        ("{norm: attributes, rotation: 181}", "rotation is 181, but it should be less than or equal to 180"),
        ("{norm: attributes, rotation: 10, eps: 2}", "eps is 2, but it should be less than or equal to 1"),
        ("{norm: attributes, rotatoin: 10}", "unknown key 'rotatoin'; did you mean 'rotation'"),
        ("{norm: attributes, translation: 0.1, grid: {translation: 400}}", "the grid has 160000 points"),
        ("{norm: atributes, eps: 1}", "there is no threat of norm 'atributes'; did you mean 'attributes'"),
    ],
)
def test_what_it_can_t_be_is_refused_in_a_sentence(threat: str, sentence: str) -> None:
    """When the configuration is read."""
    with pytest.raises(BadInput, match=sentence):
        small(f"evaluation.threats=[{threat}]")


def test_attacks_and_objectives_that_need_a_ball_are_refused() -> None:
    """By what the threat and the objective declare."""
    images, network = pictures(4, 1, 6, 5), conv_net((1, 6, 5))
    labels = network(images).argmax(1)
    with pytest.raises(BadInput, match=r"square can't attack within attributes:1 rotation 30, .*ask for apgd-ce"):
        autoattack(network, images, labels, Threat.parse("attributes:1 rotation 30"), attacks=["square"])
    with pytest.raises(BadInput, match="leaves nothing of images of 6x5"):
        autoattack(network, images, labels, Threat.parse("attributes:1 blur 3"))
    for name in ("trades", "mart", "gat", "n_fgsm"):
        threat = "threat: {norm: attributes, rotation: 30}"
        with pytest.raises(BadInput, match="the attack of this objective moves pixels of its own accord"):
            small(f"experts.robust.objective={{name: {name}, {threat}}}")
    threats = "threats: [{norm: attributes, rotation: 30}, {norm: linf, eps: 0.1}]"
    with pytest.raises(BadInput, match="one of its 'threats' does not move"):
        small(f"experts.robust.objective={{name: union, combine: msd, {threats}}}")
    with pytest.raises(BadInput, match="it has options"):
        Threat("attributes", 1.0)
    with pytest.raises(BadInput, match="unknown key 'turn'"):
        Threat.parse("attributes:1 turn 30")
