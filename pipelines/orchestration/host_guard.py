"""Who may ask Prefect's server: programs and pages that mean this machine by its own name.

A server on loopback asks for no password, and any page in a browser can reach it: by the name of a host that its
owner lets point to 127.0.0.1 (DNS rebinding), or by a request across origins. MLflow's server refuses both itself.
"""

import os
from collections.abc import Sequence
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

ALLOWED_HOSTS = "GENERALIST_ALLOWED_HOSTS"
"""Environment variable: further names, with commas, by which the servers may be asked, such as that of a proxy."""
_LOCAL = ("127.0.0.1", "localhost")


def allowed_hosts() -> Sequence[str]:
    """Return the names by which the servers may be asked, without ports."""
    return [*_LOCAL, *(name for name in os.environ.get(ALLOWED_HOSTS, "").replace(" ", "").split(",") if name)]


def guarded(application: ASGIApp) -> ASGIApp:
    """Return an application that refuses requests that mean another host or come from a page of another origin."""
    return TrustedHostMiddleware(_SameOrigin(application), allowed_hosts=allowed_hosts(), www_redirect=False)


class _SameOrigin:
    """Refuses what a page of another origin asks; programs name no origin, our own pages that of the host they ask."""

    def __init__(self, application: ASGIApp) -> None:
        self._application = application

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] in ("http", "websocket"):
            headers = Headers(scope=scope)
            origin = headers.get("origin")
            if origin is not None and urlsplit(origin).netloc != headers.get("host"):
                await PlainTextResponse("Foreign origin", status_code=403)(scope, receive, send)
                return
        await self._application(scope, receive, send)
