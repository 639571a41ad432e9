"""Every preset is valid, says in its header what it costs and what to expect, and the quick ones are quick."""

import math
import re
import shlex
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from generalist.config import Config, ExpertOptions, ModelOptions, check, load, preset_names, preset_path
from generalist.config.plain_yaml import parse_plain, read_plain
from generalist.config.presets import takes_from
from generalist.data import steps_per_epoch
from generalist.errors import BadInput
from generalist.models import build
from generalist.tensors import ImageShape
from pipelines.whole_preset import whole_preset
from tests.test_docs import COMMANDS, named

NAMES = preset_names()
CIFAR10 = [name for name in NAMES if name.startswith("cifar10-")]
QUICK = [name for name in NAMES if name.endswith("-quick")]
FIELDS = ("command", "hardware", "time", "expected", "source")
IMAGES = 50_000

every_preset = pytest.mark.parametrize("name", NAMES)


def header(name: str) -> dict[str, str]:
    """Return the fields of a preset's header, such as `# time:     a minute`, continued by indented lines."""
    fields: dict[str, str] = {}
    key = ""
    for line in preset_path(name).read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            break
        if field := re.match(r"# (\w+): +(\S.*)", line):
            key = field[1]
            fields[key] = field[2]
        elif key and re.match(r"# {11}\S", line):
            fields[key] += " " + line.removeprefix("#").strip()
        else:
            key = ""
    return fields


def keys(tree: Any, prefix: str = "") -> set[str]:
    """Return the dotted paths of all leaves of a tree."""
    if not isinstance(tree, dict):
        return {prefix}
    return set().union(*(keys(value, f"{prefix}.{key}") for key, value in tree.items()), {prefix})


def written(name: str) -> Any:
    """Return what a preset's file states."""
    return read_plain(preset_path(name))


@pytest.mark.parametrize("name", [name for name in NAMES if "base" not in written(name)])
def test_a_complete_preset_states_every_option(name: str) -> None:
    """A new option is given its line and its comment there."""
    assert keys(load(preset=name).model_dump(mode="json")) - keys(written(name)) == set()


@every_preset
def test_a_preset_with_a_base_states_only_what_differs(name: str) -> None:
    """No key of a section as the base has it, and no option of an expert that has its default."""
    preset = written(name)
    base = written(preset["base"]) if "base" in preset else {}
    for section, value in preset.items():
        assert section not in base or value != base[section]
        if takes_from(section, base.get(section), value):
            assert [key for key in value if base[section].get(key, ...) == value[key]] == []
    defaults = {key: field.default for key, field in ExpertOptions.model_fields.items()}
    for expert, config in load(preset=name).experts.items() if base else ():
        assert [key for key in preset.get("experts", {}).get(expert, ()) if getattr(config, key) == defaults[key]] == []


SHAPES = {frozenset(written(name)): name for name in NAMES}
"""A preset for each choice of sections."""


@pytest.mark.parametrize("name", SHAPES.values())
def test_a_preset_is_written_out_whole(name: str) -> None:
    """`dvc exp run -S key=value` finds each key only if it is there; and what is written is what was meant."""
    text, config = whole_preset(name), load(preset=name)
    tree = parse_plain(text)
    assert keys(config.model_dump(mode="json")) - keys(tree) == set()
    assert check(tree) == config
    assert text.startswith(preset_path(name).read_text(encoding="utf-8").partition("\n\n")[0] + "\n\nseed: 0")


def test_only_what_is_stated_differs_from_the_base(tmp_path: Path) -> None:
    """Of a section key by key; experts, and a network of another name, have nothing of the base's."""
    (tmp_path / "own.yaml").write_text(
        "base: digits\n# a comment\ntraining: {epochs: 3}  # few\nmodel: {name: wide_resnet}\nmixing: null\ndeploy: expert:robust\n"
        "experts:\n  robust:\n    objective: {name: natural}\n    optimizer: {name: sgd, lr: 1}\n",
        encoding="utf-8",
    )
    for config in (
        load(preset=str(tmp_path / "own.yaml")),
        check(parse_plain(whole_preset(str(tmp_path / "own.yaml")))),
    ):
        digits = load(preset="digits")
        assert config.training == digits.training.model_copy(update={"epochs": 3})
        assert config.model == load(preset="digits", overrides=["model={name: wide_resnet}"]).model
        assert list(config.experts) == ["robust"] and config.experts["robust"].optimizer.weight_decay == 0
        assert (config.mixing, config.evaluation, config.tuning) == (None, digits.evaluation, digits.tuning)


