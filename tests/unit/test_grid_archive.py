"""Fetching from a web archive: what goes wrong between a server and a disk, against a real server on 127.0.0.1."""

from __future__ import annotations

import hashlib
import threading
import time
import urllib.request
from pathlib import Path

import numpy as np
import pytest
from archive_server import ArchiveServer, Fault, serving

from maury.errors import MauryError, UsageError
from maury.grids.archive import Archive, FetchError, MissingFileError, Patience, StoppedError, _SafeRedirects

SIZE = 300_000  # bytes: several of the 64 kB pieces in which files are read
QUICK = Patience(attempts=3, first_wait=0.01, longest_wait=0.02, timeout=5.0)


@pytest.fixture
def content() -> bytes:
    return np.random.default_rng(4).bytes(SIZE)


@pytest.fixture
def files(tmp_path: Path, content: bytes) -> Path:
    folder = tmp_path / "served"
    folder.mkdir()
    (folder / "a+b=c.fits").write_bytes(content)
    return folder


NAME = "a+b=c.fits"


def fetch(server: ArchiveServer, path: Path, patience: Patience = QUICK) -> tuple[int, list[int]]:
    """Fetch NAME; its size and the counted bytes. Size and hash must be those of the file that arrived."""
    counted: list[int] = []
    original = Archive(server.address, patience).fetch(NAME, path, counted.append)
    assert original.size == path.stat().st_size
    assert original.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    return original.size, counted


def test_a_file_arrives_whole_and_leaves_no_mark(files: Path, content: bytes, tmp_path: Path) -> None:
    with serving(ArchiveServer(files)) as server:
        size, counted = fetch(server, tmp_path / "part")
        assert Archive(server.address).size(NAME) == SIZE
    assert (tmp_path / "part").read_bytes() == content
    assert size == sum(counted) == SIZE
    assert not (tmp_path / "part.json").exists()


def test_a_cut_connection_goes_on_at_the_byte_where_it_ended(files: Path, content: bytes, tmp_path: Path) -> None:
    with serving(ArchiveServer(files, {NAME: [Fault(cut=100_000), Fault(cut=70_000)]})) as server:
        _, counted = fetch(server, tmp_path / "part")
        assert [span for _, span in server.gets()] == ["", "bytes=100000-", "bytes=170000-"]
    assert (tmp_path / "part").read_bytes() == content
    assert sum(counted) == SIZE
    assert min(counted) > 0  # nothing was fetched twice


@pytest.mark.parametrize("kind", ["no ranges", "no versions"])
def test_without_ranges_or_versions_a_cut_file_starts_anew(files: Path, content: bytes, tmp_path: Path, kind: str) -> None:
    server = ArchiveServer(files, {NAME: [Fault(cut=100_000)]}, ranges=kind != "no ranges", etag=kind != "no versions")
    with serving(server):
        _, counted = fetch(server, tmp_path / "part")
        spans = [span for _, span in server.gets()]
    assert spans == ["", "bytes=100000-" if kind == "no ranges" else ""]
    assert (tmp_path / "part").read_bytes() == content
    assert sum(counted) == SIZE  # the bytes that were dropped are counted back


def test_two_versions_of_a_file_are_never_joined(files: Path, tmp_path: Path) -> None:
    with serving(ArchiveServer(files, {NAME: [Fault(cut=100_000)] + [Fault(state=503)] * 2})) as server:
        with pytest.raises(FetchError, match="HTTP state 503"):
            fetch(server, tmp_path / "part")
        assert (tmp_path / "part").stat().st_size == 100_000
        new = np.random.default_rng(5).bytes(SIZE + 1000)
        (files / NAME).write_bytes(new)
        server.asked.clear()
        fetch(server, tmp_path / "part")
        assert len(server.gets()) == 1  # the condition brings the whole new version at once
    assert (tmp_path / "part").read_bytes() == new


def test_nor_by_a_server_that_heeds_no_condition(files: Path, tmp_path: Path) -> None:
    """It sends the rest of the new version where the old one's was asked for; both are of one length, only the ETag tells."""
    server = ArchiveServer(files, {NAME: [Fault(cut=100_000)] + [Fault(state=503)] * 2}, if_range=False)
    with serving(server):
        with pytest.raises(FetchError, match="HTTP state 503"):
            fetch(server, tmp_path / "part")
        new = np.random.default_rng(5).bytes(SIZE)
        (files / NAME).write_bytes(new)
        _, counted = fetch(server, tmp_path / "part")
    assert (tmp_path / "part").read_bytes() == new
    assert sum(counted) == SIZE - 100_000  # the old part is counted back


def test_killed_after_the_last_byte_fetches_nothing_again(files: Path, content: bytes, tmp_path: Path) -> None:
    with serving(ArchiveServer(files, {NAME: [Fault(cut=100_000)] + [Fault(state=503)] * 2})) as server:
        with pytest.raises(FetchError):
            fetch(server, tmp_path / "part")
        (tmp_path / "part").write_bytes(content)  # as if the rest had come, but the program died before it could say so
        _, counted = fetch(server, tmp_path / "part")
        assert server.gets()[-1][1] == f"bytes={SIZE}-"
    assert counted == []


def test_a_server_error_passes(files: Path, content: bytes, tmp_path: Path) -> None:
    with serving(ArchiveServer(files, {NAME: [Fault(state=500), Fault(state=429, retry_after="0")]})) as server:
        fetch(server, tmp_path / "part")
        assert len(server.gets()) == 3
    assert (tmp_path / "part").read_bytes() == content


