"""The charts of the report: what matplotlib is given to draw, and the SVG that comes of it."""

import json
import math
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from generalist.records import Accuracy, Evaluation, History, Measured, ThreatEvaluation
from generalist.report import build
from generalist.report.curves import (
    NO_REDISTRIBUTION,
    REDISTRIBUTION,
    accuracies,
    curves,
    frame,
    legend,
    losses,
    weights,
)
from generalist.report.styles import LearnerStyle, learner_styles
from generalist.report.svg import COLOURS, EXPERTS, INK, chart, from_zero, shares, steps
from generalist.report.tradeoff_plane import among_experts, close_up, final, on_test, on_validation
from tests import report_factory as factory
from tests.report_parser import Parsed

CONFIG = factory.config()
HISTORY = factory.history(CONFIG)
EVALUATION = factory.evaluation(CONFIG, HISTORY)
LOOKS = learner_styles(CONFIG.experts)
PATH = [(r.epoch, r.validation) for r in HISTORY.rounds]


def drawn() -> list[str]:
    """Every chart of the usual page."""
    panels = [
        *curves(HISTORY, EVALUATION.chosen, LOOKS, attack="PGD", last=factory.EPOCHS),
        on_test(EVALUATION, 0, LOOKS),
        *on_validation(HISTORY, EVALUATION.chosen, LOOKS, deployed="global", attack="PGD"),
    ]
    return [str(panel.chart) for panel in panels]


@pytest.fixture(scope="module")
def usual() -> list[str]:
    """The charts of the usual page."""
    return drawn()


@pytest.fixture
def axes() -> Axes:
    """Empty axes."""
    return Figure().add_subplot()


def lines(axes: Axes) -> dict[str, np.ndarray]:
    """Return the points [n, 2] of each labelled line."""
    return {str(line.get_label()): line.get_xydata() for line in axes.lines}


def points(course: list[tuple[int, Measured]], kind: str) -> list[tuple[float, float]]:
    """Per cent by epoch."""
    return [(epoch, 100 * getattr(m, kind).value) for epoch, m in course]


@pytest.mark.parametrize("kind", ["natural", "robust"])
def test_accuracies_are_drawn_as_measured(axes: Axes, kind: str) -> None:
    """Each learner is a line through its accuracies, the global learner has a mark at every round, the chosen a ring."""
    accuracies(axes, history=HISTORY, chosen=EVALUATION.chosen, looks=LOOKS, kind=kind.capitalize())
    found = lines(axes)
    for name in CONFIG.experts:
        own = [(r.epoch, r.validation) for r in HISTORY.epochs if r.expert == name and r.validation]
        np.testing.assert_allclose(found[f"{name} expert"], points(own, kind))
    np.testing.assert_allclose(found["global learner"], points([(r.epoch, r.validation) for r in HISTORY.course], kind))
    path = next(line for line in axes.lines if line.get_label() == "global learner")
    marked = [HISTORY.course[index].epoch for index in path.get_markevery()]
    assert [*marked, factory.EPOCHS] == [r.epoch for r in HISTORY.rounds]
    np.testing.assert_allclose(found["chosen"], points([(EVALUATION.chosen.epoch, EVALUATION.chosen.validation)], kind))


def test_weights_are_drawn_at_every_round(axes: Axes) -> None:
    """Each expert's share in per cent, one point for each round."""
    weights(axes, history=HISTORY, looks=LOOKS)
    for name in CONFIG.experts:
        expected = [(r.epoch, 100 * r.weights[name]) for r in HISTORY.rounds]
        np.testing.assert_allclose(lines(axes)[f"{name} expert"], expected)


def test_a_loss_that_is_no_number_leaves_a_gap(axes: Axes) -> None:
    """A diverged epoch is drawn nowhere, and the other epochs still are."""
    config = factory.config("natural", mixed=False)
    epochs = list(factory.history(config).epochs)
    epochs[9] = epochs[9].model_copy(update={"loss": math.nan})
    epochs[19] = epochs[19].model_copy(update={"loss": math.inf})
    history = factory.history(config).model_copy(update={"epochs": tuple(epochs)})
    losses(axes, history=history, looks=learner_styles(config.experts))
    np.testing.assert_array_equal(lines(axes)["natural expert"], [(r.epoch, r.loss) for r in epochs])
    assert axes.get_ylim()[1] == pytest.approx(1.06 * epochs[0].loss)
    svg = chart(lambda axes: losses(axes, history=history, looks=learner_styles(config.experts)), label="loss")
    paths = [path["d"] for path in Parsed(svg).all("path")]
    assert not [path for path in paths if "nan" in path or "inf" in path]
    assert [path.count("M") for path in paths].count(3) == 1


