"""The part of the prefix cache that is on disk."""

from __future__ import annotations

import os
import queue
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from runner.chat.types import CachedTokens
from runner.messages import CacheOptions
from runner.worker.cell_keeper import CellKeeper
from runner.worker.keeper import UNMEASURED_READ_NS
from runner.worker.prefix_cache import PrefixCache, Segment
from runner.worker.prefix_files import FileEvent, Header, PrefixFiles
from tests.fake_engine import FakeEngine
from tests.runner.worker.test_cell_keeper import SHARED, cached, make_sequence
from tests.runner.worker.test_loop import Driver

TIMEOUT = 60


class Disk:
    """Files with a queue of what happened to them."""

    def __init__(self, directory: Path, *, fingerprint: str = "a model", budget: int = 1 << 20) -> None:
        self.events: queue.Queue[FileEvent] = queue.Queue()
        self.gone: list[bytes] = []
        """Keys of files that went to keep the budget."""
        self.files = PrefixFiles(directory, fingerprint, budget, self.events.put)
        self.found = self.files.open()

    def write(self, segment: Segment, state: bytes) -> FileEvent:
        assert segment.parent is not None
        header = Header(root_of(segment).key, segment.parent.key, segment.start, segment.tokens)
        assert self.files.write(segment.key, header, memoryview(state))
        while (event := self.events.get(timeout=TIMEOUT)).key != segment.key:
            self.gone.append(event.key)
        return event

    def read(self, key: bytes) -> bytes | None:
        self.files.read(key)
        event = self.events.get(timeout=TIMEOUT)
        assert event.key == key
        return None if event.state is None else bytes(event.state)


def root_of(segment: Segment) -> Segment:
    while segment.parent is not None:
        segment = segment.parent
    return segment


def make_segment(tokens: list[int], parent: Segment | None = None) -> Segment:
    parent = parent or PrefixCache(0).root("")
    return Segment(parent, parent.end, tokens)


def stored(directory: Path) -> list[Path]:
    return sorted(path for path in directory.rglob("*") if path.is_file())


def test_what_was_written_is_found_and_read_by_the_next_one(tmp_path: Path) -> None:
    first = make_segment([1, 2, 3])
    second = make_segment([4, 5], first)
    disk = Disk(tmp_path)
    assert disk.found == []
    assert disk.write(first, b"one").is_written
    assert disk.write(second, b"two").is_written
    again = Disk(tmp_path)
    assert [key for key, _ in again.found] == [first.key, second.key], "parents first"
    assert again.found[1][1] == Header(root_of(first).key, first.key, 3, [4, 5])
    assert (again.read(first.key), again.read(second.key)) == (b"one", b"two")


@pytest.mark.skipif(os.name == "nt", reason="Windows keeps no such modes")
def test_nobody_else_may_look_into_the_files(tmp_path: Path) -> None:
    directory = tmp_path / "cache"
    disk = Disk(directory)
    disk.write(make_segment([1]), b"secret")
    [file] = stored(directory)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == stat.S_IMODE(directory.stat().st_mode) == 0o700


def test_files_of_another_model_or_engine_are_not_found(tmp_path: Path) -> None:
    Disk(tmp_path).write(make_segment([1]), b"state")
    assert Disk(tmp_path, fingerprint="another").found == []
    assert len(Disk(tmp_path).found) == 1, "and they stay"


def _cut(data: bytes) -> bytes:
    return data[:-5]


def _flip(data: bytes) -> bytes:
    return data[:-20] + bytes([data[-20] ^ 1]) + data[-19:]


@pytest.mark.parametrize("harm", [_cut, _flip])
def test_a_damaged_file_is_not_used_and_removed(tmp_path: Path, harm: Callable[[bytes], bytes]) -> None:
    segment = make_segment([1, 2])
    Disk(tmp_path).write(segment, b"s" * 100)
    [file] = stored(tmp_path)
    file.write_bytes(harm(file.read_bytes()))
    disk = Disk(tmp_path)
    assert disk.read(segment.key) is None
    assert stored(tmp_path) == []