@pytest.mark.parametrize(
    ("base", "sentence"),
    [
        ("digit", "base: there is no preset 'digit'; did you mean 'digits'?"),
        ("[digits]", r"base: there is no preset '\['digits'\]'"),
        ("null", "base: there is no preset 'None'"),
        ("own.yaml", "base: there is no preset 'own.yaml'"),
        ("digits-mat", "base: 'digits-mat' says itself what differs from 'digits': name that, and what differs"),
    ],
)
def test_a_base_is_a_complete_preset(tmp_path: Path, base: str, sentence: str) -> None:
    """So there is no circle, and no file outside of the project; and a params.yaml, which DVC reads, has none."""
    path = tmp_path / "own.yaml"
    path.write_text(f"base: {base}\n", encoding="utf-8")
    with pytest.raises(BadInput, match=f"^own.yaml: {sentence}"):
        load(preset=str(path))
    with pytest.raises(BadInput, match=r"own\.yaml: only a preset has a base"):
        load(path)


@every_preset
def test_the_header_tells_command_hardware_time_and_figures_with_their_source(name: str) -> None:
    """In this order, none of them empty; figures are measured here or said not to be."""
    told = header(name)
    assert tuple(told) == FIELDS
    assert re.search(r"\d", told["expected"])
    published = "not measured here" in told["source"]
    assert published or re.search(r"20\d\d-\d\d-\d\d", told["source"])


@every_preset
def test_the_header_s_command_exists_and_names_the_preset(name: str) -> None:
    """What a reader copies is understood by the program."""
    first, _, second = header(name)["command"].partition(" && ")
    words = shlex.split(first)
    assert words[0] == "generalist" and words[-1] == name
    assert [path for path in named(words[1:]) if path not in COMMANDS] == []
    assert second == "dvc repro"


@every_preset
def test_the_first_line_says_what_it_is(name: str) -> None:
    """In a sentence that `generalist config presets` shows, no two alike."""
    firsts = [preset_path(other).read_text(encoding="utf-8").partition("\n")[0] for other in NAMES]
    own = preset_path(name).read_text(encoding="utf-8").partition("\n")[0]
    assert re.fullmatch(r"# [A-Z].*\.", own) and firsts.count(own) == 1


def test_every_preset_is_in_the_table_of_the_docs(root: Path) -> None:
    """With what it trains, and where."""
    table = (root / "docs" / "operations.md").read_text(encoding="utf-8")
    assert [name for name in NAMES if f"`{name}`" not in table] == []


def test_the_presets_that_the_docs_promise_are_there() -> None:
    """The paper's recipe, that of its code, the wide network, the baselines; quick ones beside."""
    recipes = {"cifar10-resnet18", "cifar10-wrn32-10", "cifar10-trades", "cifar10-pgd-at"}
    others = {
        "cifar10-resnet18-official",
        "cifar10-generalist-linf-l2",
        "cifar10-generalist-natural-linf-l2",
        "cifar10-mat",
        "cifar10-ducat",
        "cifar10-oat",
        "cifar10-oats",
    }
    assert recipes | others | {f"{name}-quick" for name in recipes} <= set(CIFAR10)


@pytest.mark.parametrize("name", [name for name in CIFAR10 if name not in (*QUICK, "cifar10-oat", "cifar10-oats")])
def test_recipes_train_and_evaluate_as_papers_do(name: str) -> None:
    """On all images but 1,000, by PGD-10, and against the whole of AutoAttack on 1,000 test images, as the header says."""
    config = load(preset=name)
    assert (config.data.images, config.data.validation) == ("all", 0.02)
    assert (config.training.batch_size, config.evaluation.attack, config.evaluation.images) == (128, "standard", 1000)
    assert "evaluation.images=all" in preset_path(name).read_text(encoding="utf-8").partition("\nbase:")[0]
    radii = {"linf": 0.031 if name.endswith("official") else 8 / 255, "l2": 0.5}
    for expert in config.experts.values():
        objective: Any = getattr(expert.objective, "base", expert.objective)
        assert expert.augment == ("crop", "flip")
        if objective.name != "natural":
            assert objective.attack.steps == 10
            assert objective.threat.eps == radii[objective.threat.norm]
    assert all(threat.eps == radii[threat.norm] for threat in config.evaluation.threats)


