"""How annotations are checked while tests run: by beartype, shapes and dtypes by jaxtyping."""

from typing import Any

from beartype import beartype
from beartype.roar import BeartypeDecorHintPep673Exception, BeartypeDecorHintPep3119Exception


def checked(function: Any) -> Any:
    """Check the arguments and the result of a function at each call, where its annotations can be checked.

    beartype sees functions one by one, so `typing.Self` means nothing to it, and some of pydantic's
    annotations are protocols that don't exist at run time; functions with these stay as they are.
    """
    try:
        return beartype(function)
    except (BeartypeDecorHintPep673Exception, BeartypeDecorHintPep3119Exception):
        return function
