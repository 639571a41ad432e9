"""Prefect's server with a guard before it, as a program.

python -m pipelines.orchestration.server_program temporary DESCRIPTOR: on an inherited socket, until standard input ends
python -m pipelines.orchestration.server_program HOST PORT: with pages and services, until SIGTERM
"""

import os
import socket
import sys
import threading
import time
from typing import Any

from pipelines.early_imports import uncollected
from pipelines.orchestration.prefect_database import home, migrate

_ENDS_WITHIN = 5.0  # seconds


def _application(*, temporary: bool) -> Any:
    """Return Prefect's own application, behind the guard; its database is there afterwards."""
    with uncollected():
        import uvicorn  # noqa: F401  beside what else takes long
        from prefect.server.api.server import create_app

        from pipelines.orchestration.host_guard import guarded

        migrate(home())
        return guarded(create_app(ephemeral=temporary, final=True))


def _serve_temporarily(descriptor: int) -> None:
    """Be the temporary server on an inherited socket until standard input ends."""
    application = _application(temporary=True)
    import uvicorn

    server = uvicorn.Server(
        uvicorn.Config(application, log_level="warning", lifespan="on", timeout_graceful_shutdown=2)
    )

    def end_with_parent() -> None:
        sys.stdin.buffer.read()
        server.should_exit = True
        time.sleep(_ENDS_WITHIN)
        os._exit(1)

    threading.Thread(target=end_with_parent, daemon=True).start()
    server.run(sockets=[socket.socket(fileno=descriptor)])
    os._exit(0)  # all is written; taking modules apart would only make the parent wait


def _serve(host: str, port: int) -> None:
    """Be the server of `generalist serve`."""
    application = _application(temporary=False)
    import uvicorn

    uvicorn.run(application, host=host, port=port, log_level="info", timeout_graceful_shutdown=2)


if __name__ == "__main__":
    if sys.argv[1] == "temporary":
        _serve_temporarily(int(sys.argv[2]))
    else:
        _serve(sys.argv[1], int(sys.argv[2]))
