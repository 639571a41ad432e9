"""Presets: configurations that come with the project, most of which state what differs from another one."""

from collections.abc import Mapping, MutableMapping
from pathlib import Path
from typing import Any

from generalist.config.plain_yaml import read_plain
from generalist.config.section import nearest
from generalist.errors import BadInput


def preset_names() -> list[str]:
    """Return the presets that come with the project."""
    return sorted(path.stem for path in _preset_folder().glob("*.yaml"))


def preset_path(name: str) -> Path:
    """Return the file of a preset, which may be one of the user's own, such as `tuning/digits/best.yaml`.

    Raises:
        BadInput: there is none of that name.
    """
    if name.endswith((".yaml", ".yml")):
        return Path(name)
    return _shipped(name, "there is no preset")


def read_preset(path: Path) -> Any:
    """Return a preset's plain values, with what it takes from its base.

    Raises:
        BadInput: the file can't be read, or its base is none.
    """
    preset = read_plain(path)
    base = base_of(preset, path.name)
    if base is None:
        return preset
    tree = read_plain(base)
    lay_over(tree, preset)
    return tree


def base_of(preset: Any, where: str) -> Path | None:
    """Return the file of the complete preset from which a preset says what differs, if it is not complete itself.

    Raises:
        BadInput: with a sentence that is opened by `where`: there is no such preset, or it has a base itself.
    """
    if not isinstance(preset, Mapping) or "base" not in preset:
        return None
    path = _shipped(preset["base"], f"{where}: base: there is no preset")
    further = read_plain(path).get("base")
    if further is not None:
        raise BadInput(
            f"{where}: base: '{preset['base']}' says itself what differs from '{further}': name that, and what differs"
        )
    return path


def lay_over(base: MutableMapping[Any, Any], preset: Mapping[Any, Any]) -> None:
    """Turn a base's values into a preset's: of a section, the keys that the preset states are replaced.

    It states as a whole its `experts`, and a section that has another `name` than the base's: what belongs to one
    expert, network or source of data is never taken for another one.
    """
    for key, value in preset.items():
        section = base.get(key)
        if takes_from(key, section, value):
            base[key].update(value)
        elif key != "base":
            base[key] = value


def takes_from(key: Any, section: Any, value: Any) -> bool:
    """Whether a preset's section takes what it does not state from its base's."""
    both = isinstance(section, Mapping) and isinstance(value, Mapping)
    return both and key != "experts" and value.get("name", section.get("name")) == section.get("name")


def _shipped(name: Any, missing: str) -> Path:
    names = preset_names()
    if name not in names:
        raise BadInput(f"{missing} '{name}'; {nearest(str(name), names)}")
    return _preset_folder() / f"{name}.yaml"


def _preset_folder() -> Path:
    """Return the folder beside the package in a checkout, or inside it when installed from a wheel."""
    package = Path(__file__).parent.parent
    checkout = package.parent / "presets"
    return checkout if checkout.is_dir() else package / "presets"
