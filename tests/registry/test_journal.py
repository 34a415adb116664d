"""Journals of files under way: read back as they were written, however they end."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from registry.journal import (
    FLUSHED_EVENT,
    MARK_EVENT,
    FileFacts,
    JournalReader,
    JournalState,
    boot_event,
    dropped_event,
    facts_event,
    to_line,
    version_event,
    whole_journal,
    written_event,
    written_older_event,
)

FACTS = FileFacts(1000, "sha256:" + "0" * 64, "model.gguf", ("some/model:1",))
RANGES = st.tuples(st.integers(0, 50), st.integers(1, 50)).map(lambda pair: (pair[0], pair[0] + pair[1]))
EVENTS = st.lists(
    st.one_of(
        RANGES.map(lambda span: written_event(*span)),
        RANGES.map(lambda span: written_older_event(*span)),
        RANGES.map(lambda span: dropped_event(*span)),
        st.sampled_from(['"one"', '"two"', None]).map(version_event),
        st.sampled_from(["first", "second", None]).map(boot_event),
        st.sampled_from([MARK_EVENT, FLUSHED_EVENT]),
    ),
    max_size=20,
)


def state_of(events: list[str]) -> JournalState:
    state = JournalState()
    for event in [facts_event(FACTS), *events]:
        state.apply(event)
    return state


def read(content: bytes) -> JournalState | None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "journal"
        path.write_bytes(content)
        reader = JournalReader(path)
        return reader.state if reader.refresh() else None


def seen(state: JournalState) -> tuple[object, ...]:
    """What whoever goes on with the file goes by."""
    return state.facts, state.done, state.flushed, state.older, state.version, state.boot


@settings(max_examples=100, deadline=None)
@given(EVENTS)
def test_a_journal_is_read_as_it_was_written(events: list[str]) -> None:
    state = read(b"".join(map(to_line, [facts_event(FACTS), *events])))
    assert state is not None
    assert seen(state) == seen(state_of(events))


@settings(max_examples=100, deadline=None)
@given(EVENTS)
def test_the_shortest_journal_comes_to_the_same(events: list[str]) -> None:
    written = state_of(events)
    again = read(whole_journal(written))
    assert again is not None
    assert seen(again) == seen(written)


@settings(max_examples=150, deadline=None)
@given(EVENTS, st.data())
def test_a_damaged_journal_is_true_as_far_as_it_is_read(events: list[str], data: st.DataObject) -> None:
    lines = [to_line(event) for event in [facts_event(FACTS), *events]]
    content = bytearray(b"".join(lines))
    at = data.draw(st.integers(0, len(content) - 1))
    if data.draw(st.booleans()):
        del content[at:]
    else:
        content[at : at + 4] = data.draw(
            st.binary(min_size=1, max_size=8).filter(lambda new: new != content[at : at + 4])
        )
    state = read(bytes(content))
    truths = [seen(state_of(events[:count])) for count in range(len(events) + 1)]
    assert state is None or seen(state) in truths


@pytest.mark.parametrize(
    "content",
    [b"", b"{}\n", b"00000000 \n", to_line("{}"), to_line('{"format":2}'), to_line("+ 5 1"), to_line("[" * 9000)],
)
def test_what_is_no_journal_is_none(content: bytes) -> None:
    assert read(content) is None


def test_a_reader_follows_what_is_added_and_begins_anew_with_another_file(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    reader = JournalReader(path)
    assert not reader.refresh()
    path.write_bytes(to_line(facts_event(FACTS)) + to_line(written_event(0, 10)) + to_line(written_event(20, 30))[:-3])
    assert reader.refresh()
    assert reader.state.done.total == 10
    with path.open("ab") as file:
        file.write(to_line(written_event(20, 30))[-3:])
    assert reader.refresh()
    assert reader.state.done.total == 20
    replacement = tmp_path / "new"
    replacement.write_bytes(to_line(facts_event(FACTS)) + to_line(written_event(0, 5)))
    replacement.replace(path)
    assert reader.refresh()
    assert reader.state.done.total == 5
