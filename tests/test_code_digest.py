"""The digest of the code that computes: all of it, and nothing beside it."""

import shutil
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

import generalist
from generalist.code_digest import (
    _ROOTS,
    Code,
    _bare,
    _read,
    _without_effect,
    evaluation_code,
    plugins_of,
    training_code,
)
from generalist.data import Dataset
from tests.training_factory import finish, small

PACKAGE = Path(generalist.__file__).parent
TRAINING, EVALUATION = _ROOTS["training"], _ROOTS["evaluation"]
TRADES = "generalist.objectives.trades"
CODE = '''
"""What it is."""
def f(x):
    """What it does."""
    return x + 1  # why
'''


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A copy of the library, to be changed."""
    return Path(shutil.copytree(PACKAGE, tmp_path / "generalist", ignore=shutil.ignore_patterns("__pycache__")))


def added(file: Path, text: str) -> Path:
    """Text at a file's end; read anew, as digests read a file once."""
    moved = file.with_name(f"_{file.name}")
    file.rename(moved)
    file.write_text(moved.read_text(encoding="utf-8") + text, encoding="utf-8")
    moved.unlink()
    _read.cache_clear()
    return file


def test_threads_that_ask_at_once_wait_for_one_answer() -> None:
    """Each file is parsed once: Python 3.11 can fail to make syntax trees in several threads at once."""
    module = sys.modules["generalist.code_digest"]
    for cached in ("_computed", "_read", "_import_lines", "_bare"):
        getattr(module, cached).cache_clear()
    together, switching = threading.Barrier(8), sys.getswitchinterval()

    def asked(number: int) -> str:
        together.wait()
        return training_code([TRADES]) if number % 2 else evaluation_code()

    sys.setswitchinterval(1e-5)
    try:
        with ThreadPoolExecutor(8) as threads:
            found = list(threads.map(asked, range(8)))
    finally:
        sys.setswitchinterval(switching)
    assert set(found) == {training_code([TRADES]), evaluation_code()}
    for cached in ("_computed", "_read", "_import_lines"):
        known = getattr(module, cached).cache_info()
        assert known.misses == known.currsize


def test_comments_docstrings_and_layout_do_not_count() -> None:
    """They change no bits."""
    assert _bare(CODE) == _bare("def f(x): return (x\n  + 1)")


@pytest.mark.parametrize("change", [("x + 1", "x + 2"), ("x + 1", "1 + x"), ("def f(x)", "def f(x, y=0)")])
def test_code_counts(change: tuple[str, str]) -> None:
    """Any other change may."""
    assert _bare(CODE) != _bare(CODE.replace(*change))


def test_code_that_makes_weights_counts(package: Path) -> None:
    """The mixture, the redistribution, going back after a NaN: wherever it stands."""
    digests = [Code(package).digest(TRAINING)]
    for module in (
        "training/segment",
        "training/checkpoints",
        "training/trainer",
        "expert_group",
        "experts",
        "mixing",
        "engine/arithmetic",
    ):
        added(package / f"{module}.py", "\nNEW = 1\n")
        digests.append(Code(package).digest(TRAINING))
        assert digests[-1] not in digests[:-1], module


def test_a_module_that_comes_to_what_computes_counts(package: Path) -> None:
    """Nobody has to enter it in a list: it is there because it is imported, also through a package and in a function."""
    before = Code(package).digest(TRAINING)
    (package / "data" / "extra.py").write_text("def more(x):\n    return x + 1\n", encoding="utf-8")
    assert Code(package).digest(TRAINING) == before
    added(package / "data" / "__init__.py", "\nfrom generalist.data.extra import more as extra\n")
    assert Code(package).digest(TRAINING) == before
    added(package / "expert_group.py", "\ndef _later():\n    from generalist.data import extra\n    return extra\n")
    imported = Code(package).digest(TRAINING)
    assert imported != before
    added(package / "data" / "extra.py", "NEW = 1\n")
    assert Code(package).digest(TRAINING) not in {before, imported}


def test_a_new_plug_in_changes_no_other_digest(package: Path) -> None:
    """A file beside the others is of no concern to a training, an evaluation or a protocol that doesn't use it."""
    before = [Code(package).digest(roots) for roots in (TRAINING, EVALUATION, [*TRAINING, TRADES])]
    for kind in ("objectives", "perturbations", "models", "threats", "data/sources", "attacks/members"):
        (package / kind / "brand_new.py").write_text("NEW = 1\n", encoding="utf-8")
    assert [Code(package).digest(roots) for roots in (TRAINING, EVALUATION, [*TRAINING, TRADES])] == before


