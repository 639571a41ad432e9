"""Names that people give, and that become names of folders, of MLflow's models and of Optuna's searches."""

import re

from generalist.errors import BadInput
from generalist.untrusted import printable

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,99}")
_FORM = "at most 100 letters, digits, '.', '_' and '-', and begins with none of '.' and '-'"


def wrong_name(name: str) -> str | None:
    """Return why a name can't be taken; None if it can."""
    return None if _NAME.fullmatch(name) else f"'{printable(name[:200])}' is no name: one has {_FORM}"


def check_name(name: str, of: str) -> str:
    """Check a name that is to become that of a folder, and return it.

    Raises:
        BadInput: it may not; `of` says whose name it is.
    """
    if wrong := wrong_name(name):
        raise BadInput(f"{of}: {wrong}")
    return name