def test_the_schedules_are_those_of_the_sources() -> None:
    """Learning rates at the nodes of the published code, and drops where the baselines' paper has them."""
    paper, wide = load(preset="cifar10-resnet18"), load(preset="cifar10-wrn32-10")
    for config, end in ((paper, 0.01), (wide, 0.05)):
        for expert in config.experts.values():
            at = [expert.schedule.at(epoch / 120) for epoch in (0, 20, 40, 80, 120)]
            assert at == pytest.approx([1, 1, 1, 0.1, end])
        weight = config.mixing_weights()["robust"]
        assert [weight.at(epoch / 120) for epoch in (0, 75, 80, 100, 120)] == pytest.approx([1, 1, 1, 0.7, 0.4])
        assert config.mixing is not None and (config.mixing.warm_up, config.mixing.interval) == (75, 5)
    for name in ("cifar10-pgd-at", "cifar10-trades"):
        (expert,) = load(preset=name).experts.values()
        rates = [expert.schedule.at((epoch - 0.5) / 110) for epoch in (1, 100, 101, 105, 106, 110)]
        assert rates == pytest.approx([1, 1, 0.1, 0.1, 0.01, 0.01])


def test_oat_is_trained_by_the_published_code_s_recipe() -> None:
    """PGD-7 with its step, 5,000 images held back, a cosine from 0.1, six choices."""
    config = load(preset="cifar10-oat")
    expert: Any = config.experts["oat"]
    assert config.model.condition is not None
    assert [float(choice) for choice in config.model.condition.choices] == [0, 0.1, 0.2, 0.3, 0.4, 1]
    assert (config.data.validation, config.training.epochs, config.training.batch_size) == (0.1, 200, 128)
    assert expert.objective.attack.steps == 7
    eps = 8 / 255
    assert expert.objective.attack.step_size == pytest.approx(min(1.25 * eps, eps + 4 / 255) / 7)
    for progress in (0.0, 0.25, 0.5, 0.9, 1.0):
        assert expert.schedule.at(progress) == pytest.approx((1 + math.cos(math.pi * progress)) / 2, abs=0.01)
    assert config.evaluation.conditions[0] == 1 and {0.05, 0.15, 0.6} <= set(config.evaluation.conditions)


CIFAR = ImageShape(3, 32, 32, 10, (0.5,) * 3, (0.25,) * 3)


@cache
def flops(model: ModelOptions) -> int:
    """Return the operations of a forward pass of one image."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        build(model, CIFAR).eval()(torch.zeros(1, 3, 32, 32))
    return counter.get_total_flops()


def test_wrn_32_10_has_five_blocks_a_stage() -> None:
    """46.2 million parameters, as the network has that robust training calls so."""
    model = build(load(preset="cifar10-wrn32-10").model, CIFAR)
    assert sum(parameter.numel() for parameter in model.parameters()) == 46_160_474


def passes(config: Config) -> int:
    """Forward passes that a training image costs per epoch: a backward pass is one for images, two for weights too."""
    total = 0
    for expert in config.experts.values():
        objective: Any = expert.objective
        attack = 0 if objective.name == "natural" else 2 * objective.attack.steps
        total += attack + (7 if objective.name == "trades" else 3)
    return total


@pytest.mark.parametrize("name", QUICK)
def test_quick_presets_are_quick_by_counting(name: str) -> None:
    """A few million million multiplications, validation and test included: minutes on two cores."""
    config = load(preset=name)
    held = round(float(config.data.validation) * int(config.data.images))
    trained = int(config.data.images) - held
    learners = len(config.experts) + (config.mixing is not None)
    measured = steps_per_epoch(config.training.epochs, config.training.checkpoint_epochs) + config.training.epochs
    work = trained * config.training.epochs * passes(config)
    work += held * learners * measured * (2 * config.evaluation.selection_attack.steps + 1)
    assert config.evaluation.attack == "quick" and config.evaluation.images != "all"
    assert work < 700_000
    assert work * flops(config.model) / 2 < 6e12
