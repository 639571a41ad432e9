"""The string that Prefect's servers of ours ask everybody for: HTTP in each request, WebSockets in their first message.

The guard before them keeps pages of other origins out; the string keeps out all others that reach the port.
It travels in the environment alone, where only this user and the children of this process can read it.
"""

import base64
import os
import secrets
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from generalist.errors import BadInput
from generalist.masking import masked_address

URL = "PREFECT_API_URL"
RETRIES = "PREFECT_CLIENT_MAX_RETRIES"
CLIENT, SERVER = "PREFECT_API_AUTH_STRING", "PREFECT_SERVER_API_AUTH_STRING"
CORS = "PREFECT_SERVER_CORS_ALLOWED_ORIGINS"
"""By default all of the web may read answers; ours allow their own pages alone."""
_BYTES = 32


@contextmanager
def secured() -> Iterator[str]:
    """Let servers that are started inside ask for a string, and clients have it; give the string.

    It is the user's own where the environment has one, else a new one.
    """
    string = os.environ.get(SERVER) or os.environ.get(CLIENT) or f"generalist:{secrets.token_urlsafe(_BYTES)}"
    with given({SERVER: string, CLIENT: string}):
        yield string


@contextmanager
def given(values: dict[str, str]) -> Iterator[None]:
    """Give Prefect settings by their environment variables, also where it has read its settings before."""
    before = {name: os.environ.get(name) for name in values}
    os.environ |= values
    try:
        with ExitStack() as stack:
            if "prefect" in sys.modules:
                from prefect import settings

                prefect_settings = {getattr(settings, name): value for name, value in values.items()}
                stack.enter_context(settings.temporary_settings(prefect_settings))
            yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def proof() -> dict[str, str]:
    """Return the header for a request to a server of ours that is made without Prefect's client."""
    string = os.environ.get(CLIENT, "")
    return {"Authorization": f"Basic {base64.b64encode(string.encode()).decode()}"} if string else {}


def check_admitted(url: str) -> None:
    """Ask a server that the user named as Prefect's own client does, by those of its settings that say who we are.

    Raises:
        BadInput: it doesn't admit us.
    """
    from prefect.client.orchestration import get_client
    from prefect.exceptions import PrefectHTTPStatusError

    try:
        with get_client(sync_client=True) as client:
            client.api_version()
    except PrefectHTTPStatusError as error:
        code = error.response.status_code
        if code in (401, 403):
            raise BadInput(
                f"the Prefect server at {masked_address(url)} does not admit us ({code}): set {CLIENT} to its string,"
                f" as the line that `generalist serve` prints does, or unset {URL}"
            ) from None
    except Exception:  # noqa: BLE001, S110  any other trouble is the flow's, whose client tries again
        pass


@contextmanager
def kept(string: str, file: Path) -> Iterator[None]:
    """Keep the string inside in a file that only this user can read, for other shells.

    Raises:
        BadInput: it can't be written.
    """
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.unlink(missing_ok=True)  # left by a process that was killed
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as written:
            written.write(string + "\n")
    except OSError as error:
        raise BadInput(f"{file} can't be written ({error.strerror}): make its folder writable, with room") from None
    try:
        yield
    finally:
        with suppress(OSError):
            file.unlink()
