"""The documentation is true: its tree, its commands, its keys and its links."""

import re
import shlex
from collections.abc import Iterator
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import typer.main

from generalist.config import load, preset_names
from pipelines.cli import app
from tests.pages import Page, annotated_tree

ROOT = Path(__file__).parent.parent
PAGES = [Page(path) for path in (*sorted(ROOT.glob("*.md")), *sorted(ROOT.glob("docs/**/*.md")))]
README = Page(ROOT / "README.md")
FILES = re.compile(r"\.(py|json|onnx|html|npz|ya?ml|csv|md|db|safetensors|txt|toml|lock|pkl|png|svg)$")

every_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.path.name)


def programs(page: Page, name: str) -> Iterator[list[str]]:
    """Yield the words of each command line of a page that starts this program, without pipes and what follows."""
    for line in page.commands():
        if re.match(rf"(time )?({name}) ", line + " "):
            words = shlex.split(re.split(r"\s(?:\||&&|>|;)\s|;\s", line.removeprefix("time "))[0].rstrip("…. "))
            yield words[1:]


def leaves(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """All commands below a command, by their words."""
    if hasattr(command, "commands"):
        for name, inner in command.commands.items():
            yield from leaves(inner, (*path, name))
    else:
        yield path, command


COMMANDS = dict(leaves(typer.main.get_command(app)))


def named(words: list[str]) -> list[tuple[str, ...]]:
    """Return the commands that the first words mean; `config show|check` means two."""
    meant: list[tuple[str, ...]] = [()]
    for word in words:
        if any(path in COMMANDS for path in meant) or word.startswith("-"):
            break
        meant = [(*path, part) for path in meant for part in word.split("|")]
    return meant


def targets() -> set[str]:
    """Return the targets of the Makefile."""
    return set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))


def keys_of(tree: Any, prefix: str = "") -> set[str]:
    """Return the dotted paths of all keys of a tree."""
    if not isinstance(tree, dict):
        return set()
    paths = {f"{prefix}{key}": inner for key, inner in tree.items()}
    return set(paths) | {path for key, inner in paths.items() for path in keys_of(inner, f"{key}.")}


@cache
def known_keys() -> set[str]:
    """Return the dotted paths that exist in params.yaml or a preset."""
    configs = [load(ROOT / "params.yaml"), *(load(preset=name) for name in preset_names())]
    return {path for config in configs for path in keys_of(config.model_dump(mode="json"))}


def test_every_path_of_the_readme_tree_exists() -> None:
    """The annotated tree names nothing that isn't there, and says of each entry what it is."""
    tree = annotated_tree(README)
    assert [path for path in tree if not (ROOT / path).exists()] == []
    assert [path for path, phrase in tree.items() if not phrase] == []


def test_the_readme_tree_is_complete() -> None:
    """It tells every module and package at the top of both packages, and what the product is made of."""
    modules = {
        f"{package}/{path.name}{'/' if path.is_dir() else ''}"
        for package in ("generalist", "pipelines")
        for path in (ROOT / package).iterdir()
        if path.name != "__init__.py" and (path.suffix == ".py" or (path / "__init__.py").exists())
    }
    top = {"params.yaml", "dvc.yaml", "presets/", "Dockerfile", "Makefile", "pyproject.toml", "constraints.txt"}
    assert (modules | top | {"docs/", "tests/", "benchmarks/"}) - set(annotated_tree(README)) == set()


def test_the_architecture_names_every_file() -> None:
    """Its tree has every module and package of both packages with a phrase, and none that isn't there."""
    tree = annotated_tree(Page(ROOT / "docs" / "architecture.md"))
    files = {
        f"{path.relative_to(ROOT)}{'/' if path.is_dir() else ''}"
        for package in ("generalist", "pipelines")
        for path in (ROOT / package).rglob("*")
        if (path.suffix == ".py" and path.name != "__init__.py") or (path / "__init__.py").exists()
    }
    assert set(tree) - {"generalist/", "pipelines/"} == files
    assert [path for path, phrase in tree.items() if not phrase] == []


@every_page
def test_every_command_of_the_docs_exists_with_its_options(page: Page) -> None:
    """What a reader copies is understood by the program."""
    for words in programs(page, "generalist"):
        for path in named(words):
            known = [leaf for leaf in COMMANDS if leaf[: len(path)] == path]
            assert known, f"{page.path.name}: generalist {' '.join(words)}"
            options = {word.split("=")[0] for word in words if re.match(r"--?[A-Za-z]", word)}
            taken = {option for leaf in known for option in _options(COMMANDS[leaf])} | {"--help"}
            assert options <= taken, f"{page.path.name}: generalist {' '.join(words)}"


def test_every_command_has_help_and_is_in_the_docs() -> None:
    """No command is a secret."""
    assert [" ".join(path) for path, command in COMMANDS.items() if not command.help] == []
    told = {path for page in PAGES for words in programs(page, "generalist") for path in named(words)}
    assert [" ".join(path) for path, command in COMMANDS.items() if not command.hidden and path not in told] == []


@every_page
def test_every_make_target_of_the_docs_exists(page: Page) -> None:
    """`make` knows each target that the documentation names."""
    asked = {word for words in programs(page, "make") for word in words if re.fullmatch(r"[a-z]+", word)}
    assert asked <= targets()


def test_every_make_target_is_listed() -> None:
    """`make` alone lists every target with what it does."""
    listed = re.findall(r"^([a-z]+):.*## \S", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    assert set(listed) == targets()


@every_page
def test_every_key_of_the_docs_exists(page: Page) -> None:
    """A dotted key such as `mixing.interval` is one that params.yaml or a preset has."""
    known = known_keys()
    sections = {key for key in known if "." not in key}
    dotted = re.compile(r"[a-z_]+(\.[a-z_0-9]+)+")
    asked = {span for span in page.spans() if dotted.fullmatch(span) and span.split(".")[0] in sections}
    assert {key for key in asked if not FILES.search(key)} <= known


@every_page
def test_the_overrides_of_the_docs_are_accepted(page: Page) -> None:
    """Each command line's overrides, on the preset that it names or on params.yaml, give a valid configuration."""
    for words in (*programs(page, "generalist"), *programs(page, "dvc exp run")):
        overrides = [word for word in words if re.match(r"[a-z_]+(\.[a-z_0-9]+)*=", word)]
        presets = [b for a, b in pairwise(words) if a == "--preset" and b.islower()]
        source = {"preset": presets[0]} if presets else {"path": ROOT / "params.yaml"}
        load(**source, overrides=overrides)


@every_page
def test_every_relative_link_leads_somewhere(page: Page) -> None:
    """Files exist, and so do the headings that links point to."""
    for link in page.links():
        if re.match(r"[a-z]+:", link):
            continue
        file, _, anchor = link.partition("#")
        target = page.path.parent / file if file else page.path
        assert target.exists(), f"{page.path.name}: {link}"
        if anchor and target.suffix == ".md":
            assert anchor in Page(target).anchors(), f"{page.path.name}: {link}"


def _options(command: Any) -> set[str]:
    return {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
