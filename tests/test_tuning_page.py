"""The page of a search: self-contained, true to the record, and whole however few trials there are."""

import json
import re
from functools import cache
from typing import Any

import optuna
import pytest
from optuna.distributions import BaseDistribution, IntDistribution

from generalist.report.styles import percent
from pipelines.trial_records import StudyRecord, TrialRecord
from pipelines.tuning.search_page import build, ranked
from pipelines.tuning.study_figures import importances, undominated
from tests import study_factory as studies
from tests.report_parser import Parsed, section

GROUPS = ("plane", "history", "importance", "slices", "contours", "intermediate")
_DRAWN = re.compile(r'<script type="application/json" data-plot="plot-(?P<id>[^"]+)">(?P<spec>.*?)</script>', re.DOTALL)


@cache
def page(name: str) -> str:
    """Return the page of a made-up search, without plotly.js, which is there once."""
    record: StudyRecord = {
        "mixed": studies.mixed,
        "front": studies.front,
        "one": studies.one,
        "none": studies.none,
    }[name]()
    return without_plotly(build(studies.study_of(record), record))


def without_plotly(html: str) -> str:
    """Return a page that a person could read; the library is most of it."""
    scripts = re.findall(r"<script>(.*?)</script>", html, re.DOTALL)
    assert len(scripts) == 2 and len(scripts[0]) > 1_000_000 > len(scripts[1])
    return html.replace(scripts[0], "")


def charts(html: str) -> dict[str, Any]:
    """Return what is drawn, by the name of its place."""
    return {match["id"]: json.loads(match["spec"]) for match in _DRAWN.finditer(html)}


def trace(spec: dict[str, Any], name: str) -> dict[str, Any]:
    """Return the one trace of a name."""
    (found,) = (trace for trace in spec["data"] if trace.get("name") == name)
    return found


@pytest.mark.parametrize("name", ["mixed", "front", "one", "none"])
def test_every_question_has_charts_or_a_sentence(name: str) -> None:
    """Each place has its data, each data its place, and a section without any says why."""
    html = page(name)
    places = [attributes["id"] for attributes in Parsed(html).of_class("plot")]
    assert len(set(places)) == len(places)
    assert places == [f"plot-{place}" for place in charts(html)]
    for group in GROUPS:
        parsed = section(html, group)
        excuses = parsed.of_class("excuse")
        assert parsed.of_class("plot") or excuses
        if excuses:
            assert parsed.text("p")[-1].endswith(".")


def test_what_many_trials_show() -> None:
    """Every kind of chart: one slice for each parameter, contours of pairs of the three most important."""
    drawn = list(charts(page("mixed")))
    parameters = {name for trial in studies.mixed().trials for name in trial.params}
    assert [name for name in drawn if not name.startswith(("slice", "contour"))] == [
        "plane-0",
        "history-0",
        "importance-0",
        "intermediate-0",
    ]
    assert sum(name.startswith("slice") for name in drawn) == len(parameters)
    assert 1 <= sum(name.startswith("contour") for name in drawn) <= 3


def test_what_few_trials_do_not_show() -> None:
    """One trial has a place and a course, and nothing to compare it with; no trial has nothing."""
    assert list(charts(page("one"))) == ["plane-0", "history-0", "intermediate-0"]
    assert charts(page("none")) == {}
    assert "No trial has been chosen yet." in page("none")
    assert "No trial is complete yet." in section(page("none"), "history").text("p")


def test_two_objectives_have_a_front() -> None:
    """Each objective has its history; trials that no other beats are the front, in the plane and in Optuna's plot."""
    record, drawn = studies.front(), charts(page("front"))
    best = undominated(record.trials)
    assert {"front-0", "history-0", "history-1"} <= set(drawn)
    assert "intermediate-0" not in drawn
    expected = sorted(trial.values for trial in best)
    for found in (drawn["front-0"]["data"][1], trace(drawn["plane-0"], "front")):
        assert sorted(zip(found["x"], found["y"], strict=True)) == expected
    assert "front" not in charts(page("mixed"))


def test_the_numbers_are_the_records() -> None:
    """Best trial, finalists, work and table: the same accuracies, with n."""
    record, html = studies.mixed(), page("mixed")
    best = next(trial for trial in record.trials if trial.number == record.best)
    asked, trained = sum(t.epochs_asked for t in record.trials), sum(t.epochs_trained for t in record.trials)
    assert best.validation is not None
    lede = Parsed(html[html.index("<header>") : html.index("</header>")]).text("p")[1]
    assert f"Trial {best.number} is the best of 12 complete trials by harmonic mean." in lede
    assert f"On {best.validation.natural.n} validation images" in lede
    for measured in (best.validation, record.finalists[0].validation):
        assert percent(measured.natural.value).replace("\u00a0", " ") in lede
        assert percent(measured.robust.value).replace("\u00a0", " ") in lede
    assert f"{trained} of {asked} asked for" in html
    assert percent(1 - trained / asked) in html
    assert "12 complete, 3 pruned, 1 failed, 1 running" in html
    cells = section(html, "trials").text("tr")
    for trial in ranked(record)[:10]:
        row = next(row for row in cells if row.startswith(f"{trial.number} "))
        assert f"{trial.values[0]:.4f}" in row
        assert f"{trial.epochs_trained} of {trial.epochs_asked}" in row
    assert "at epoch 10 its value 0.4000 was below the median of the others" in html
    assert "it diverged" in html


