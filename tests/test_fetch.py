"""Downloads: whatever a server does, only the right bytes are ever at the final path."""

import hashlib
import threading
import time
from http.server import ThreadingHTTPServer

import pytest
from mirror_server import CONTENT, FILE, Handler

from onecycle.datasets import fetch
from onecycle.datasets.cifar_form import Archive
from onecycle.datasets.load import load
from onecycle.errors import DataError, DiskError
from onecycle.progress import Show


@pytest.fixture
def server(monkeypatch):
    """A local server with short timeouts, and CONTENT as what is wanted."""
    served = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    served.daemon_threads = True
    served.requests, served.over = [], threading.Event()
    served.handle_error = lambda *_: None  # clients that leave
    threading.Thread(target=served.serve_forever, args=(0.02,), daemon=True).start()
    md5 = hashlib.md5(CONTENT).hexdigest()
    monkeypatch.setitem(fetch.ARCHIVES, "cifar10", Archive(FILE, md5, len(CONTENT), "CIFAR-10"))
    monkeypatch.setattr(fetch, "STALL_SECONDS", 0.5)
    yield served
    served.over.set()
    served.shutdown()
    served.server_close()


@pytest.fixture
def mirrors(server, monkeypatch):
    """A function that makes these ways of serving the mirrors."""

    def choose(*ways):
        base = f"http://127.0.0.1:{server.server_port}"
        monkeypatch.setattr(fetch, "MIRRORS", tuple(f"{base}/{way}" for way in ways))

    return choose


@pytest.fixture
def watched(tmp_path, monkeypatch):
    """The final path; whatever is ever put there must be CONTENT."""
    target = tmp_path / "downloads" / FILE
    real = fetch._receive

    def checking(*arguments):
        assert not target.exists()
        real(*arguments)
        assert not target.exists()

    monkeypatch.setattr(fetch, "_receive", checking)
    yield target
    if target.exists():
        assert target.read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("ways", "asked"),
    [
        (["right"], [None]),
        (["without_range"], [None]),
        (["elsewhere"], [None, None]),
        (["closes"], [None, "bytes=131072-", "bytes=262144-", "bytes=393216-"]),
        (["closes_without_range", "right"], [None, "bytes=131072-", "bytes=131072-"]),
        (["truncated", "right"], [None, None]),
        (["truncated_silently", "right"], [None, "bytes=131072-", "bytes=131072-"]),
        (["corrupt", "right"], [None, None]),
        (["corrupt_half", "right"], [None, "bytes=131072-", "bytes=131072-", None]),
        (["too_long"], [None]),
        (["stalls"], [None, *(f"bytes={i * fetch.BLOCK}-" for i in range(1, 7))]),
        (["never_answers", "right"], [None, None]),
        (["missing", "page", "right"], [None, None, None]),
        (["closes_without_range", "wrong_range", "right"], [None, *["bytes=131072-"] * 3]),
    ],
    ids=lambda value: "-".join(value) if value[0] else "",
)
def test_the_right_bytes_arrive(server, mirrors, watched, monkeypatch, ways, asked):
    monkeypatch.setattr(fetch, "STALL_SECONDS", 0.2)
    mirrors(*ways)
    assert fetch.download("cifar10", watched.parent) == watched
    assert watched.read_bytes() == CONTENT
    assert [given for _, given in server.requests] == asked
    assert {path.name for path in watched.parent.iterdir()} == {FILE, ".lock"}
    fetch.download("cifar10", watched.parent)
    assert len(server.requests) == len(asked)  # it is there
    assert watched.stat().st_mode & 0o777 == (watched.parent / ".lock").stat().st_mode & 0o777


@pytest.mark.parametrize(
    ("way", "said"),
    [
        ("corrupt", "wrong bytes"),
        ("truncated", "it has 131072 bytes to send, not 400000"),
        ("truncated_silently", "broke off at 131,072 bytes"),
        ("closes_without_range", "nothing came (ChunkedEncodingError)"),
        ("never_answers", "nothing came (ReadTimeout)"),
        ("missing", "HTTP 404"),
        ("page", "it has 17 bytes to send, not 400000"),
    ],
)
def test_wrong_bytes_never_arrive(server, mirrors, watched, monkeypatch, way, said):
    monkeypatch.setattr(fetch, "STALL_SECONDS", 0.1)
    mirrors(way)
    with pytest.raises(DataError) as caught:
        fetch.download("cifar10", watched.parent)
    text = str(caught.value)
    assert said in text and len(text.splitlines()) == 1
    assert not watched.exists()
    mirrors("right")
    fetch.download("cifar10", watched.parent)  # whatever was left behind
    assert watched.read_bytes() == CONTENT


