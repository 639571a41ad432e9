"""The digest of the code that computes a result: found by following imports, so that no list has to be kept.

It takes the place of a version number that somebody would forget to raise. What computes is the core, reached from a
few roots, and the files of the plug-ins that this result uses; another file beside them changes nothing.
"""

import ast
import functools
import hashlib
import sys
import threading
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

from generalist.config import Plugin, Section, ThreatOptions

_ROOTS = {
    "training": ("generalist.training.trainer",),
    "evaluation": ("generalist.evaluation.shards", "generalist.attacks.attack_ensemble"),
}
_WITHOUT_EFFECT = (
    "generalist.config",  # its values are in keys, schedules step by step
    "generalist.records",  # what is told
    "generalist.errors",
    "generalist.masking",
    "generalist.store",  # bytes come back as they went, under a checksum
    "generalist.code_digest",
    "generalist.atomic_files",
    "generalist.platform_fingerprint",
    "generalist.training.keys",
    "generalist.training.forecast",
    "generalist.training.speeds",
    "generalist.training.validation",  # what is measured flows into no weights
    "generalist.training.gating",  # counts where an average has a gate
)


def training_code(plugins: Iterable[str] = ()) -> str:
    """Return the SHA-256 (hex) of the code that makes weights, with that of the plug-ins in these modules."""
    return _digest("training", tuple(sorted(set(plugins))))


def evaluation_code(plugins: Iterable[str] = ()) -> str:
    """Return the same for the code that makes verdicts."""
    return _digest("evaluation", tuple(sorted(set(plugins))))


def plugins_of(section: Section) -> set[str]:
    """Return the modules of all plug-ins in a section of the configuration, norms of threats among them."""
    modules = {type(section).__module__} if isinstance(section, Plugin) else set()
    if isinstance(section, ThreatOptions):
        modules |= {*section.modules}
    for name in type(section).model_fields:
        value = getattr(section, name)
        for part in value if isinstance(value, tuple) else (value,):
            if isinstance(part, Section):
                modules |= plugins_of(part)
    return modules


_ONE_AT_A_TIME = threading.Lock()  # Python 3.11 fails to make syntax trees in several threads at once, now and then


def _digest(what: str, plugins: tuple[str, ...]) -> str:
    with _ONE_AT_A_TIME:
        return _computed(what, plugins)


@functools.cache
def _computed(what: str, plugins: tuple[str, ...]) -> str:
    return Code(Path(__file__).parent).digest([*_ROOTS[what], *plugins])


class Code:
    """The modules of a package, known by their text alone: nothing is imported.

    Args:
        package: its folder; modules elsewhere, such as plug-ins of one's own, have no imports that are followed.
    """

    def __init__(self, package: Path) -> None:
        self._package, self._name = package, package.name

    def digest(self, roots: Collection[str]) -> str:
        """Return the SHA-256 (hex) of all that roots lead to; comments, docstrings and layout don't count."""
        total = hashlib.sha256()
        for module in sorted(self.reached(roots)):
            total.update(f"{module}\n{_bare(_read(self._path(module)))}\n".encode())
        return total.hexdigest()

    def reached(self, roots: Collection[str]) -> set[str]:
        """Return the roots and the modules that they import, directly or not; but for what has no effect on bits."""
        modules: set[str] = set()
        waiting = list(roots)
        while waiting:
            module = waiting.pop()
            if module not in modules:
                modules.add(module)
                waiting += [name for name in self._imports(module) if not _without_effect(name)]
        return modules

    def _imports(self, module: str) -> Iterator[str]:
        """Yield the modules of the package that one names; names that a package passes on lead to their origin."""
        if not self._inside(module):
            return
        for node in _import_lines(_read(self._path(module))):
            if isinstance(node, ast.ImportFrom) and node.module and self._inside(node.module):
                for name in node.names:
                    yield from self._named(node.module, name.name)
            elif isinstance(node, ast.Import):
                yield from (name.name for name in node.names if self._inside(name.name))

    def _named(self, module: str, name: str) -> Iterator[str]:
        """Yield where a name of a module comes from; a package taken as a whole leads to all that it passes on."""
        inner = self._folder(f"{module}.{name}")
        if inner.is_dir() or inner.with_suffix(".py").is_file():
            yield f"{module}.{name}"
            return
        # Also below a condition: some packages import what they pass on when it is asked for.
        for node in _import_lines(_read(self._path(module))) if self._folder(module).is_dir() else ():
            if isinstance(node, ast.ImportFrom) and node.module:
                origin = {alias.asname or alias.name: alias.name for alias in node.names}.get(name)
                if origin is not None:
                    yield from self._named(node.module, origin)
                    return
        yield module

    def _inside(self, module: str) -> bool:
        return module.partition(".")[0] == self._name

    def _folder(self, module: str) -> Path:
        return self._package.joinpath(*module.split(".")[1:])

    def _path(self, module: str) -> Path:
        """Return the file of a module.

        Raises:
            TypeError: there is none, as for classes that were typed in.
        """
        if self._inside(module):
            folder = self._folder(module)
            return folder / "__init__.py" if folder.is_dir() else folder.with_suffix(".py")
        file = getattr(sys.modules.get(module), "__file__", None)
        if file is None:
            raise TypeError(f"the plug-in of {module} has no file, so results can't be told from those of other code")
        return Path(file)


def _without_effect(module: str) -> bool:
    return any(module == name or module.startswith(f"{name}.") for name in _WITHOUT_EFFECT)


@functools.cache
def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8")


@functools.cache
def _import_lines(source: str) -> list[ast.Import | ast.ImportFrom]:
    """Return the statements that import something, wherever they stand."""
    return [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Import | ast.ImportFrom)]


@functools.cache
def _bare(source: str) -> str:
    """Return the code without docstrings, and without where it stands."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list):
            kept = [line for line in body if not (isinstance(line, ast.Expr) and isinstance(line.value, ast.Constant))]
            node.body = kept  # type: ignore[attr-defined]  # checked: it has one
    return ast.dump(tree)