def test_the_charts_show_the_record() -> None:
    """History, plane, finalists, mixtures and courses are the trials' own numbers."""
    record, drawn = studies.mixed(), charts(page("mixed"))
    complete = [trial for trial in record.trials if trial.state == "complete"]
    history = trace(drawn["history-0"], "harmonic mean")
    assert dict(zip(history["x"], history["y"], strict=True)) == {t.number: t.values[0] for t in complete}
    places = {
        text: (x, y)
        for name in ("trials", "front", "mixed again", "finalists")
        for one in [trace(drawn["plane-0"], name)]
        for text, x, y in zip(one["text"], one["x"], one["y"], strict=True)
    }
    for trial in complete:
        assert trial.validation is not None and trial.remix is not None
        for text, m in (
            (f"trial {trial.number}", trial.validation),
            (f"trial {trial.number} mixed again", trial.remix.validation),
        ):
            assert places.pop(text) == (m.natural.value, m.robust.value)
    for finalist in record.finalists:
        m = finalist.validation
        assert places.pop(f"trial {finalist.number} by standard") == (m.natural.value, m.robust.value)
    assert places == {}
    courses = {line["name"]: line["y"] for line in drawn["intermediate-0"]["data"]}
    assert courses == {
        f"Trial{t.number}": [point.validation.harmonic for point in t.curve] for t in record.trials if t.curve
    }
    assert sum(drawn["importance-0"]["data"][0]["x"]) == pytest.approx(1)


def test_a_conditional_parameter_shows_the_trials_that_have_it() -> None:
    """Momentum is a parameter of every other trial."""
    record, html = studies.mixed(), page("mixed")
    titles = section(html, "slices").text("figcaption")
    spec = charts(html)[f"slice-{titles.index('experts.robust.optimizer.momentum')}"]
    name = "experts.robust.optimizer.momentum"
    expected = sorted(float(t.params[name]) for t in record.trials if t.state == "complete" and name in t.params)
    assert sorted(spec["data"][0]["x"]) == expected


def test_finalists_stand_first_in_their_own_order() -> None:
    """Then the others by value; trials without a whole training are no candidates."""
    record = studies.mixed()
    numbers = [trial.number for trial in ranked(record)]
    values = [trial.values[0] for trial in ranked(record)]
    assert numbers[:2] == [finalist.number for finalist in record.finalists]
    assert values[2:] == sorted(values[2:], reverse=True)
    assert sorted(numbers) == list(range(12))
    turned = record.model_copy(update={"finalists": record.finalists[::-1]})
    assert [trial.number for trial in ranked(turned)][:2] == numbers[1::-1]


def test_nothing_is_loaded_from_elsewhere() -> None:
    """No address in an attribute, none in the style; and the browser is told to fetch nothing."""
    html = page("mixed")
    parsed = Parsed(html)
    for tag, attributes in parsed.elements:
        assert not {"src", "srcset", "action"} & set(attributes), tag
        assert attributes.get("href", "#").startswith(("#", "data:,"))
    assert "://" not in html
    assert "@import" not in html and "url(" not in html
    (policy,) = [meta["content"] for meta in parsed.all("meta") if "http-equiv" in meta]
    assert policy.startswith("default-src 'none';") and "connect-src" not in policy
    assert {"name": "viewport", "content": "width=device-width, initial-scale=1"} in parsed.all("meta")


def test_names_are_texts_and_never_elements() -> None:
    """Whatever a study, a choice or a reason is called; a chart's data can't end its script either."""
    evil = "</script><img src=x onerror=alert(1)>"
    record = studies.mixed()
    trials = [trial.model_copy(update={"reason": evil, "overrides": (evil,)}) for trial in record.trials]
    record = record.model_copy(
        update={"name": evil, "objective": (evil,), "trials": tuple(trials), "dimensions": {evil: evil}}
    )
    html = without_plotly(build(studies.study_of(record), record))
    assert Parsed(html).all("img") == []
    assert "<img" not in html
    assert html.count("<script") == html.count("</script>") == 2 + len(charts(html))
    title = charts(html)["slice-0"]["layout"]["yaxis"]["title"]["text"]
    assert title == evil.replace("<", "&lt;")  # plotly.js would take it for HTML of its own


def test_the_same_search_gives_the_same_bytes() -> None:
    """Twice here; and where parameters are equally important, no hash decides which comes first."""
    record = studies.mixed()
    assert without_plotly(build(studies.study_of(record), record)) == page("mixed")
    study = optuna.create_study(direction="maximize")
    names = ["one", "two", "three", "four", "five"]
    for value in range(6):
        params = dict.fromkeys(names, value)
        kinds: dict[str, BaseDistribution] = {name: IntDistribution(0, 9) for name in names}
        study.add_trial(optuna.trial.create_trial(params=params, distributions=kinds, value=value))
    assert list(importances(study)) == sorted(names)


def test_trials_that_are_alike_leave_nothing_to_compare() -> None:
    """The same parameters and values twice: sentences instead of importances, slices and contours."""
    record = studies.one()
    twin = record.trials[0].model_copy(update={"number": 1})
    record = record.model_copy(update={"trials": (*record.trials, twin)})
    html = without_plotly(build(studies.study_of(record), record))
    assert list(charts(html)) == ["plane-0", "history-0", "intermediate-0"]
    assert "so not drawn: experts.natural.optimizer.lr, " in html


def test_parameters_that_never_meet_have_no_contour() -> None:
    """Each trial has only one of two parameters."""
    record = studies.mixed()
    names = ("mixing.interval", "experts.natural.optimizer.lr")

    def alone(trial: TrialRecord) -> TrialRecord:
        name = names[trial.number % 2]
        return trial.model_copy(update={"params": {name: trial.params[name]}})

    record = record.model_copy(update={"trials": tuple(alone(trial) for trial in record.trials[:12])})
    html = without_plotly(build(studies.study_of(record), record))
    assert [name for name in charts(html) if name.startswith("contour")] == []
    assert sum(name.startswith("slice") for name in charts(html)) == 2