def test_every_round_is_marked_on_an_axis_of_epochs(axes: Axes) -> None:
    """A line at each round, of one kind with redistribution and of another without; the warm-up is named."""
    frame(axes, history=HISTORY, last=factory.EPOCHS)
    found = [(line.get_xdata()[0], line.get_linestyle()) for line in axes.lines]
    kinds = {True: REDISTRIBUTION["linestyle"], False: NO_REDISTRIBUTION["linestyle"]}
    assert kinds[True] != kinds[False]
    assert found == [(r.epoch, kinds[r.handed_back]) for r in HISTORY.rounds]
    assert [text.get_text() for text in axes.texts] == ["warm-up"]


def test_an_axis_of_epochs_without_mixing_has_no_rounds(axes: Axes) -> None:
    """No lines, no warm-up."""
    frame(axes, history=factory.history(factory.config("natural", mixed=False)), last=factory.EPOCHS)
    assert not axes.lines
    assert not axes.patches
    assert not axes.texts


def test_the_legend_tells_each_learner_and_each_mark() -> None:
    """Learners, both kinds of rounds and the ring; where nothing is mixed, there are no rounds."""
    assert [text for _, text in legend(HISTORY, LOOKS)] == [
        *(LOOKS[name].label for name in (*CONFIG.experts, "global")),
        "mixing round, experts go on from the mixture",
        "round without redistribution",
        "chosen",
    ]
    alone = factory.config("natural", mixed=False)
    found = legend(factory.history(alone), learner_styles(alone.experts))
    assert [text for _, text in found] == ["natural expert", "chosen"]


def test_the_test_plane_has_a_cross_of_intervals_for_each_learner(axes: Axes) -> None:
    """Across the natural interval at the robust accuracy, up the robust interval at the natural accuracy."""
    final(axes, evaluation=EVALUATION, index=0, looks=LOOKS)
    found = [line.get_xydata().round(9).tolist() for line in axes.lines]
    for name, one in EVALUATION.learners.items():
        natural, robust = one.natural, one.threats[0].worst
        (left, right), (bottom, top) = np.multiply(100, [natural.interval, robust.interval])
        x, y = 100 * natural.value, 100 * robust.value
        assert np.round([(left, y), (right, y)], 9).tolist() in found
        assert np.round([(x, bottom), (x, top)], 9).tolist() in found
        np.testing.assert_allclose(lines(axes)[LOOKS[name].label], [(x, y)])


def at_conditions(evaluation: Evaluation) -> Evaluation:
    """Return it with a conditional global learner: less natural and more robust as lambda rises."""
    usual, learners = evaluation.learners["global"], {}
    for condition, name in ((1.0, "global"), (0.0, "global at lambda 0"), (0.1, "global at lambda 0.1")):
        natural, robust = factory.accuracy(0.99 - 0.03 * condition), factory.accuracy(0.3 + 0.3 * condition)
        threats = [replace_worst(threat, robust) for threat in usual.threats]
        told = {"name": name, "condition": condition, "natural": natural, "threats": tuple(threats)}
        learners[name] = usual.model_copy(update=told)
    return evaluation.model_copy(update={"learners": {**evaluation.learners, **learners}})


def replace_worst(threat: ThreatEvaluation, robust: Accuracy) -> ThreatEvaluation:
    """Return it with these accuracies in each column."""
    return threat.model_copy(update={"columns": dict.fromkeys(threat.columns, robust), "worst": robust})


def test_a_conditional_learner_is_a_curve_in_order_of_lambda(axes: Axes) -> None:
    """From natural to robust, lambda beside each point; the page names each by its lambda."""
    evaluation = at_conditions(EVALUATION)
    looks = LOOKS | {name: LOOKS["global"] for name in evaluation.learners if name.startswith("global")}
    final(axes, evaluation=evaluation, index=0, looks=looks)
    accuracies_by_lambda = [evaluation.learners[f"global{at}"] for at in (" at lambda 0", " at lambda 0.1", "")]
    expected = [(100 * one.natural.value, 100 * one.threats[0].worst.value) for one in accuracies_by_lambda]
    np.testing.assert_allclose(lines(axes)["global learner, by lambda"], expected)
    assert {"0", "0.1", "1"} <= {text.get_text() for text in axes.texts}
    gallery = factory.gallery(CONFIG)
    html = build(HISTORY, evaluation, gallery, config=CONFIG, commands={}, lineage=factory.LINEAGE)
    assert all(f"global learner, lambda {own}" in html for own in ("0", "0.1", "1"))


