"""Addresses without their secrets, for whatever is printed, logged or kept.

What stands before an @ goes as a whole, since a token may stand in the user's place; of a query, values whose names
sound like secrets.
"""

import re
from collections.abc import Iterator
from urllib.parse import unquote, unquote_plus

MASK = "…"
_SECRET = re.compile(r"pass|pwd|token|secret|key|sig|cred|auth", re.IGNORECASE)
_LOGIN = re.compile(r"//\S*@")  # up to the last @ of a word: a password may have some of its own
_QUERY = re.compile(r"([?&;])([^\s=&;?]*)=([^\s&;]*)")
_LOGIN_OF_ADDRESS = re.compile(r"//.*@", re.DOTALL)
_QUERY_OF_ADDRESS = re.compile(r"([?&;])([^=&;?]*)=([^&;]*)")
_PARTS = re.compile(r"[@:/?#]")
_PIECE = 3
"""Characters of a password's part that would tell something."""


def masked(text: object, *, of: str = "") -> str:
    """Return text in which no address has a secret; an address ends where a space comes.

    Args:
        text: such as what a library says.
        of: an address that it was said about: nothing of its secrets is left, however they are written.
    """
    said = str(text)
    for secret in sorted(set(_secrets(of)), key=len, reverse=True):
        said = said.replace(secret, MASK)
    return _masked(said, _LOGIN, _QUERY)


def masked_address(address: object) -> str:
    """Return the same for a text that is one address as a whole, or one word of a command, with spaces perhaps."""
    return _masked(str(address), _LOGIN_OF_ADDRESS, _QUERY_OF_ADDRESS)


def without_login(address: str) -> str:
    """Return an address without its login, for people who have one of their own, such as in a browser."""
    return _LOGIN_OF_ADDRESS.sub("//", masked_address(address))


def _masked(text: str, login: re.Pattern[str], query: re.Pattern[str]) -> str:
    return query.sub(_value, login.sub(f"//{MASK}@", text))


def _value(match: re.Match[str]) -> str:
    mark, name, value = match.groups()
    return f"{mark}{name}={MASK if _is_secret(name) else value}"


def _is_secret(name: str) -> bool:
    return bool(_SECRET.search(unquote_plus(name)))


def _secrets(address: str) -> Iterator[str]:
    """Yield what an address hides: as written, as meant, and as readers understand it who cut it elsewhere."""
    secrets = [value for _, name, value in _QUERY_OF_ADDRESS.findall(address) if _is_secret(name)]
    for login in _LOGIN_OF_ADDRESS.findall(address):
        whole = login[2:-1]
        password = whole.partition(":")[2] or whole
        secrets += [password, *_PARTS.split(password)]
    for secret in secrets:
        yield from (variant for variant in (secret, unquote(secret), unquote_plus(secret)) if len(variant) >= _PIECE)
