"""The report: one page that stands alone, says what the records say, and is the same bytes each time."""

import re

import pytest

from generalist.config import Config
from generalist.data.sources.folder import Folder
from generalist.records import Evaluation, History
from generalist.report import Gallery, build
from tests import report_factory as factory
from tests.report_parser import Parsed, section


def page(
    config: Config, history: History | None = None, evaluation: Evaluation | None = None, gallery: Gallery | None = None
) -> str:
    """Return the report of a made-up training."""
    history = history or factory.history(config)
    return build(
        history,
        evaluation or factory.evaluation(config, history),
        gallery or factory.gallery(config),
        config=config,
        commands=factory.COMMANDS,
        lineage=factory.LINEAGE,
    )


@pytest.fixture(scope="module")
def usual() -> str:
    """Two experts, one threat, no flags."""
    return page(factory.config())


def test_the_same_training_gives_the_same_bytes(usual: str) -> None:
    """A second build does not change the page, nor do other wall-clock times."""
    config = factory.config()
    slower = factory.history(config, seconds=77.0)
    assert page(config, slower, factory.evaluation(config, slower, seconds=88.0)) == usual


def test_the_page_needs_nothing_else(usual: str) -> None:
    """No element loads anything but data in the page; there are no scripts and no imports in the style sheet."""
    parsed = Parsed(usual)
    assert not {"script", "iframe", "object", "embed", "base"} & {tag for tag, _ in parsed.elements}
    for tag, attributes in parsed.elements:
        loaded = [value for name, value in attributes.items() if name in {"src", "srcset", "data", "poster", "action"}]
        assert all(value.startswith("data:") for value in loaded)
        allowed = {"a": ("#", "http"), "use": ("#",)}.get(tag, ("data:",))
        assert attributes.get("href", allowed[0]).startswith(allowed)
    assert "url(" not in usual
    assert "@import" not in usual
    policy = next(a["content"] for a in parsed.all("meta") if a.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'")


def test_the_results_are_those_of_the_records(usual: str) -> None:
    """Each learner's row holds every accuracy with its interval and n, in the order of the columns."""
    config = factory.config()
    evaluation = factory.evaluation(config, factory.history(config))
    rows = Parsed(usual).text("tr")
    for one in evaluation.learners.values():
        row = next(row for row in rows if "epoch" in row and one.name in row)
        expected = []
        for accuracy in (one.natural, *one.threats[0].columns.values(), one.threats[0].worst):
            low, high = accuracy.interval
            value = f"{100 * accuracy.value:.1f} % [{100 * low:.1f}, {100 * high:.1f}]"
            expected.append(f"{value} {accuracy.correct} of {accuracy.n}")
        assert row.endswith(" ".join(expected))


def test_the_first_sentence_says_what_is_deployed_and_how_good_it_is(usual: str) -> None:
    """It names learner, experts, n, threat, attack and both accuracies with intervals."""
    lede = Parsed(usual).text("p")[1]
    for part in ("global learner", "natural, robust", "450 test images", "L∞ 0.15", "standard", "95 % intervals"):
        assert part in lede
    assert re.search(r"98\.4 % \[96\.8, 99\.2\] correctly, and 66\.4 % \[62\.0, 70\.7\] under attack", lede)


def test_flags_make_a_result_doubtful(usual: str) -> None:
    """A flag shows at the number, above the fold and in words; without flags none of it is there."""
    config = factory.config()
    history = factory.history(config)
    flagged = page(config, history, factory.evaluation(config, history, flags=("Square finds what APGD misses",)))
    assert len(Parsed(flagged).of_class("alert")) == 2
    assert "Square finds what APGD misses" in flagged
    assert [cell for cell in Parsed(flagged).text("td") if "doubtful" in cell] == [
        "66.4 % doubtful [62.0, 70.7] 299 of 450"
    ]
    plain = Parsed(usual)
    assert not plain.of_class("alert")
    assert not plain.of_class("warning")


def test_names_from_outside_are_text_and_never_markup(usual: str) -> None:
    """Class names, commands and lineage with tags in them make no elements; a hundred classes wait behind a summary."""
    config = factory.config()
    history = factory.history(config)
    evil = ("<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "a & b", "{{ 7 * 7 }}")
    names = (*evil, *(f"kind {index}" for index in range(96)))
    html = build(
        history,
        factory.evaluation(config, history, class_names=names),
        factory.gallery(config, class_names=names),
        config=config,
        commands={"<i>run</i>": "cat <b>x</b>"},
        lineage={"<u>file</u>": "'\"<a href=http://x>"},
    )
    parsed = Parsed(html)
    assert not {"script", "i", "b", "u"} & {tag for tag, _ in parsed.elements}
    assert not [name for _, attributes in parsed.elements for name in attributes if name.startswith("on")]
    assert {*names} <= {*parsed.text("th")}
    assert "All 100 classes" in parsed.text("summary")
    assert not any(text.endswith("classes") for text in Parsed(usual).text("summary"))
    assert "cat <b>x</b>" in parsed.text("code")


def test_every_threat_has_its_columns_and_its_plane(usual: str) -> None:
    """One pair of columns and one test plane for each threat, under the name it was given."""
    both = page(factory.config(threats=("linf:8/255", "l2:0.5")))
    for html, shown in ((usual, ["L∞ 0.15"]), (both, ["L∞ 8/255", "L2 0.5"])):
        parsed = Parsed(html)
        assert [head for head in parsed.text("th") if head.startswith("Robust, ")] == [f"Robust, {t}" for t in shown]
        assert [title for title in parsed.text("strong") if title.startswith("Test: ")] == [f"Test: {t}" for t in shown]


def test_an_expert_on_its_own_has_no_mixing_on_its_page() -> None:
    """Without mixing there are no rounds, no weights and no global learner; the candidates are still listed."""
    html = page(factory.config("natural", mixed=False))
    parsed = Parsed(html)
    assert "trained on its own" in parsed.text("p")[1]
    assert "warm-up" not in parsed.text("text")
    assert parsed.text("text").count("epochs done") == 3
    assert "global learner" not in html
    assert "Mixing weights" not in html
    assert "The candidates" in parsed.text("summary")


def test_epochs_that_were_not_measured_are_no_obstacle() -> None:
    """A training measured at every fifth epoch shows a dash for the others, and its losses."""
    config = factory.config()
    history = factory.history(config, checkpoint=5)
    rows = [row.replace(" ", "") for row in Parsed(page(config, history)).text("tr")]
    assert "1––0.6377––1.873–––" in rows


def test_the_page_can_be_read_without_seeing_it(usual: str) -> None:
    """One first heading, labelled charts, described images, scoped heads, unique ids that all links find."""
    parsed = Parsed(usual)
    assert len(parsed.all("h1")) == 1
    assert not [tag for tag, _ in parsed.elements if re.fullmatch("h[3-6]", tag)]
    assert all(image["alt"] for image in parsed.all("img"))
    assert all("scope" in head for head in parsed.all("th"))
    assert all(chart.get("aria-label") or chart.get("aria-hidden") for chart in parsed.all("svg"))
    ids = [attributes["id"] for _, attributes in parsed.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert {a["href"][1:] for a in (*parsed.all("a"), *parsed.all("use"))} <= {*ids}
    assert parsed.all("html")[0]["lang"] == "en-GB"


def test_wide_tables_scroll_inside_their_own_box(usual: str) -> None:
    """Each table outside the gallery lies in a labelled region that the keyboard reaches."""
    parsed = Parsed(usual)
    boxes = parsed.of_class("scroll")
    assert len(boxes) == len(parsed.all("table")) - 12
    assert all(box["tabindex"] == "0" and box["role"] == "region" and box["aria-label"] for box in boxes)


def test_the_configuration_is_on_the_page(usual: str) -> None:
    """The resolved configuration and every command and digest can be copied from the page."""
    code = Parsed(usual).texts["code"]
    assert any("warm_up: 25" in text and "eps: '0.15'" in text for text in code)
    assert {*factory.COMMANDS.values(), *factory.LINEAGE.values()} <= {*code}


def test_the_gallery_shows_its_images(usual: str) -> None:
    """Three pictures for each image; no images, no gallery."""
    assert len(Parsed(usual).all("img")) == 3 * 12 and 'id="gallery"' in usual
    config = factory.config()
    empty = page(config, gallery=factory.gallery(config, count=0))
    assert not Parsed(empty).all("img") and 'id="gallery"' not in empty


def test_the_page_says_which_images_the_attack_left_alone(usual: str) -> None:
    """Every fourth image of the made-up gallery is unchanged, the others are adversarial."""
    captions = section(usual, "gallery").text("span")
    assert captions.count("unchanged") == captions.count("no change") == 3
    assert captions.count("adversarial") == 9


def test_a_folder_of_images_gives_the_page_its_name() -> None:
    """Which folder it is, people know; that it is one, they know as well."""
    images = Folder(name="folder", path="data/raw/pets/<b>/")
    html, title = page(factory.config().model_copy(update={"data": images})), "&lt;b&gt;"
    assert f"<title>Generalist: {title}, small_cnn</title>" in html and f"<h1>{title} with small_cnn</h1>" in html