def test_a_slimmable_learner_has_a_curve_for_each_width(axes: Axes) -> None:
    """In lines of their own kind; without a condition it is one curve from width to width."""
    usual, learners = EVALUATION.learners["global"], {}
    for width in (1.0, 0.5):
        for condition in (1.0, 0.0):
            name = f"global at lambda {condition:g} and width {width:g}" if learners else "global"
            robust = factory.accuracy(0.3 * width + 0.3 * condition)
            threats = tuple(replace_worst(threat, robust) for threat in usual.threats)
            told = {"name": name, "condition": condition, "width": width, "threats": threats}
            learners[name] = usual.model_copy(update=told)
    evaluation = EVALUATION.model_copy(update={"learners": learners})
    final(axes, evaluation=evaluation, index=0, looks=dict.fromkeys(learners, LOOKS["global"]))
    for width, dash in (("1", "-"), ("0.5", "--")):
        (line,) = (own for own in axes.lines if own.get_label() == f"global learner, width {width}, by lambda")
        own = sorted(
            (one for one in learners.values() if f"{one.width:g}" == width), key=lambda one: one.condition or 0
        )
        expected = [(100 * one.natural.value, 100 * one.threats[0].worst.value) for one in own]
        np.testing.assert_allclose(line.get_xydata(), expected)
        assert line.get_linestyle() == dash
    plain = {name: one.model_copy(update={"condition": None}) for name, one in learners.items() if one.condition == 1}
    other = Figure().add_subplot()
    evaluation = EVALUATION.model_copy(update={"learners": plain})
    final(other, evaluation=evaluation, index=0, looks=dict.fromkeys(plain, LOOKS["global"]))
    assert len(lines(other)["global learner, by width"]) == 2


def test_the_validation_planes_hold_the_path_from_round_to_round(axes: Axes) -> None:
    """The global learner at every round in order, the chosen ringed, every expert at its end and after its warm-up."""
    path = [(100 * m.natural.value, 100 * m.robust.value) for _, m in PATH]
    among_experts(axes, history=HISTORY, chosen=EVALUATION.chosen, path=PATH, looks=LOOKS, look=LOOKS["global"])
    found = lines(axes)
    np.testing.assert_allclose(found["global learner, by round"], path)
    places = [line.get_xydata().round(9).tolist() for line in axes.lines]
    for r in HISTORY.epochs:
        if r.epoch in {factory.WARM_UP, factory.EPOCHS}:
            assert np.round([(100 * r.validation.natural.value, 100 * r.validation.robust.value)], 9).tolist() in places
    near = Figure().add_subplot()
    close_up(near, chosen=EVALUATION.chosen, path=PATH, look=LOOKS["global"])
    np.testing.assert_allclose(lines(near)["global learner, by round"], path)
    assert {f"epoch {PATH[0][0]}", f"epoch {PATH[-1][0]}"} <= {text.get_text() for text in near.texts}
    best = [path[HISTORY.rounds.index(EVALUATION.chosen)]]
    np.testing.assert_allclose(found["chosen"], best)
    np.testing.assert_allclose(lines(near)[f"chosen, epoch {EVALUATION.chosen.epoch}"], best)


def test_a_single_perfect_candidate_has_a_plane() -> None:
    """One round in which everything, or nothing, is right is drawn without a warning."""
    for share in (0.0, 1.0):
        m = Measured(natural=factory.accuracy(share), robust=factory.accuracy(share))
        only = HISTORY.rounds[0].model_copy(update={"validation": m})
        history = History(epochs=HISTORY.epochs[:1], course=(), rounds=(only,))
        (panel,) = on_validation(history, only, LOOKS, deployed="natural", attack="PGD")
        assert "natural expert, by round" in Parsed(panel.chart).text("text")


