"""Files below a folder are opened; nothing outside it is, also while links are swapped in."""

from __future__ import annotations

import os
import socket
from collections import Counter
from pathlib import Path

import pytest

from airflow_ha import beneath
from tests.unit.exchange import exchanging

SECRET = b"the secret of the server\n"


@pytest.fixture
def root(tmp_path):
    """A folder with the file `task/1.log`, beside a folder with the secret `outside/1.log`."""
    for folder, content in (("root/task", b"a line\n"), ("outside", SECRET)):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "1.log").write_bytes(content)
    return tmp_path / "root"


def read(root: Path, relative: str) -> bytes:
    with beneath.open_file(root, relative) as file:
        return file.read()


def test_file_below_the_folder_is_read(root):
    assert read(root, "task/1.log") == b"a line\n"


def test_folder_that_is_a_link_itself_is_followed(root, tmp_path):
    (tmp_path / "alias").symlink_to(root)
    assert read(tmp_path / "alias", "task/1.log") == b"a line\n"


@pytest.mark.parametrize("relative", ["../outside/1.log", "task/../../outside/1.log", "/etc/hostname", "", "..", "/"])
def test_path_that_leads_out_is_refused(root, relative):
    with pytest.raises(beneath.NotBeneathError):
        read(root, relative)


@pytest.mark.parametrize("target", ["../../outside/1.log", "1.log", "/etc/hostname"])
def test_link_to_a_file_is_refused(root, target):
    (root / "task" / "link.log").symlink_to(target)
    with pytest.raises(beneath.NotBeneathError):
        read(root, "task/link.log")


def test_link_to_a_folder_is_refused(root):
    (root / "link").symlink_to("../outside")
    with pytest.raises(beneath.NotBeneathError):
        read(root, "link/1.log")
    with pytest.raises(beneath.NotBeneathError), beneath.open_folder(root, "link"):
        pass


def test_pipe_socket_and_folder_are_refused_at_once(root):
    os.mkfifo(root / "pipe.log")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(root / "socket.log"))
        for name in ("pipe.log", "socket.log", "task"):
            with pytest.raises(beneath.NotBeneathError):
                read(root, name)


def test_missing_file_is_reported_as_missing(root):
    for relative in ("task/2.log", "other/1.log"):
        with pytest.raises(FileNotFoundError):
            read(root, relative)


def test_link_that_is_swapped_in_is_never_followed(root):
    (root / "link").symlink_to("../outside")
    outcomes: Counter[bytes] = Counter()
    with exchanging(root / "task", root / "link"):
        while min(outcomes[b"a line\n"], outcomes[b"refused"]) < 500:
            try:
                outcomes[read(root, "task/1.log")] += 1
            except beneath.NotBeneathError:
                outcomes[b"refused"] += 1
    assert set(outcomes) == {b"a line\n", b"refused"}


def test_refused_files_leave_no_descriptor_open(root):
    (root / "task" / "link.log").symlink_to("1.log")
    os.mkfifo(root / "task" / "pipe.log")
    before = len(list(Path("/proc/self/fd").iterdir()))
    for name in ("link.log", "pipe.log", "none.log", "1.log/x"):
        with pytest.raises(OSError, match=name.partition("/")[0]):
            beneath.open_file(root, f"task/{name}")
    assert len(list(Path("/proc/self/fd").iterdir())) == before
