"""Files under way on disk: found again as they were left, by the next process as by the same one."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import pytest

from registry.errors import DiskFull
from registry.journal import FileFacts
from registry.partial_keys import key_of_address
from registry.partials import MAX_AGE_SECONDS, Partials
from registry.store import ModelStore

FACTS = FileFacts(100, None, "x.gguf")


@pytest.fixture
def partials(tmp_path: Path) -> Partials:
    return Partials(tmp_path / "partials")


def test_what_was_written_is_found_again(partials: Partials) -> None:
    first = partials.open("one", FACTS, "some/model:1")
    first.write(10, b"x" * 20)
    first.write(0, b"y" * 5)
    first.close()
    assert partials.completed("one") == 25
    second = partials.open("one", FileFacts(100), "other/model:1")
    assert second.missing() == [(5, 10), (30, 100)]
    assert (second.prefix, second.read(0, 5)) == (5, b"yyyyy")
    second.close()
    (status,) = partials.all()
    assert status.facts.names == ("some/model:1", "other/model:1")
    assert status.completed == 25


def test_a_file_of_another_size_is_begun_anew(partials: Partials) -> None:
    first = partials.open("one", FACTS)
    first.write(0, b"x" * 20)
    first.close()
    assert partials.open("one", FileFacts(99)).completed == 0


def test_what_the_journal_says_and_the_file_lacks_is_missing(partials: Partials) -> None:
    first = partials.open("one", FACTS)
    first.write(0, b"x" * 50)
    first.close()
    with first.path.open("r+b") as file:
        file.truncate(30)
    second = partials.open("one", FACTS)
    assert second.missing() == [(30, 100)]
    second.close()
    first.path.unlink()
    assert partials.open("one", FACTS).completed == 0


def test_only_what_an_earlier_process_did_not_flush_is_doubtful(partials: Partials) -> None:
    first = partials.open("one", FACTS)
    first.write(0, b"x" * 30)
    first.flush()
    first.write(30, b"x" * 30)
    assert not first.has_doubtful
    first.close()
    second = partials.open("one", FACTS)
    doubts = [second.has_doubtful]
    second.write(60, b"x" * 40)
    second.drop_doubtful()
    assert second.missing() == [(30, 60)]
    assert [*doubts, second.has_doubtful] == [True, False]
    second.close()


@pytest.mark.parametrize(
    ("digest", "then", "missing"),
    [
        (None, "the same", [(60, 100)]),
        (None, "another", [(30, 100)]),
        (None, None, [(30, 100)]),
        (f"sha256:{'a' * 64}", "another", [(60, 100)]),
    ],
)
def test_a_loss_of_power_takes_what_was_not_flushed_where_no_digest_would_tell(
    digest: str | None, then: str | None, missing: list[tuple[int, int]], partials: Partials,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    facts = FileFacts(100, digest)
    monkeypatch.setattr("registry.partial.boot", lambda: "the same")
    first = partials.open("one", facts)
    first.write(0, b"x" * 30)
    first.flush()
    first.write(30, b"x" * 30)
    first.close()
    monkeypatch.setattr("registry.partial.boot", lambda: then)
    second = partials.open("one", facts)
    assert second.missing() == missing
    second.close()


def test_what_is_written_during_a_flush_is_not_taken_for_flushed(
    partials: Partials, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of two flushes at once, the end of the first must not vouch for what only the second was begun with."""
    partial = partials.open("one", FACTS)
    begun, may_end = [threading.Event(), threading.Event()], [threading.Event(), threading.Event()]
    turns = iter(range(2))

    def sync(descriptor: int) -> None:
        turn = next(turns)
        begun[turn].set()
        assert may_end[turn].wait(20)

    monkeypatch.setattr("registry.partial._sync", sync)
    partial.write(0, b"x" * 10)
    flushes = [threading.Thread(target=partial.flush) for _ in range(2)]
    flushes[0].start()
    assert begun[0].wait(20)
    partial.write(10, b"x" * 10)
    flushes[1].start()
    begun[1].wait(0.1)  # which never happens where flushes wait for one another
    may_end[0].set()
    flushes[0].join()
    reader = partials.look("one")
    assert reader.refresh()
    assert list(reader.state.flushed) == [(0, 10)]
    may_end[1].set()
    flushes[1].join()
    assert reader.refresh()
    assert list(reader.state.flushed) == [(0, 20)]
    partial.close()


