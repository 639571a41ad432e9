"""A PostgreSQL of the tests' own, in a temporary folder and on loopback."""

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest

from tests.services import free_port

_USER = "postgres"  # initdb refuses to run as root
_STARTS_WITHIN = 60.0  # seconds


@contextmanager
def cluster() -> Iterator[str]:
    """Give the address of an empty database; the server ends with the block. Skip where there are no such programs."""
    programs = [shutil.which(name) for name in ("initdb", "postgres")]
    root = os.geteuid() == 0
    if None in programs or (root and shutil.which("setpriv") is None):
        pytest.skip("PostgreSQL's programs initdb and postgres are not here (as root, setpriv is needed, too)")
    initdb, postgres = map(str, programs)
    become = ["setpriv", f"--reuid={_USER}", f"--regid={_USER}", "--init-groups"] if root else []
    folder = Path(tempfile.mkdtemp(prefix="generalist-postgres-"))
    try:
        if root:
            try:
                shutil.chown(folder, _USER, _USER)
            except LookupError:
                pytest.skip(f"PostgreSQL does not run as root, and there is no user {_USER} here")
        made = [*become, initdb, "-D", str(folder / "data"), "-U", "tester", "-A", "trust", "--no-sync"]
        subprocess.run(made, check=True, capture_output=True)
        port = free_port()
        options = ["-h", "127.0.0.1", "-p", str(port), "-k", str(folder), "-c", "fsync=off"]
        server = subprocess.Popen(
            [*become, postgres, "-D", str(folder / "data"), *options],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            address = f"postgresql://tester@127.0.0.1:{port}/postgres"
            _wait(address)
            yield address
        finally:
            server.send_signal(signal.SIGINT)  # it does not wait for clients
            server.wait(_STARTS_WITHIN)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _wait(address: str) -> None:
    until = time.monotonic() + _STARTS_WITHIN
    while True:
        try:
            psycopg.connect(address).close()
        except psycopg.OperationalError:
            if time.monotonic() > until:
                raise
            time.sleep(0.1)
        else:
            return
