"""One self-contained HTML page from records: the same records give the same bytes."""

from collections.abc import Mapping
from dataclasses import replace

from generalist.config import Config, to_yaml
from generalist.records import Evaluation, History, Measured, base_name
from generalist.report.curves import by_expert, curves, legend, measured
from generalist.report.environment import environment
from generalist.report.gallery import Gallery, cards
from generalist.report.styles import attack_in_words, learner_styles, threats_in_words
from generalist.report.tradeoff_plane import on_test, on_validation

FOLDED = 20
"""Classes above which the table of classes is folded."""

LONG = 12
"""Letters of a class name above which the gallery gives names more room."""


def build(
    history: History,
    evaluation: Evaluation,
    gallery: Gallery,
    *,
    config: Config,
    commands: Mapping[str, str],
    lineage: Mapping[str, str],
) -> str:
    """Return the report as HTML without scripts and without a reference to anything outside itself.

    Wall-clock times in the records are not shown, so that identical trainings give identical bytes.

    Args:
        history: the history of the training; its rounds are not empty.
        evaluation: what was measured on the test split.
        gallery: test images to show; none is fine.
        config: the resolved configuration.
        commands: command lines by what they do, for readers who want to reproduce this.
        lineage: digests, versions and commit by name, to trace what this came from.
    """
    look = learner_styles([*config.experts, *map(base_name, evaluation.learners)])
    for name, learner in evaluation.learners.items():  # at several conditions it looks the same
        look[name] = replace(look[base_name(name)], label=learner.title)
    attack = attack_in_words(config.evaluation.selection_attack, config.evaluation.headline_threats)
    threats: list[int | None] = [*range(len(evaluation.protocol.threats))]
    if evaluation.headline.union is not None:
        threats.append(None)
    classes = {name: None for learner in evaluation.learners.values() for name in learner.per_class}
    return (
        environment()
        .get_template("page.html.j2")
        .render(
            eps=config.evaluation.threats[0].eps,
            config=config,
            yaml=to_yaml(config),
            commands=commands,
            lineage={**lineage, **{f"numerics: {name}": str(value) for name, value in evaluation.numerics.items()}},
            history=history,
            evaluation=evaluation,
            headline=threats_in_words(evaluation.protocol.headline_threats),
            looks=look,
            drawn={name: look[name] for name in measured(history)},
            legend=legend(history, look),
            attack=attack,
            curves=curves(history, evaluation.chosen, look, attack=attack, last=config.training.epochs),
            planes=[
                *(on_test(evaluation, index, look) for index in threats),
                *on_validation(history, evaluation.chosen, look, deployed=evaluation.deployed, attack=attack),
            ],
            numbers=_numbers(history),
            classes=list(classes),
            folded=len(classes) > FOLDED,
            cards=cards(gallery),
            long=max(map(len, gallery.class_names), default=0) > LONG,
        )
    )


def _numbers(history: History) -> dict[int, dict[str, tuple[float | None, Measured | None]]]:
    """Return training loss and validation accuracies by epoch and learner, where there are any."""
    numbers: dict[int, dict[str, tuple[float | None, Measured | None]]] = {}
    for name, records in by_expert(history).items():
        for record in records:
            numbers.setdefault(record.epoch, {})[name] = (record.loss, record.validation)
    for learner in history.course:
        numbers.setdefault(learner.epoch, {})["global"] = (None, learner.validation)
    return dict(sorted(numbers.items()))
