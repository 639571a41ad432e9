"""Evaluation: accuracies and the verdicts behind them."""

from dataclasses import replace
from itertools import groupby
from typing import Any

import numpy as np
import pytest
import torch

from generalist import engine
from generalist.attacks import AttackProgress, AutoAttackResult
from generalist.config import ThreatOptions
from generalist.data import Dataset, Split
from generalist.evaluation import Verdicts, attack_shard, evaluate, judging, measure, protocol, shard_ranges
from generalist.evaluation.accuracy import TILE
from generalist.evaluation.shards import concatenate
from generalist.models import Classifier
from generalist.training import Outcome
from tests.training_factory import first, small

pytestmark = pytest.mark.usefixtures("short_gradients")


@pytest.fixture(scope="module")
def model(dataset: Dataset, outcome: Outcome) -> Classifier:
    """A classifier that is right on most images."""
    weights = outcome.learners["natural"]
    return engine.model_with(small().model, dataset.shape, weights, on=torch.device("cpu"))


def evaluated(model: Classifier, split: Split, dataset: Dataset, *overrides: str) -> Verdicts:
    """Return the evaluation of the small configuration."""
    options = small(*overrides).evaluation
    return evaluate(model, split, options=options, class_names=dataset.class_names, name="it", epoch=5, digest="d")


def test_accuracies_are_the_means_of_the_verdicts(model: Classifier, dataset: Dataset) -> None:
    """And a robust image is classified correctly, by the cascade at most as often as clean."""
    split = first(dataset.test, 60)
    verdicts = evaluated(model, split, dataset)
    arrays, result = verdicts.arrays, verdicts.evaluation
    natural = arrays["it/prediction"] == arrays["label"]
    assert result.natural.correct == natural.sum()
    assert result.natural.n == 60
    threat = result.threats[0]
    held = {name: arrays[f"it/{threat.threat}/{name}"] for name in threat.columns}
    assert list(held) == ["pgd", "cascade"]
    assert all(threat.columns[name].correct == own.sum() for name, own in held.items())
    assert threat.worst.correct == (held["pgd"] & held["cascade"]).sum()
    assert not (arrays[f"it/{threat.threat}/cascade"] & ~natural).any()
    assert ((arrays[f"it/{threat.threat}/fooled_by"] == "") == arrays[f"it/{threat.threat}/cascade"]).all()
    assert sum(own.natural.n for own in result.per_class.values()) == 60
    assert sum(own.robust.correct for own in result.per_class.values()) == threat.worst.correct