def test_text_in_charts_is_text_and_never_markup() -> None:
    """Names with tags, quotes, dollars and references to ids come out as they are."""
    evil = """<script>alert(1)</script> $x$ & id="a" style="fill: #0072b2" """.strip()
    look = LearnerStyle(evil, COLOURS["c0"], "-", "s")
    parsed = Parsed(on_test(EVALUATION, 0, dict.fromkeys(LOOKS, look)).chart)
    assert not parsed.all("script")
    assert parsed.text("text").count(evil) == len(EVALUATION.learners)


def test_charts_are_drawn_alike_in_threads_and_leave_matplotlib_as_it_was(usual: list[str]) -> None:
    """Two threads make the same bytes as one, and no setting of the process has changed after it."""
    before = dict(matplotlib.rcParams)
    with matplotlib.rc_context({"font.size": 30, "svg.fonttype": "path"}), ThreadPoolExecutor(2) as pool:
        assert [one.result() for one in [pool.submit(drawn), pool.submit(drawn)]] == [usual, usual]
    assert dict(matplotlib.rcParams) == before


def test_charts_follow_the_colours_of_the_page(usual: list[str], root: Path) -> None:
    """Every colour is a variable of the page, drawn as that variable is on a light page."""
    sheet = (root / "generalist/report/templates/style.css").read_text(encoding="utf-8")
    assert COLOURS.items() <= dict(re.findall(r"--(\w+): (#\w{6});", sheet[: sheet.index("}")])).items()
    for svg in usual:
        assert "var(--" in svg
        assert not re.search(r"#[0-9a-fA-F]{6}\b", re.sub(r'(id|href)="[^"]*"', "", svg))


def test_charts_are_fit_to_stand_in_a_page(usual: list[str]) -> None:
    """They have a view box, a role and a name of their own, readable texts, and nothing from elsewhere."""
    parsed = [Parsed(svg) for svg in usual]
    roots = [one.all("svg")[0] for one in parsed]
    assert all(root["role"] == "img" and root["viewbox"].startswith("0 0 400 ") for root in roots)
    assert not any({"width", "height"} & root.keys() for root in roots)
    assert len({root["aria-label"] for root in roots}) == len(usual)
    for one in parsed:
        assert not {"metadata", "style", "image"} & {tag for tag, _ in one.elements}
        sizes = [re.search(r"font-size: ([0-9.]+)px", text["style"]) for text in one.all("text")]
        assert sizes
        assert all(size and float(size[1]) * 348 / 400 > 9 for size in sizes)  # 348 px: a chart on a phone
    for svg in usual:
        assert "http" not in svg
        assert "url(" not in svg


@given(st.lists(st.floats(0.0, 100.0), max_size=8))
def test_an_axis_of_shares_holds_its_values(values: list[float]) -> None:
    """Every value lies on the axis, which stays within [0, 100] and has two ticks at least."""
    low, high = shares(values)
    assert 0 <= low < high <= 100
    assert all(low <= value <= high for value in values)
    assert sum(low <= tick <= high for tick in steps().tick_values(low, high)) >= 2


@given(st.lists(st.floats(0.0, 1e6) | st.just(math.nan) | st.just(math.inf)))
def test_an_axis_from_zero_holds_its_finite_values(values: list[float]) -> None:
    """It is finite and not empty, whatever it is made for."""
    low, high = from_zero(values)
    assert low == 0 < high < math.inf
    assert all(value <= high for value in values if math.isfinite(value))


@given(st.integers(1, 2000))
def test_ticks_of_epochs_are_whole_epochs(last: int) -> None:
    """The axis of epochs starts at 0, ends just after the last, and is labelled at whole numbers only."""
    axes = Figure().add_subplot()
    frame(axes, history=factory.history(factory.config("natural", mixed=False)), last=last)
    low, high = axes.get_xlim()
    assert low == 0
    assert last < high <= 1.05 * last
    assert all(tick == int(tick) for tick in axes.get_xticks())


def test_plots_of_dvc_have_the_report_s_colours(root: Path) -> None:
    """The global learner's first, whether there is one or not; experts in their order, which is that of the table."""
    colour = json.loads((root / ".dvc" / "plots" / "learners.json").read_text(encoding="utf-8"))["encoding"]["color"]
    assert colour["sort"] is None
    assert colour["scale"] == {"domain": {"unionWith": ["global"]}, "range": [INK, *EXPERTS]}
