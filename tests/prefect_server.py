"""Whom a Prefect server of ours answers: asked over HTTP and by WebSocket, as this machine's user and as others."""

import base64
import json
import os
import subprocess
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect
from websockets.typing import Subprotocol

SOCKETS = ("events/out", "events/in", "logs/out", "task_runs/subscriptions/scheduled", "work_pools/x/workers/connect")
FREE = {("get", "/health"), ("get", "/ready")}
FOREIGN = "http://evil.example"


def proof(string: str) -> dict[str, str]:
    """Return the header with a string."""
    return {"Authorization": "Basic " + base64.b64encode(string.encode()).decode()}


def asked(url: str, body: object = None, *, method: str | None = None, **headers: str) -> tuple[int, Any]:
    """Return the status with which a server answers, and what it says."""
    request = urllib.request.Request(
        url,
        None if body is None else json.dumps(body).encode(),
        {"Content-Type": "application/json", **{name.replace("_", "-"): value for name, value in headers.items()}},
        method=method,
    )
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            content = answer.read()
            return answer.status, json.loads(content) if content[:1] in b"{[" else content
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def told(url: str, *, token: str | None, speaks: bool = True, **headers: str) -> str | int:
    """Return what a WebSocket says to a client with that token; the status, or the code of closing, if it refuses."""
    protocols = [Subprotocol("prefect")] if speaks else None
    try:
        with connect(url, subprotocols=protocols, additional_headers=headers, proxy=None, open_timeout=30) as socket:
            socket.send(json.dumps({"type": "auth", "token": token}))
            return str(json.loads(socket.recv(timeout=30))["type"])
    except InvalidStatus as error:
        return error.response.status_code
    except ConnectionClosed as error:
        return error.rcvd.code if error.rcvd else 0


def check_whom_it_answers(origin: str, string: str) -> None:
    """Without the string nobody, and nobody who means another host or speaks for a page of another origin."""
    api = f"{origin}/api"
    routes = [
        (method, path)
        for path, methods in asked(f"{origin}/openapi.json")[1]["paths"].items()
        for method in methods
        if (method, path) not in FREE
    ]
    assert len(routes) > 150

    def refused(route: tuple[str, str]) -> bool:
        address = api + route[1].replace("{", "").replace("}", "")
        proofs: list[dict[str, str]] = [{}, proof("generalist:wrong"), {"Authorization": "Bearer x"}]
        # Where a token against forged requests is wanted, too, that is asked for first, and to get one takes the string.
        codes = {401} if route[0] == "get" else {401, 403}
        return all(asked(address, {}, method=route[0].upper(), **headers)[0] in codes for headers in proofs)

    assert ("get", "/csrf-token") in routes
    with ThreadPoolExecutor(8) as threads:
        answered = [route for route, right in zip(routes, threads.map(refused, routes), strict=True) if not right]
    assert answered == []
    assert asked(f"{api}/health")[0] == 200
    assert asked(f"{api}/admin/settings", **proof(string))[0] == 200
    host = origin.removeprefix("http://")
    for path in ("/api/admin/settings", "/api/csrf-token?client=x", "/api/health", "/"):
        for more in ({}, proof(string)):
            assert asked(f"{origin}{path}", Host="evil.example", **more)[0] == 400
            assert asked(f"{origin}{path}", Host=f"evil.example:{host.rpartition(':')[2]}", **more)[0] == 400
            assert asked(f"{origin}{path}", Origin=FOREIGN, **more)[0] == 403
            assert asked(f"{origin}{path}", Origin="null", **more)[0] == 403
    for path in SOCKETS:
        address = f"ws://{host}/api/{path}"
        for token in (None, "generalist:wrong", string):
            assert told(address, token=token, Host="evil.example") == 400
            assert told(address, token=token, Origin=FOREIGN) == 403
        assert told(address, token=None) == 1008
        assert told(address, token="generalist:wrong") == 1008
        assert told(address, token=string, speaks=False) in (403, 1002)
        assert told(address, token=string) == "auth_success"


def allowed_origin(origin: str) -> str | None:
    """Which origins may read what the server answers to its own pages."""
    with urllib.request.urlopen(urllib.request.Request(f"{origin}/api/health", headers={"Origin": origin})) as answer:
        return str(answer.headers["Access-Control-Allow-Origin"])


def exported(said: str, folder: Path) -> dict[str, str]:
    """Return what the `export` line that `generalist serve` prints gives to a second shell."""
    (line,) = [line for line in said.splitlines() if line.strip().startswith("export")]
    printed = subprocess.run(
        ["sh", "-c", f"{line}; env"], cwd=folder, env={"PATH": os.defpath}, capture_output=True, text=True, check=True
    )
    return dict(own.partition("=")[::2] for own in printed.stdout.splitlines() if own.startswith(("PREFECT", "PATH")))
