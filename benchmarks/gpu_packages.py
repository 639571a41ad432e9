"""Say which packages training and attacks lack here, and which wheels to bring."""

import importlib
import importlib.util
import platform
import re
import sys
from collections.abc import Iterable
from pathlib import Path

PURE = {
    "pydantic": "pydantic",
    "annotated_types": "annotated_types",
    "typing_inspection": "typing_inspection",
    "typing_extensions": "typing_extensions",
    "jaxtyping": "jaxtyping",
    "wadler_lindig": "wadler_lindig",
    "fsspec": "fsspec",
}
"""Distributions of pure Python by the module that is imported; their wheels fit every Python 3."""

COMPILED = {
    "torch": "torch",
    "torchvision": "torchvision",
    "numpy": "numpy",
    "pydantic_core": "pydantic_core",
    "safetensors": "safetensors",
    "yaml": "pyyaml",
    "PIL": "pillow",
}
"""Those with compiled code, whose wheels are for one processor and mostly for one version of Python."""

FOR_DATA = {"sklearn": "scikit_learn", "scipy": "scipy", "joblib": "joblib", "threadpoolctl": "threadpoolctl"}
"""What splits data into training and validation; nothing but a training needs it."""

PYDANTIC = ["pydantic", "pydantic_core", "annotated_types", "typing_inspection", "typing_extensions"]
CONSTRAINTS = Path(__file__).parent.parent / "constraints.txt"
PLATFORMS = ("manylinux_2_28", "manylinux_2_27", "manylinux_2_17", "manylinux2014")


def missing(modules: Iterable[str] = (*COMPILED, *PURE)) -> list[str]:
    """Return the modules that can't be found."""
    return [name for name in modules if importlib.util.find_spec(name) is None]


def mismatch() -> str | None:
    """Return why pydantic can't be imported: it works with one version of its core, and a recent typing_extensions."""
    try:
        importlib.import_module("pydantic.main")
    except Exception as error:  # noqa: BLE001  it raises a SystemError where versions don't fit
        return f"{type(error).__name__}: {error}"
    return None


def wheels(modules: list[str]) -> str:
    """Say what to bring: a wheel for each of these modules, in the versions that are tested together, and how."""
    versions, lines, requirements = _versions(), [], []
    tag, processor = f"cp{sys.version_info.major}{sys.version_info.minor}", platform.machine()
    for module in modules:
        name = (COMPILED | PURE | FOR_DATA)[module]
        version = versions.get(name)
        pure = module in PURE or module in {"joblib", "threadpoolctl"}
        fits = "py3-none-any" if pure else f"{tag}-*-manylinux*_{processor}"
        lines.append(f"  {name}-{version or '*'}-{fits}.whl")
        requirements.append(f"{name}=={version}" if version else name)
    platforms = " ".join(f"--platform {own}_{processor}" for own in PLATFORMS)
    fetch = (
        f"pip download --no-deps --only-binary=:all: --implementation cp --python-version {platform.python_version()}"
        f" {platforms} --dest FOLDER {' '.join(requirements)}"
    )
    listed = "\n".join(lines)
    return (
        f"Bring these wheels in a folder, and name it by WHEELS=FOLDER:\n{listed}\n"
        f"On a machine with a network, this fetches them:\n  {fetch}"
    )


def _versions() -> dict[str, str]:
    """Return the tested versions by distribution; none where the list of them was not brought along."""
    if not CONSTRAINTS.is_file():
        return {}
    pins = re.findall(r"^([\w.-]+)==(\S+)", CONSTRAINTS.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {re.sub(r"[-.]", "_", name).lower(): version for name, version in pins}


def main() -> int:
    """Return 0 where everything is here, and 2 with a message where not; with `--data-later`, data may lack its own."""
    absent, later = missing(), missing(FOR_DATA)
    if later and "--data-later" not in sys.argv:
        absent += later
    if absent:
        print(f"{sys.executable} lacks {', '.join(absent)}. {wheels(absent)}", file=sys.stderr)
        return 2
    if later:
        print(
            f"{sys.executable} lacks {', '.join(later)}, without which `train` waits. {wheels(later)}", file=sys.stderr
        )
    if (reason := mismatch()) is not None:
        print(f"{sys.executable} can't import pydantic ({reason}). {wheels(PYDANTIC)}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