def test_goes_on_after_a_killed_process(server, mirrors, watched):
    mirrors("right")
    part = watched.with_name(f".{FILE}.part")
    for left, asked in ((CONTENT[:70_000], ["bytes=70000-"]), (CONTENT, [])):
        watched.parent.mkdir(exist_ok=True)
        part.write_bytes(left)
        fetch.download("cifar10", watched.parent)
        assert watched.read_bytes() == CONTENT and not part.exists()
        assert [given for _, given in server.requests] == asked
        server.requests.clear()
        watched.unlink()
    part.write_bytes(bytes(70_000))  # wrong ones
    fetch.download("cifar10", watched.parent)
    assert watched.read_bytes() == CONTENT
    assert [given for _, given in server.requests] == ["bytes=70000-", None]


def test_a_slow_mirror_is_the_last_resort(server, mirrors, watched, monkeypatch):
    monkeypatch.setattr(fetch, "SLOW_AFTER", 0.1)
    monkeypatch.setattr(fetch, "SLOW_RATE", 10_000_000)
    mirrors("slow", "missing")
    fetch.download("cifar10", watched.parent)
    assert watched.read_bytes() == CONTENT
    assert [way for way, _ in server.requests] == ["slow", "missing", "slow"]
    assert server.requests[-1][1] is not None


def test_the_users_mirror_comes_first(server, mirrors, watched, monkeypatch):
    mirrors("missing")
    base = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setenv("ONECYCLE_MIRROR", f"{base}/right/")
    fetch.download("cifar10", watched.parent)
    assert [way for way, _ in server.requests] == ["right"]
    watched.unlink()
    for wrong in ("not an address", "ftp://127.0.0.1", "http://", "http://[", f"{base}/missing"):
        monkeypatch.setenv("ONECYCLE_MIRROR", wrong)
        with pytest.raises(DataError) as caught:
            fetch.download("cifar10", watched.parent)
        assert wrong in str(caught.value) and len(str(caught.value).splitlines()) == 1


def test_two_at_once_fetch_once(server, mirrors, watched):
    mirrors("slow")
    threads = [
        threading.Thread(target=fetch.download, args=("cifar10", watched.parent)) for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert watched.read_bytes() == CONTENT and len(server.requests) == 1


def test_progress_grows_to_the_size(mirrors, watched):
    mirrors("closes")
    seen = []
    fetch.download("cifar10", watched.parent, lambda have, size: seen.append((have, size)))
    assert seen == sorted(seen) and seen[-1] == (len(CONTENT), len(CONTENT))


def test_progress_is_shown_by_tenths(capsys):
    show = Show()
    for have in range(0, 170_000_001, 1_000_000):
        show.downloaded(have, 170_000_000)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 10 and lines[-1] == "downloading: 170 of 170 MB"


def test_a_full_disk_is_the_disks_fault(mirrors, watched, monkeypatch):
    def full(_):
        raise OSError(28, "No space left on device")

    mirrors("right")
    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(DiskError, match="No space left on device"):
        fetch.download("cifar10", watched.parent)
    assert not watched.exists()


def test_without_network_there_are_three_ways_out(monkeypatch):
    monkeypatch.delenv("ONECYCLE_DATA", raising=False)
    for name in ("cifar10", "cifar100", "cifar100-coarse"):
        start = time.perf_counter()
        with pytest.raises(DataError) as caught:
            load(name)
        assert time.perf_counter() - start < 5
        text = str(caught.value)
        assert len(text.splitlines()) == 1 and caught.value.exit_code == 3
        for way in ("--data PATH", "ONECYCLE_DATA", "ONECYCLE_MIRROR", "--data digits"):
            assert way in text


def test_the_download_is_loaded_by_name(server, mirrors, tmp_path, monkeypatch):
    import cifar_files

    monkeypatch.delenv("ONECYCLE_DATA", raising=False)
    made = cifar_files.write_archive(
        tmp_path / FILE, cifar_files.cifar10()[0], "cifar-10-batches-py"
    )
    content = made.read_bytes()
    monkeypatch.setattr(Handler, "right", lambda self: self.send(content))
    md5 = hashlib.md5(content).hexdigest()
    monkeypatch.setitem(fetch.ARCHIVES, "cifar10", Archive(FILE, md5, len(content), "CIFAR-10"))
    mirrors("right")
    assert load("cifar10").digest == load(made).digest
    assert load("cifar10").source.endswith(f"downloads/{FILE}")
    assert len(server.requests) == 1