def test_a_mistake_is_not_robust_whatever_the_cascade_says(
    model: Classifier, dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In batches of another size the last bit of a logit may decide differently which image is right."""
    original = judging.autoattack

    def lenient(*given: Any, **named: Any) -> AutoAttackResult:
        found = original(*given, **named)
        return replace(found, robust=torch.ones_like(found.robust), fooled_by=[None] * len(found.fooled_by))

    monkeypatch.setattr(judging, "autoattack", lenient)
    split = Split(dataset.test.images[:40], (dataset.test.labels[:40] + (np.arange(40) < 5)) % 10)
    verdicts = evaluated(model, split, dataset)
    natural = verdicts.arrays["it/prediction"] == verdicts.arrays["label"]
    key = f"it/{verdicts.evaluation.threats[0].threat}"
    assert natural.sum() < 40
    assert (verdicts.arrays[f"{key}/cascade"] == natural).all()
    assert (verdicts.arrays[f"{key}/fooled_by"] == np.where(natural, "", "clean")).all()


def test_attacked_images_are_in_the_ball_and_fool_where_the_verdict_says_so(
    model: Classifier, dataset: Dataset
) -> None:
    """What the parity check and the gallery use is what was found."""
    split = first(dataset.test, 60)
    verdicts = evaluated(model, split, dataset)
    clean = np.asarray(split.images, dtype=np.float32) / 255
    assert np.abs(verdicts.adversarial - clean).max() <= 0.15 * (1 + 1e-6)
    assert verdicts.adversarial.min() >= 0
    assert verdicts.adversarial.max() <= 1
    fooled = ~verdicts.arrays["it/linf:0.15/cascade"]
    predictions = model(torch.from_numpy(verdicts.adversarial)).argmax(1).numpy()
    assert (predictions[fooled] != np.asarray(split.labels)[fooled]).all()


def test_verdicts_do_not_depend_on_the_batch_size_or_on_later_images(model: Classifier, dataset: Dataset) -> None:
    """`evaluation.batch_size` caps memory; an image's verdict by the cascade is its own."""
    key = "it/linf:0.15/fooled_by"
    whole = evaluated(model, first(dataset.test, 60), dataset).arrays[key]
    small_batches = evaluated(model, first(dataset.test, 60), dataset, "evaluation.batch_size=7").arrays[key]
    fewer = evaluated(model, first(dataset.test, 23), dataset).arrays[key]
    assert (whole == small_batches).all()
    assert (whole[:23] == fewer).all()


def test_nothing_to_measure_is_no_mistake(model: Classifier, dataset: Dataset) -> None:
    """n = 0 gives 0 of 0."""
    empty = Split(dataset.test.images[:0], dataset.test.labels[:0])
    config = small()
    found = measure(model, empty, threats=config.evaluation.threats, attack=config.evaluation.selection_attack)
    assert (found.natural.n, found.robust.n) == (0, 0)
    assert found.natural.interval == (0.0, 1.0)


def test_a_larger_ball_is_never_easier(model: Classifier, dataset: Dataset) -> None:
    """Robust accuracy falls with eps, and ends near zero."""
    config = small("evaluation.selection_attack.steps=10")
    robust = [
        measure(
            model,
            dataset.validation,
            threats=[ThreatOptions.model_validate({"norm": "linf", "eps": eps})],
            attack=config.evaluation.selection_attack,
        ).robust.correct
        for eps in (0.001, 0.1, 0.5)
    ]
    assert robust[0] > robust[1] > robust[2]
    assert robust[2] <= 0.05 * len(dataset.validation)


@pytest.mark.parametrize(
    "override",
    [
        "evaluation.threats.0.eps=0.1",
        "evaluation.pgd.steps=3",
        "evaluation.attack=standard",
        "evaluation.images=41",
        "evaluation.seed=1",
        "evaluation.selection_attack.steps=3",
    ],
)
def test_another_way_to_measure_is_another_protocol(dataset: Dataset, override: str) -> None:
    """Two evaluations compare only if all of this agrees; the training's seed is no part of it."""
    assert protocol(small(override), dataset).digest() != protocol(small(), dataset).digest()
    assert protocol(small("seed=5"), dataset) == protocol(small(), dataset)


def test_two_threats_are_both_measured_and_the_first_is_the_headline(model: Classifier, dataset: Dataset) -> None:
    """In the order of the configuration."""
    both = "evaluation.threats=[{norm: l2, eps: 0.5}, {norm: linf, eps: 8/255}]"
    verdicts = evaluated(model, first(dataset.test, 20), dataset, both)
    assert [threat.threat for threat in verdicts.evaluation.threats] == ["l2:0.5", "linf:8/255"]
    clean = np.asarray(dataset.test.images[:20], dtype=np.float32) / 255
    distances = np.sqrt(((verdicts.adversarial - clean) ** 2).sum(axis=(1, 2, 3)))
    assert distances.max() <= 0.5 * (1 + 1e-6)


def test_shards_are_the_whole(model: Classifier, dataset: Dataset) -> None:
    """Cut at whole tiles, each on its own, and put together again: every array bit for bit."""
    split, options = first(dataset.test, TILE + 30), small("evaluation.attack=quick").evaluation
    rows = shard_ranges(TILE + 30, 3)
    assert [len(row) for row in rows] == [TILE, 30]
    whole = attack_shard(model, split, range(TILE + 30), options=options)
    parts = concatenate([attack_shard(model, split, own, options=options) for own in rows])
    assert set(parts.arrays) == set(whole.arrays)
    assert all((parts.arrays[name] == whole.arrays[name]).all() for name in whole.arrays)
    assert (parts.adversarial == whole.adversarial).all()
    assert parts.flag_counts == whole.flag_counts


@pytest.mark.parametrize(
    ("images", "shards"), [(0, 1), (1, 5), (TILE, 2), (TILE + 1, 2), (3 * TILE - 1, 4), (10_000, 7)]
)
def test_cuts_cover_every_image_once(images: int, shards: int) -> None:
    """In order, beginning at whole tiles, and never more than asked."""
    ranges = shard_ranges(images, shards)
    assert [row for rows in ranges for row in rows] == list(range(images))
    assert len(ranges) <= shards
    assert all(rows.start % TILE == 0 for rows in ranges)
    assert all(len(rows) for rows in ranges) or images == 0


def test_a_stronger_attack_has_a_column_of_its_own(model: Classifier, dataset: Dataset) -> None:
    """It attacks what the cascade left, and changes nothing else."""
    split = first(dataset.test, 60)
    plain, more = (evaluated(model, split, dataset, *own) for own in ((), ("evaluation.extra_attack=true",)))
    threat, own = plain.evaluation.threats[0], more.evaluation.threats[0]
    assert own.columns.keys() - threat.columns.keys() == {"strongest"}
    assert own.columns["strongest"].correct <= own.columns["cascade"].correct == threat.columns["cascade"].correct


def test_every_attack_is_told_from_its_beginning_to_its_verdicts(model: Classifier, dataset: Dataset) -> None:
    """Each begins without images, only goes forward, never gains an image back, and ends where its verdicts are."""
    split, options = first(dataset.test, TILE + 30), small("evaluation.attack=quick").evaluation
    told: list[tuple[str, AttackProgress]] = []
    shard = attack_shard(
        model, split, range(TILE + 30), options=options, watch=lambda threat, own: told.append((threat, own))
    )
    assert {threat for threat, _ in told} == {"linf:0.15"}
    assert list(dict.fromkeys(own.attack for _, own in told))[:2] == ["pgd", "apgd-ce"]
    for attack, group in groupby((own for _, own in told), key=lambda own: own.attack):
        begun, *more = standings = list(group)
        assert (begun.images, begun.done) == (0, 0.0) and all(own.images for own in more)
        assert [standing.done for standing in standings] == sorted(own.done for own in standings)
        assert [own.robust for own in standings] == sorted((own.robust for own in standings), reverse=True)
        assert standings[-1].done == 1.0 or standings[-1].robust == 0
        if attack == "pgd":
            assert standings[-1].robust == shard.arrays["linf:0.15/pgd"].sum()
    assert told[-1][1].robust == shard.arrays["linf:0.15/cascade"].sum()
