"""Fetching official files, from a server on this machine in place of the official ones."""

import functools
import gzip
import hashlib
import io
import tarfile
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from generalist.config.section import plugin
from generalist.data import Source, Split
from generalist.data.torchvision_source import TorchvisionSource, download
from generalist.errors import BadInput
from generalist.torchvision_compat import torchvision

NOTHING = Split(np.zeros((0, 1, 1, 1), dtype=np.uint8), np.zeros(0, dtype=np.int64))


class Quiet(SimpleHTTPRequestHandler):
    """Serves files without a log, and keeps a list of what it was asked for."""

    asked: list[str]

    def do_GET(self) -> None:
        self.asked.append(self.path)
        super().do_GET()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  http.server's name for it
        """Say nothing."""


class Server:
    """A folder, its address, and the paths that were fetched from it."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.asked = folder, []
        handler = functools.partial(type("Handler", (Quiet,), {"asked": self.asked}), directory=str(folder))
        self.http = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.address = f"http://127.0.0.1:{self.http.server_port}/"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """A server on loopback, stopped after the test."""
    (tmp_path / "served").mkdir()
    server = Server(tmp_path / "served")
    thread = threading.Thread(target=server.http.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.http.shutdown()
    thread.join()
    server.http.server_close()


def md5(content: bytes) -> str:
    """MD5 (hex)."""
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def fetching(name: str) -> TorchvisionSource:
    """Options of a source in `raw` that may download."""
    made = plugin("data.sources", {"name": name, "path": "raw", "download": True})
    assert isinstance(made, Source)
    assert isinstance(made, TorchvisionSource)
    return made


def serve_cifar(server: Server, monkeypatch: pytest.MonkeyPatch) -> dict[str, bytes]:
    """Serve an archive of small files in the place of CIFAR-10's."""
    reader = torchvision.datasets.CIFAR10
    names = [name for name, _ in reader.train_list + reader.test_list] + [reader.meta["filename"]]
    files = {name: name.encode() for name in names}
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(f"{reader.base_folder}/{name}")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    (server.folder / reader.filename).write_bytes(packed.getvalue())
    monkeypatch.setattr(reader, "url", server.address + reader.filename)
    monkeypatch.setattr(reader, "tgz_md5", md5(packed.getvalue()))
    for kind in ("train_list", "test_list"):
        monkeypatch.setattr(reader, kind, [[name, md5(files[name])] for name, _ in getattr(reader, kind)])
    monkeypatch.setattr(reader, "meta", {**reader.meta, "md5": md5(files[reader.meta["filename"]])})
    return files


def serve_svhn(server: Server, monkeypatch: pytest.MonkeyPatch) -> dict[str, bytes]:
    """Small files in the place of SVHN's."""
    reader = torchvision.datasets.SVHN
    listed = {part: (name, name.encode()) for part, (_, name, _) in reader.split_list.items() if part != "extra"}
    for name, content in listed.values():
        (server.folder / name).write_bytes(content)
    split_list = {part: [server.address + name, name, md5(content)] for part, (name, content) in listed.items()}
    monkeypatch.setattr(reader, "split_list", split_list)
    return dict(listed.values())


def serve_fashion(server: Server, monkeypatch: pytest.MonkeyPatch) -> dict[str, bytes]:
    """Small files in the place of Fashion-MNIST's."""
    reader = torchvision.datasets.FashionMNIST
    files = {name: gzip.compress(name.encode()) for name, _ in reader.resources}
    for name, content in files.items():
        (server.folder / name).write_bytes(content)
    monkeypatch.setattr(reader, "mirrors", [server.address])
    monkeypatch.setattr(reader, "resources", [(name, md5(content)) for name, content in files.items()])
    return files


SERVED = {
    "cifar10": (serve_cifar, "cifar-10-batches-py"),
    "svhn": (serve_svhn, "."),
    "fashion_mnist": (serve_fashion, "FashionMNIST/raw"),
}


@pytest.mark.parametrize("name", SERVED)
def test_missing_files_are_fetched_when_asked_for(
    name: str, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They lie where torchvision puts them, nothing lies beside them, and a second time nothing is fetched."""
    serve, below = SERVED[name]
    files = serve(server, monkeypatch)
    monkeypatch.setattr(type(fetching(name)), "decode", lambda *_: (NOTHING, NOTHING, ()))
    fetching(name).read(tmp_path)
    folder = tmp_path / "raw" / below
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == files
    assert sum(path.is_file() for path in (tmp_path / "raw").rglob("*")) == len(files)
    before = list(server.asked)
    fetching(name).read(tmp_path)
    assert server.asked == before


@pytest.mark.parametrize("name", SERVED)
def test_what_is_there_is_not_fetched_again(
    name: str, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only what is missing comes; a file that is there stays as it is, even where it is a wrong one."""
    serve, below = SERVED[name]
    first, *others = serve(server, monkeypatch)
    folder = tmp_path / "raw" / below
    folder.mkdir(parents=True)
    (folder / first).write_bytes(b"mine")
    with pytest.raises(BadInput, match=f"{first} is not the official file"):
        fetching(name).read(tmp_path)
    assert (folder / first).read_bytes() == b"mine"
    assert sorted(path.name for path in folder.iterdir()) == sorted([first, *others])


@pytest.mark.parametrize("name", SERVED)
def test_a_failed_download_is_told(name: str, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that lacks the files: one sentence with its answer."""
    SERVED[name][0](server, monkeypatch)
    for path in server.folder.iterdir():
        path.unlink()
    with pytest.raises(BadInput, match=rf"{name} can't be downloaded to .*raw \(.*404"):
        fetching(name).read(tmp_path)


def test_a_download_that_is_not_the_official_file_gets_no_name(server: Server, tmp_path: Path) -> None:
    """What arrives under the temporary name is checked before it is renamed."""
    (server.folder / "file").write_bytes(b"other")
    with pytest.raises(RuntimeError):
        download(server.address + "file", tmp_path / "raw" / "file", md5=md5(b"official"))
    assert not (tmp_path / "raw" / "file").exists()
    download(server.address + "file", tmp_path / "raw" / "file", md5=md5(b"other"))
    assert [path.name for path in (tmp_path / "raw").iterdir()] == ["file"]


def test_a_place_that_can_not_be_written_is_told(server: Server, tmp_path: Path) -> None:
    """A file where the folder should be."""
    (tmp_path / "raw").write_text("a file")
    with pytest.raises(BadInput, match="svhn can't be downloaded to"):
        fetching("svhn").read(tmp_path)
    assert server.asked == []
