"""Pulls that other processes are working on: seen, ended by a word, cleared away when they die."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from registry.errors import ModelNotFound
from registry.name import ModelName
from registry.under_way import PullsUnderWay
from tests.registry.downloads_rig import NAME, Rig, model_bytes
from tests.registry.file_server import NOTHING, Behaviour, FileServer
from tests.registry.other_puller import mortal_puller

OTHER = ModelName.parse("host.test/some/model:2")


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    with FileServer().running() as server:
        yield Rig(tmp_path, server, model_bytes(3_000_000))


def test_a_pull_is_known_by_its_name_until_it_is_left(tmp_path: Path) -> None:
    here, there = PullsUnderWay(tmp_path), PullsUnderWay(tmp_path)
    assert here.processes(NAME) == []
    first, second = here.enter(NAME), here.enter(ModelName.parse(NAME.full.upper()))
    assert there.processes(NAME) == [os.getpid()] * 2
    assert there.processes(OTHER) == []
    first.leave()
    assert there.processes(NAME) == [os.getpid()]
    second.leave()
    assert there.processes(NAME) == []
    assert list((tmp_path / "locks").iterdir()) == []


def test_a_pull_that_does_not_obey_is_told(tmp_path: Path) -> None:
    pulls = PullsUnderWay(tmp_path)
    mark = pulls.enter(NAME)
    assert not mark.is_to_end()
    assert PullsUnderWay(tmp_path).end(NAME, patience_seconds=0) == [os.getpid()]
    assert mark.is_to_end()
    mark.leave()
    assert pulls.end(NAME) == []


def test_a_pull_that_ends_before_it_is_told_leaves_no_word_behind(tmp_path: Path) -> None:
    mark = PullsUnderWay(tmp_path).enter(NAME)

    class TooLate(PullsUnderWay):
        """Finds the pull, which then ends at once."""

        def _held(self, name: ModelName) -> Iterator[tuple[Path, int]]:
            found = list(super()._held(name))
            mark.leave()
            yield from found

    assert TooLate(tmp_path).end(NAME) == []
    assert list((tmp_path / "locks").iterdir()) == []


def test_what_a_process_that_died_left_is_cleared_away(tmp_path: Path) -> None:
    pulls = PullsUnderWay(tmp_path)
    mark = pulls.enter(NAME)
    [path] = (tmp_path / "locks").iterdir()
    mark.leave()
    path.touch()
    path.with_suffix(".end").touch()
    assert pulls.processes(NAME) == []
    assert list((tmp_path / "locks").iterdir()) == []


def test_those_who_look_do_not_disturb_those_who_come_and_go(tmp_path: Path) -> None:
    """Whoever looks removes files that nobody holds, perhaps at the very moment when somebody is about to."""
    pulls, looker = PullsUnderWay(tmp_path), PullsUnderWay(tmp_path)
    is_over = threading.Event()

    def look() -> None:
        while not is_over.is_set():
            looker.processes(NAME)

    thread = threading.Thread(target=look)
    thread.start()
    try:
        for _ in range(100):
            mark = pulls.enter(NAME)
            assert pulls.processes(NAME) == [os.getpid()]
            mark.leave()
    finally:
        is_over.set()
        thread.join()


async def test_a_pull_ends_with_an_error_when_it_is_told_to(rig: Rig) -> None:
    rig.server.behaviour = Behaviour(bytes_per_second=lambda _: 200e3)
    with pytest.raises(ModelNotFound, match="removed while it was being downloaded"):
        async for step in rig.puller().pull(NAME):
            if (step.completed or 0) > 100_000:
                assert PullsUnderWay(rig.store.root).end(NAME, patience_seconds=0) == [os.getpid()]
    assert rig.kept() > 100_000
    assert rig.store.blobs.pulls_under_way.processes(NAME) == []
    assert rig.blobs == []


@pytest.mark.skipif(sys.platform == "win32", reason="needs fork and SIGKILL")
def test_another_process_is_seen_and_ends_when_it_is_told_to(rig: Rig) -> None:
    before = 0
    rig.server.behaviour = Behaviour(
        bytes_per_second=lambda _: 200e3 if rig.server.sent - before < 1_000_000 else NOTHING
    )
    pulls = rig.store.blobs.pulls_under_way
    with mortal_puller(rig) as puller:
        child = puller.start()
        puller.until_shown(100_000)
        assert pulls.processes(NAME) == [child]
        assert pulls.end(NAME) == []
        puller.wait()
        assert not puller.is_done
        before = rig.server.sent
        child = puller.start()
        puller.until_shown(puller.shown + 100_000)
        assert pulls.processes(NAME) == [child]
        os.kill(child, signal.SIGKILL)
        puller.wait()
    assert pulls.processes(NAME) == []
    assert rig.kept() > 100_000