def test_a_plug_in_counts_where_it_is_used(package: Path) -> None:
    """And what it stands on: attacks are the core of objectives that attack, and of no others."""
    natural = [*TRAINING, "generalist.objectives.natural"]
    before = [Code(package).digest(roots) for roots in (natural, [*TRAINING, TRADES])]
    added(package / "attacks" / "gradient.py", "\nNEW = 1\n")
    attacks = [Code(package).digest(roots) for roots in (natural, [*TRAINING, TRADES])]
    assert [one == other for one, other in zip(attacks, before, strict=True)] == [True, False]
    added(package / "objectives" / "trades.py", "\nNEW = 1\n")
    now = [Code(package).digest(roots) for roots in (natural, [*TRAINING, TRADES])]
    assert [one == other for one, other in zip(now, attacks, strict=True)] == [True, False]


def test_attacks_of_an_evaluation_are_not_those_of_a_training(package: Path) -> None:
    """A change to Square trains nothing anew, and concerns those evaluations alone that ask for it."""
    square = [*EVALUATION, "generalist.attacks.members.square"]
    before = [Code(package).digest(roots) for roots in (TRAINING, EVALUATION, square)]
    added(package / "attacks" / "square.py", "\nNEW = 1\n")
    now = [Code(package).digest(roots) for roots in (TRAINING, EVALUATION, square)]
    assert now[0] == before[0] and now[2] != before[2]


def test_the_plug_ins_of_a_configuration_are_found() -> None:
    """The objective, the network, the norm of the threat; not those of other experts."""
    config = small()
    assert plugins_of(config.experts["robust"]) == {"generalist.objectives.adversarial", "generalist.threats.linf"}
    assert plugins_of(config.experts["natural"]) == {"generalist.objectives.natural"}
    assert plugins_of(config.model) == {"generalist.models.small_cnn", "generalist.models.heads.plain"}
    assert training_code(plugins_of(config.model)) != training_code()
    assert training_code() != evaluation_code()


def test_a_plug_in_from_elsewhere_is_known_by_its_file() -> None:
    """As those of tests; one without a file, as typed at a prompt, can't have a key."""
    assert training_code([__name__]) != training_code()
    with pytest.raises(TypeError, match="the plug-in of typed_in has no file"):
        training_code(["typed_in"])


class Called:
    """The library's modules whose functions ran, but for those that ran for a measurement."""

    def __init__(self) -> None:
        self.modules: set[str] = set()
        self._aside = 0

    def __call__(self, frame: FrameType, event: str, _: Any) -> None:
        """Note a profiler's call."""
        if event not in {"call", "return"}:
            return
        module = str(frame.f_globals.get("__name__", ""))
        if module == "generalist.training.validation":
            self._aside += {"call": 1, "return": -1}.get(event, 0)
        if event == "call" and not self._aside and module.startswith("generalist."):
            self.modules.add(module)


@pytest.fixture
def called() -> Iterator[Called]:
    """What runs from here on."""
    import torch._dynamo  # noqa: F401  torch imports it with the first optimizer, which takes long when watched

    called, before = Called(), sys.getprofile()
    sys.setprofile(called)
    yield called
    sys.setprofile(before)


def test_what_runs_in_a_training_is_in_its_digest(dataset: Dataset, tmp_path: Path, called: Called) -> None:
    """Every module that a training was seen to enter is known to make weights, or known not to."""
    finish(
        small("training.epochs=2", "mixing.warm_up=1", "training.divergence={retries: 1}"), dataset, tmp_path / "store"
    )
    sys.setprofile(None)
    plugins = plugins_of(small().model) | {name for expert in small().experts.values() for name in plugins_of(expert)}
    reached = Code(PACKAGE).reached([*TRAINING, *plugins])
    drivers = {"generalist.training.run", "generalist.training.runners", "generalist.training.facts"}
    unknown = {name for name in called.modules - reached - drivers if not _without_effect(name)}
    assert {
        "generalist.expert_group",
        "generalist.training.segment",
        "generalist.training.checkpoints",
    } <= called.modules
    assert unknown == set()
