"""Addresses without their secrets, for whatever is printed, logged or kept.

What stands before an @ goes as a whole, since a token may stand in the user's place; of a query, values whose names
sound like secrets.
"""

import re
from urllib.parse import unquote_plus

MASK = "…"
_SECRET = re.compile(r"pass|pwd|token|secret|key|sig|cred|auth", re.IGNORECASE)
_LOGIN = re.compile(r"//\S*@")  # up to the last @ of a word: a password may have some of its own
_QUERY = re.compile(r"([?&;])([^\s=&;?]*)=([^\s&;]*)")
_LOGIN_OF_ADDRESS = re.compile(r"//.*@", re.DOTALL)
_QUERY_OF_ADDRESS = re.compile(r"([?&;])([^=&;?]*)=([^&;]*)")


def masked(text: object) -> str:
    """Text in which no address has a secret; an address ends where a space comes."""
    return _masked(str(text), _LOGIN, _QUERY)


def masked_address(address: object) -> str:
    """The same of a text that is one address as a whole, or one word of a command, with spaces perhaps."""
    return _masked(str(address), _LOGIN_OF_ADDRESS, _QUERY_OF_ADDRESS)


def _masked(text: str, login: re.Pattern[str], query: re.Pattern[str]) -> str:
    return query.sub(_value, login.sub(f"//{MASK}@", text))


def _value(found: re.Match[str]) -> str:
    mark, name, value = found.groups()
    return f"{mark}{name}={MASK if _SECRET.search(unquote_plus(name)) else value}"
