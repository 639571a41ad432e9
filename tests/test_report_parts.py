"""The parts of the report: pictures, the table of curves, looks."""

import base64
import csv
import io
from pathlib import Path

import numpy as np
import pytest
from matplotlib import pyplot
from PIL import Image

from generalist.config import Quantity
from generalist.report import Gallery, write_curves
from generalist.report.gallery import cards
from generalist.report.styles import change, learner_styles
from generalist.report.tradeoff_plane import _beside
from tests import report_factory as factory


def pixels(uri: str) -> np.ndarray:
    """Return the picture in a data URI, uint8 [height, width, 3]."""
    head, data = uri.split(",")
    assert head == "data:image/png;base64"
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data))))


@pytest.mark.parametrize("channels", [1, 3])
def test_pictures_hold_the_exact_pixels(channels: int) -> None:
    """Clean and adversarial pictures are the images as bytes, grey as three equal channels."""
    gallery = factory.gallery(factory.config(), channels=channels, size=32)
    for index, card in enumerate(cards(gallery)):
        for uri, image in ((card.clean, gallery.images[index]), (card.adversarial, gallery.adversarial[index])):
            expected = np.rint(image * 255).astype(np.uint8).transpose(1, 2, 0)
            np.testing.assert_array_equal(pixels(uri), np.broadcast_to(expected, (32, 32, 3)))


def test_large_pictures_are_thinned() -> None:
    """No picture is more than 96 pixels wide, and each pixel shown is one of the image."""
    gallery = factory.gallery(factory.config(), count=1, size=200)
    shown = pixels(cards(gallery)[0].clean)[:, :, 0]
    assert shown.shape == (67, 67)
    np.testing.assert_array_equal(shown, np.rint(gallery.images[0, 0, ::3, ::3] * 255))


def test_the_perturbation_is_orange_where_brighter_and_blue_where_darker() -> None:
    """Unchanged pixels are near white; the strongest change has full colour whatever its size."""
    config = factory.config()
    clean = np.full((1, 1, 1, 3), 0.5, np.float32)
    adversarial = clean + np.array([-0.01, 0, 0.005], np.float32)
    plain = factory.gallery(config, count=1)
    card = cards(Gallery(clean, adversarial, plain.labels, plain.class_names, plain.predictions))[0]
    np.testing.assert_array_equal(pixels(card.perturbation)[0], [(0, 90, 181), (247, 247, 247), (224, 164, 124)])
    assert card.largest == pytest.approx(0.01)


def test_an_image_that_the_attack_left_alone_is_called_unchanged() -> None:
    """Its perturbation is one neutral colour, and rounding does not count as a change."""
    config = factory.config()
    gallery = factory.gallery(config, count=1)
    gallery = Gallery(
        gallery.images, gallery.images + np.float32(1e-7), gallery.labels, gallery.class_names, gallery.predictions
    )
    assert cards(gallery)[0].largest == 0
    assert (pixels(cards(gallery)[0].perturbation) == 247).all()


def test_verdicts_are_the_most_probable_classes() -> None:
    """Each learner's class is the largest probability's, right if it is the label."""
    gallery = factory.gallery(factory.config())
    for index, card in enumerate(cards(gallery)):
        for learner, verdicts in card.verdicts.items():
            for verdict, probabilities in zip(verdicts, gallery.predictions[learner], strict=True):
                assert verdict.name == gallery.class_names[probabilities[index].argmax()]
                assert verdict.probability == probabilities[index].max()
                assert verdict.correct == (verdict.name == card.label)


def test_the_table_of_curves_holds_every_measurement(tmp_path: Path) -> None:
    """Rows by epoch: experts with loss, the global learner without, empty where nothing was measured."""
    history = factory.history(factory.config(), checkpoint=5)
    path = write_curves(history, tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["curves.csv"]
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["epoch"]) for row in rows] == sorted(int(row["epoch"]) for row in rows)
    found = {(int(row["epoch"]), row["learner"]): (row["natural"], row["robust"], row["loss"]) for row in rows}
    assert len(found) == len(rows) == len(history.epochs) + len(history.course)
    for record in history.epochs:
        natural, robust, loss = found[record.epoch, record.expert]
        assert float(loss) == record.loss
        if record.validation is None:
            assert natural == robust == ""
        else:
            assert (float(natural), float(robust)) == (record.validation.natural.value, record.validation.robust.value)
    assert {found[record.epoch, "global"][2] for record in history.course} == {""}


def test_up_to_twelve_experts_look_different() -> None:
    """Neither two lines nor two marks of a dozen experts and the global learner are alike."""
    found = learner_styles([f"expert{index}" for index in range(12)]).values()
    assert len({(look.colour, look.dash) for look in found}) == 13
    assert len({(look.colour, look.marker) for look in found}) == 13


@pytest.mark.parametrize(
    ("written", "size", "told"), [("8/255", 8 / 255, "8/255"), ("8/255", 0.0137, "3.49/255"), ("0.15", 0.15, "0.15")]
)
def test_a_change_is_told_as_its_radius_is_written(written: str, size: float, told: str) -> None:
    """Also where float32 has rounded it."""
    assert change(float(np.float32(size)), Quantity(written)) == told


def test_words_beside_points_cover_neither_each_other_nor_the_legend() -> None:
    """Whatever the path: its ends may lie at the same place, or in a corner."""
    for shape in (
        [(0.0, 0.0), (0.0, 0.0)],
        [(0.0, 0.0), (1.0, 1.0), (0.02, 0.0)],
        [(0.0, 1.0), (0.5, 0.2), (1.0, 1.0)],
    ):
        figure, axes = pyplot.subplots(figsize=(4, 3))
        axes.plot(*zip(*shape, strict=True), label="path")
        axes.legend(loc="upper left")
        _beside(axes, {"epoch 25": shape[0], "epoch 40": shape[-1]}, [shape])
        boxes = [text.get_window_extent() for text in axes.texts]
        assert len(boxes) == 2
        assert not boxes[0].overlaps(boxes[1])
        legend = axes.get_legend()
        assert legend is not None and not any(legend.get_window_extent().overlaps(box) for box in boxes)
        pyplot.close(figure)