@pytest.mark.parametrize(
    "content", [b"", b"hello", b"PUNAKV\x00\x02\xff\xff\xff\xff", b"PUNAKV\x00\x02\x02\x00\x00\x00\x81\x01x"]
)
def test_a_foreign_file_is_not_used_and_removed(tmp_path: Path, content: bytes) -> None:
    segment = make_segment([1])
    Disk(tmp_path).write(segment, b"state")
    [file] = stored(tmp_path)
    foreign = file.with_name(f"{'0' * 40}.prefix")
    foreign.write_bytes(content)
    (file.parent / "note.txt").write_text("what is this")
    assert [key for key, _ in Disk(tmp_path).found] == [segment.key]
    assert stored(tmp_path) == [file]


def test_a_file_of_another_version_of_the_format_is_not_used_and_removed(tmp_path: Path) -> None:
    Disk(tmp_path).write(make_segment([1]), b"state")
    [file] = stored(tmp_path)
    data = bytearray(file.read_bytes())
    data[7] -= 1
    file.write_bytes(data)
    assert Disk(tmp_path).found == [] and stored(tmp_path) == []


def test_a_file_that_is_gone_is_told(tmp_path: Path) -> None:
    assert Disk(tmp_path).read(b"k" * 20) is None


def test_the_budget_is_kept_and_what_was_used_last_stays(tmp_path: Path) -> None:
    disk = Disk(tmp_path, budget=5000)
    segments = [make_segment([number]) for number in range(12)]
    for number, segment in enumerate(segments):
        if number > 1:
            disk.files.touch((segments[0].key,))
        disk.write(segment, b"s" * 800)
        for order, path in enumerate(sorted(stored(tmp_path), key=lambda path: path.stat().st_mtime_ns)):
            os.utime(path, (order, order))
    assert sum(path.stat().st_size for path in stored(tmp_path)) <= 5000
    left = {path.stem for path in stored(tmp_path)}
    assert segments[-1].key.hex() in left
    assert segments[0].key.hex() in left
    assert segments[1].key.hex() not in left
    assert {segment.key.hex() for segment in segments} - left == {key.hex() for key in disk.gone}, "and they are told"


def test_a_folder_that_goes_while_it_is_looked_at_ends_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = Disk(tmp_path, budget=1000)
    going = tmp_path / "another model"
    going.mkdir()
    iterdir = Path.iterdir

    def gone(folder: Path) -> Iterator[Path]:
        if folder == going:
            raise FileNotFoundError(str(folder))
        return iterdir(folder)

    monkeypatch.setattr(Path, "iterdir", gone)
    segments = [make_segment([number]) for number in range(3)]
    assert all(disk.write(segment, b"s" * 400).is_written for segment in segments)
    assert disk.read(segments[-1].key) == b"s" * 400


def test_a_parent_outlives_its_children(tmp_path: Path) -> None:
    parent = make_segment([1])
    disk = Disk(tmp_path)
    disk.write(parent, b"parent")
    for path in stored(tmp_path):
        os.utime(path, (1, 1))
    disk.write(make_segment([2], parent), b"child")
    assert disk.files.flush(TIMEOUT)
    times = {path.stem: path.stat().st_mtime for path in stored(tmp_path)}
    assert times[parent.key.hex()] == max(times.values())


