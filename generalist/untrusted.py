"""The gate for what comes from outside: regular files, no larger than asked for, JSON within limits, text to be shown.

What has a format of its own has a reader behind this gate: YAML `config.plain_yaml`, arrays `data.array_files`, images
`data.decoding`, states and weights `store.files`, ONNX `export.seal`, addresses of stores `store.remote`.
"""

import hashlib
import json
import os
import re
import stat
import threading
import unicodedata
from collections.abc import Callable
from io import BufferedReader
from pathlib import Path
from typing import Any, TypeVar

Answer = TypeVar("Answer")

LARGEST = 2**26
"""Bytes of JSON."""
DEEPEST = 64
"""Lists and objects in each other."""
LONGEST = 64
"""Digits of an integer."""
_NOT_SHOWN = {"Cc", "Cf", "Cs", "Zl", "Zp"}  # controls, marks that turn text around, surrogates, what breaks lines
_MARKDOWN = frozenset("\\`*_{}[]<>()#|~&!")
_JOINERS = "\u200c\u200d"  # of emoji and of some scripts


def open_regular(path: Path) -> BufferedReader:
    """Open a regular file for reading.

    Raises:
        OSError: there is none, or it can't be read; `strerror` says why.
    """
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # a FIFO would keep us waiting, /dev/zero would never end
            raise OSError(0, "it is not a regular file")
        return path.open("rb")
    except ValueError:  # a null character, half of a surrogate pair
        raise FileNotFoundError(0, "no file has such a name") from None


def read(path: Path, *, most: int = LARGEST) -> bytes:
    """Return the bytes of a regular file.

    Raises:
        OSError: as for `open_regular`, or it has more bytes than `most`; `strerror` says why.
    """
    with open_regular(path) as file:
        whole = os.fstat(file.fileno()).st_size <= most
        content = file.read(most + 1) if whole else b""
    if not whole or len(content) > most:  # it may have grown
        raise OSError(0, f"it has more than {most:,} bytes")
    return content


def file_sha256(path: Path) -> str:
    """Return the SHA-256 (hex) of the bytes of a regular file.

    Raises:
        OSError: as for `open_regular`.
    """
    with open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def parse_json(text: str | bytes) -> Any:
    """Return plain values of JSON text.

    Raises:
        ValueError: it is none, is no UTF-8, or goes beyond the limits.
    """
    if len(text) > LARGEST:
        raise ValueError(f"more than {LARGEST:,} bytes")
    written = text.decode("utf-8") if isinstance(text, bytes) else text
    try:
        value = json.loads(written, parse_int=_integer)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if _too_deep(value):
        raise ValueError(f"more than {DEEPEST} lists and objects lie in each other")
    if "\\u" in written:  # which can write half of a surrogate pair
        json.dumps(value, ensure_ascii=False).encode()
    return value


def with_timeout(seconds: float, ask: Callable[[], Answer]) -> Answer:
    """Return what an address answers, or raise what it raises, if that comes in time; else it is left alone.

    Raises:
        TimeoutError: it does not; `strerror` says so.
    """
    answers: list[Answer] = []
    errors: list[Exception] = []

    def work() -> None:
        try:
            answers.append(ask())
        except Exception as error:  # noqa: BLE001  of any library; raised below
            errors.append(error)

    thread = threading.Thread(target=work, name="address", daemon=True)
    thread.start()
    thread.join(seconds)
    for error in errors:
        raise error
    if not answers:
        raise TimeoutError(0, f"no answer in {seconds:g} s")
    return answers[0]


def printable(text: object) -> str:
    """Return text to show in one line: bytes that are no UTF-8, control characters and the like become escapes."""
    return "".join(_escaped(mark) if _hidden(mark) else mark for mark in str(text))


def lines(text: object) -> str:
    """Return text as `printable` does, but what are several lines stays so."""
    return "\n".join(map(printable, str(text).split("\n")))


def markdown(text: object) -> str:
    """Return text in one line that Markdown shows as it is."""
    return "".join(f"\\{mark}" if mark in _MARKDOWN else mark for mark in printable(text))


def code(text: object) -> str:
    """Return a code span of Markdown, in one line, whatever ticks are in it."""
    shown = printable(text)
    ticks = "`" * (1 + max((len(run) for run in re.findall("`+", shown)), default=0))
    return f"{ticks} {shown} {ticks}" if "`" in shown else f"`{shown}`"


def _integer(digits: str) -> int:
    if len(digits) > LONGEST:
        raise ValueError(f"an integer of {len(digits):,} digits")
    return int(digits)


def _too_deep(value: Any) -> bool:
    level = [value]
    for _ in range(DEEPEST + 1):
        inner = [item.values() if isinstance(item, dict) else item for item in level if isinstance(item, dict | list)]
        if not inner:
            return False
        level = [part for parts in inner for part in parts]
    return True


def _hidden(mark: str) -> bool:
    return unicodedata.category(mark) in _NOT_SHOWN and mark not in _JOINERS


def _escaped(mark: str) -> str:
    byte = ord(mark) - 0xDC00  # where Python keeps bytes of names that are no UTF-8
    return f"\\x{byte:02x}" if 0x80 <= byte <= 0xFF else mark.encode("unicode_escape").decode()