def test_much_that_was_written_is_flushed_and_little_waits(partials: Partials) -> None:
    partial = partials.open("one", FileFacts(1 << 30))
    partial.write(0, b"x" * 1000)
    assert not partial.flush_if_due()
    for at in range(0, 40 << 20, 4 << 20):
        partial.write(at, bytes(4 << 20))
    assert partial.flush_if_due()
    assert not partial.flush_if_due() and not partial.flush()
    reader = partials.look("one")
    assert reader.refresh()
    assert reader.state.flushed == reader.state.done
    partial.forget()


def test_what_is_of_another_version_is_doubtful_until_it_is_written_again(partials: Partials) -> None:
    partial = partials.open("one", FACTS)
    partial.begin_version('"a"')
    partial.write(0, b"x" * 10, '"a"')
    partial.begin_version('"b"')
    partial.write(10, b"x" * 10, '"b"')
    partial.write(20, b"x" * 10, '"a"')
    partial.write(0, b"x" * 5, '"b"')
    partial.drop_doubtful()
    assert partial.missing() == [(5, 10), (20, 100)]
    partial.close()


def test_closing_waits_for_those_who_write_and_lets_nobody_write_later(partials: Partials) -> None:
    partial = partials.open("one", FileFacts(64 << 20))
    failures: list[BaseException] = []

    def write(number: int) -> None:
        try:
            for at in range(number << 20, 64 << 20, 4 << 20):
                partial.write(at, bytes(1 << 20))
        except ValueError as error:
            failures.append(error)

    writers = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    for writer in writers:
        writer.start()
    partial.close()
    for writer in writers:
        writer.join()
    assert all("not being written any more" in str(error) for error in failures)
    again = partials.open("one", FileFacts(64 << 20))
    assert again.completed == partial.completed
    again.close()


def test_a_disk_without_room_for_the_journal_takes_nothing_that_was_noted(
    partials: Partials, monkeypatch: pytest.MonkeyPatch
) -> None:
    partial = partials.open("k", FileFacts(100))
    partial.write(0, b"x" * 10)
    really = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, content: really(descriptor, content[:5]))
    with pytest.raises(DiskFull):
        partial.write(10, b"y" * 10)
    with pytest.raises(DiskFull):
        partial.begin_version("two")
    with pytest.raises(DiskFull):
        partial.drop_all()
    monkeypatch.setattr(os, "write", really)
    partial.write(20, b"z" * 10)
    partial.close()
    assert partials.completed("k") == 20


def test_partials_that_can_be_gone_on_with_outlive_other_leftovers(tmp_path: Path) -> None:
    store = ModelStore(tmp_path)
    for key in ("fresh", "forgotten"):
        partial = store.blobs.partials.open(key_of_address(key), FACTS)
        partial.write(0, b"x" * 10)
        partial.close()
    (tmp_path / "partials" / "of-a-writer-that-died").write_bytes(b"x")
    (tmp_path / "partials" / "without-a-file.journal").write_bytes(b"x")
    fresh = key_of_address("fresh")
    days_ago = time.time() - 2 * 24 * 3600
    long_ago = time.time() - MAX_AGE_SECONDS - 60
    for path in (tmp_path / "partials").iterdir():
        then = long_ago if path.name.startswith(key_of_address("forgotten")) else days_ago
        os.utime(path, (then, then))
    held = store.blobs.try_lock(fresh)
    assert held is not None
    other = store.blobs.try_lock(key_of_address("forgotten"))
    assert other is not None
    other.release()
    for path in (tmp_path / "locks").iterdir():
        os.utime(path, (days_ago, days_ago))
    store.prune(3600)
    assert {path.name for path in (tmp_path / "locks").iterdir()} == {f"{fresh}.lock", "store.lock"}
    held.release()
    left = {path.name for path in (tmp_path / "partials").iterdir()}
    assert left == {fresh, f"{fresh}.journal"}