def test_a_missing_file_is_not_asked_for_again(files: Path, tmp_path: Path) -> None:
    with serving(ArchiveServer(files)) as server:
        with pytest.raises(MissingFileError, match=r"expected http://127\.0\.0\.1:\d+/none, got HTTP state 404"):
            Archive(server.address, QUICK).fetch("none", tmp_path / "part")
        assert len(server.gets()) == 1


def test_connections_cut_without_progress_end_with_a_sentence(files: Path, tmp_path: Path) -> None:
    server = ArchiveServer(files, {NAME: [Fault(cut=10)] * 9})
    with serving(server), pytest.raises(FetchError, match=r"got 30 of 300000 bytes in 3 tries; try again later"):
        fetch(server, tmp_path / "part")


def test_progress_is_not_held_against_a_bad_line(files: Path, content: bytes, tmp_path: Path) -> None:
    """Four cuts with three attempts: each brings 70 kB, more than the 64 kB that count as progress."""
    with serving(ArchiveServer(files, {NAME: [Fault(cut=70_000)] * 4})) as server:
        fetch(server, tmp_path / "part")
    assert (tmp_path / "part").read_bytes() == content


def test_waits_grow_and_the_server_may_ask_for_longer() -> None:
    patience = Patience(first_wait=1.0, longest_wait=5.0)
    assert [patience.wait(n) for n in (1, 2, 3, 4, 5)] == [1.0, 2.0, 4.0, 5.0, 5.0]


def test_retry_after_is_kept(files: Path, tmp_path: Path) -> None:
    started = time.monotonic()
    with serving(ArchiveServer(files, {NAME: [Fault(state=503, retry_after="1")]})) as server:
        fetch(server, tmp_path / "part", Patience(attempts=3, first_wait=0.0, longest_wait=1.0))
    assert time.monotonic() - started >= 1.0


def test_stop_ends_a_download_at_once(files: Path, tmp_path: Path) -> None:
    stop = threading.Event()
    with serving(ArchiveServer(files, delay=0.05)) as server, pytest.raises(StoppedError):
        Archive(server.address, QUICK, stop).fetch(NAME, tmp_path / "part", lambda _: stop.set())
    assert 0 < (tmp_path / "part").stat().st_size <= 1 << 16  # one piece


def test_a_redirection_to_a_file_of_this_computer_is_refused(files: Path, tmp_path: Path) -> None:
    with (
        serving(ArchiveServer(files, redirect=f"file://{files / NAME}")) as server,
        pytest.raises(MauryError, match=r"HTTP state 302"),
    ):
        fetch(server, tmp_path / "part")
    assert not (tmp_path / "part").exists()


def test_no_redirection_to_another_kind_of_address(files: Path, tmp_path: Path) -> None:
    with (
        serving(ArchiveServer(files, redirect="ftp://127.0.0.1/x")) as server,
        pytest.raises(FetchError, match=r"got sent on to 'ftp://127\.0\.0\.1/x'; name a safe --archive address"),
    ):
        fetch(server, tmp_path / "part")
    request = urllib.request.Request("https://host/x")
    with pytest.raises(FetchError, match="got sent on to 'http://host/x'"):
        _SafeRedirects().redirect_request(request, None, 302, "Found", {}, "http://host/x")
    assert _SafeRedirects().redirect_request(request, None, 302, "Found", {}, "https://host/y") is not None


@pytest.mark.parametrize(
    "target", ["/a", "http://a..b/", "http://" + "a" * 70 + "/"], ids=["in a circle", "no host", "long host"]
)
def test_a_redirection_to_nowhere_is_one_sentence(files: Path, tmp_path: Path, target: str) -> None:
    with (
        serving(ArchiveServer(files, redirect=target)) as server,
        pytest.raises(FetchError, match=r"expected http.* got ") as failure,
    ):
        fetch(server, tmp_path / "part")
    assert "\n" not in str(failure.value)


def test_what_a_server_writes_cannot_command_a_terminal(files: Path, tmp_path: Path) -> None:
    server = ArchiveServer(files, {NAME: [Fault(state=403, reason="\x1b[31mred\x07")]})
    with serving(server), pytest.raises(FetchError, match=r"got HTTP state 403 \(\[31mred\); check"):
        fetch(server, tmp_path / "part")


def test_a_length_without_sense_is_none(files: Path, content: bytes, tmp_path: Path) -> None:
    """int() refuses more than 4300 digits with a ValueError."""
    with serving(ArchiveServer(files, {NAME: [Fault(length="9" * 5000)]})) as server:
        fetch(server, tmp_path / "part")
    assert (tmp_path / "part").read_bytes() == content


def test_an_archive_without_head_requests_states_no_size(files: Path) -> None:
    with serving(ArchiveServer(files, head=False)) as server:
        assert Archive(server.address).size(NAME) is None


def test_nobody_at_the_address(tmp_path: Path) -> None:
    with pytest.raises(FetchError, match=r"got no connection \(Connection refused\) in 3 tries"):
        Archive("http://127.0.0.1:9", QUICK).fetch(NAME, tmp_path / "part")  # port 9, discard: nothing listens there


@pytest.mark.parametrize(
    "address",
    [
        "",
        "ftp://host/x",
        "file:///etc",
        "host/x",
        "http://",
        "http://a b/",
        "http://u:p@host/",
        "http://h:x/",
        "http://h/?q",
        "http://a..b/",
        "http://h/ä",
    ],
)
def test_addresses_that_cannot_be_an_archive(address: str) -> None:
    with pytest.raises(UsageError, match=r"expected an archive as http\(s\)://host/folder, got .*; correct --archive"):
        Archive(address)


def test_a_folder_that_cannot_be_written(files: Path, tmp_path: Path) -> None:
    with serving(ArchiveServer(files)) as server, pytest.raises(UsageError, match=r"expected to write .*part.*; check space"):
        fetch(server, tmp_path / "no such folder" / "part")