def test_a_folder_that_cannot_be_used_is_no_reason_to_fail(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    disk = Disk(tmp_path / "file")
    assert disk.found == []
    assert not disk.files.write(b"k" * 20, Header(b"", b"", 0, [1]), memoryview(b"state"))
    assert disk.files.flush(TIMEOUT)


# --- together with the worker's loop ----------------------------------------------------------------


def options(directory: Path, *, digest: str = "sha256:1", memory_bytes: int = 1 << 20) -> CacheOptions:
    return CacheOptions(memory_bytes=memory_bytes, disk_bytes=1 << 24, directory=str(directory), weights_digest=digest)


def serve(directory: Path, *prompts: list[int], scope: str = "", digest: str = "sha256:1") -> list[CachedTokens]:
    """One life of a worker, in which the prompts are answered one after another."""
    engine = FakeEngine(cells=4000)
    driver = Driver(engine, options(directory, digest=digest))
    with driver.running():
        for number, prompt in enumerate(prompts):
            driver.post(make_sequence(str(number), prompt, count=5, scope=scope))
            driver.wait_for_all(str(number))
            assert driver.text(str(number)) == engine.answer(prompt, 5)
    driver.loop.save(TIMEOUT)
    return [cached(driver, str(number)) for number in range(len(prompts))]


def test_a_conversation_goes_on_after_the_worker_was_started_again(tmp_path: Path) -> None:
    long = [*SHARED, *([3] * 900)]
    assert serve(tmp_path, long, [*SHARED, 7]) == [CachedTokens(), CachedTokens(memory=100)]
    assert serve(tmp_path, [*long, 5], [*SHARED, 7, 7], long) == [
        CachedTokens(disk=1000),
        CachedTokens(disk=1, memory=100),
        CachedTokens(memory=999),
    ]


def test_another_model_and_another_scope_find_nothing(tmp_path: Path) -> None:
    serve(tmp_path, SHARED)
    assert serve(tmp_path, SHARED, digest="sha256:2") == [CachedTokens()]
    assert serve(tmp_path, SHARED, scope="somebody else") == [CachedTokens()]
    assert serve(tmp_path, SHARED) == [CachedTokens(disk=99)]


def test_damage_in_the_middle_of_a_conversation_costs_what_comes_after_it(tmp_path: Path) -> None:
    long = [number * 7 % 26 for number in range(1000)]
    serve(tmp_path, long)
    by_start = {header.start: key for key, header in Disk(tmp_path, fingerprint="sha256:1 fake").found}
    [damaged] = [path for path in stored(tmp_path) if path.stem == by_start[512].hex()]
    damaged.write_bytes(_flip(damaged.read_bytes()))
    assert serve(tmp_path, long) == [CachedTokens(disk=512)]
    assert serve(tmp_path, long) == [CachedTokens(disk=999)], "it was written anew"


def test_what_goes_from_disk_and_memory_leaves_nothing_behind(tmp_path: Path) -> None:
    cache = CacheOptions(4000, disk_bytes=20_000, directory=str(tmp_path), weights_digest="sha256:1")
    driver = Driver(FakeEngine(cells=4000), cache)
    with driver.running():
        for number in range(40):
            driver.post(make_sequence(str(number), [number % 26, number // 26, *SHARED], count=2))
            driver.wait_for_all(str(number))
    driver.loop.save(TIMEOUT)
    driver.loop.obey(wait=False)
    keeper = driver.loop._keeper
    assert isinstance(keeper, CellKeeper)
    assert len(keeper._shelf._by_key) == len([path for path in stored(tmp_path) if path.suffix == ".prefix"]) < 40


def test_a_disk_that_is_slower_than_computing_is_not_waited_for(tmp_path: Path) -> None:
    serve(tmp_path, SHARED)
    # The clock moves with the steps of another answer, past the moment until which a prompt waits.
    engine = FakeEngine(cells=4000, step_ns=lambda _rows, _cells: UNMEASURED_READ_NS // 50)
    driver = Driver(engine, options(tmp_path))
    files = driver.loop._files
    assert files is not None
    files.read = lambda key: None  # type: ignore[method-assign] # a disk that never answers
    driver.post(make_sequence("a", SHARED, count=5), make_sequence("other", [9] * 10, count=100))
    with driver.running():
        driver.wait_for("a")
        driver.wait_for("other")
    assert cached(driver, "a").total == 0
    assert driver.text("a") == engine.answer(SHARED, 5)
    begins = next(number for number, step in enumerate(engine.steps) if len(step) == 2)
    assert 45 <= begins <= 55, "it has waited, and no longer than that"
