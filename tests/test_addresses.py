"""Addresses of stores and of MLflow that nothing answers at: one sentence within seconds, and no password in it."""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from generalist.errors import BadInput
from generalist.store import Remote
from generalist.store import remote as remotes
from pipelines import database_errors
from pipelines.tracking import connect, mlflow_database
from pipelines.tuning import storage
from pipelines.workspace import Workspace
from tests.command_line import refused


@pytest.fixture(scope="module")
def silent() -> Iterator[str]:
    """Host and port of somebody who takes calls and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield f"127.0.0.1:{listening.getsockname()[1]}"


@pytest.fixture(scope="module")
def chatty() -> Iterator[str]:
    """Host and port of somebody who speaks no protocol of ours."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def answer() -> None:
            while True:
                try:
                    caller, _ = listening.accept()
                except OSError:
                    return
                with caller:
                    caller.sendall(b"hello\r\n\r\n")

        threading.Thread(target=answer, daemon=True).start()
        yield f"127.0.0.1:{listening.getsockname()[1]}"
        listening.shutdown(socket.SHUT_RDWR)


STORES = ["zip://", "zip://x", "http://[", "ftp://me:secret@127.0.0.1:1/x", "ftp://", "http://127.0.0.1:1/x", "tar://x"]
STORES += ["ftp://me:secret@SILENT/x", "http://SILENT/x", "ftp://CHATTY/x", "http://CHATTY/x", "dir://x", "github://"]
STORES += ["hdfs://x", "file:///dev/null/x", "http://127.0.0.1:999999/x", "zip::file://no.zip", "https://\0", "x\n://"]


@pytest.mark.parametrize("url", STORES)
def test_a_store_that_does_not_answer_is_told(
    url: str, silent: str, chatty: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """In time, and nothing else is printed."""
    monkeypatch.setattr(remotes, "PATIENCE", 1.0)
    began = time.monotonic()
    with pytest.raises(BadInput, match=r"^the store .* can't be opened .*unset GENERALIST_STORE$") as told:
        Remote(url.replace("SILENT", silent).replace("CHATTY", chatty))
    assert time.monotonic() - began < 5
    assert "secret" not in str(told.value)
    assert capfd.readouterr().err == ""


@given(st.text(max_size=6), st.sampled_from(["zip", "http", "ftp", "file", "memory", "tar", "", "dir", "data"]))
@example("[", "http")
def test_any_address_of_a_store_is_opened_or_told(rest: str, protocol: str) -> None:
    """Whatever is written after the colon, on this machine alone."""
    url = f"{protocol}://127.0.0.1:1/{rest}" if protocol in {"http", "ftp"} else f"{protocol}://{rest}"
    with suppress(BadInput):
        Remote(url)


TRACKING = ["postgresql+psycopg2://me:secret@127.0.0.1/x", "postgresql://me:secret@127.0.0.1:1/x", "mysql://h/x"]
TRACKING += ["http://[", "http://me:secret@127.0.0.1:1", "ftp://x", "nonsense://x", "://", "postgresql://h:port/x"]
TRACKING += ["http://SILENT", "postgresql://me:secret@SILENT/x", "http://CHATTY", "http://127.0.0.1:999999"]
TRACKING += ["sqlite:////dev/zero", "sqlite:///.", "databricks://x"]


@pytest.mark.parametrize("uri", TRACKING)
def test_a_tracking_address_that_does_not_answer_is_told(
    uri: str, silent: str, chatty: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where MLflow would ask again and again."""
    monkeypatch.setattr(database_errors, "_PATIENCE", 1.0)
    monkeypatch.setattr(mlflow_database, "_PATIENCE", 1.0)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri.replace("SILENT", silent).replace("CHATTY", chatty))
    began = time.monotonic()
    with pytest.raises(BadInput) as told:
        connect(Workspace(tmp_path, tmp_path))
    assert time.monotonic() - began < 15
    assert "secret" not in str(told.value)
    assert "\n" not in str(told.value)


def test_commands_refuse_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With exit code 2."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GENERALIST_STORE", "zip://")
    assert refused("store", "list").startswith("the store zip:// can't be opened")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "mysql://h/x")
    assert "without a driver" in refused("rollback", "--name", "x")


def test_a_database_of_searches_that_never_answers_is_told(silent: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a firewall leaves a caller waiting, whom the driver gives no end."""
    pytest.importorskip("psycopg", reason="PostgreSQL's driver is not here")
    monkeypatch.setattr(database_errors, "_PATIENCE", 1.0)
    began = time.monotonic()
    with pytest.raises(BadInput, match=r"can't be used: no answer in 1 s") as refused:
        storage.open_storage(f"postgresql://user:secret@{silent}/none")
    assert time.monotonic() - began < 30 and "secret" not in str(refused.value)
