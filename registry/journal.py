"""The journal of a file under way: what is known of it, and which of its bytes are on disk.

One line for each event, each with a checksum of its own, so that a line torn by a crash ends the
journal there instead of being misread:

    {…}          what is known of the file, as JSON; a later one replaces it
    + 0 1048576  these bytes have been written
    o 0 1048576  these too, but they are of an earlier version of the file
    - 0 1048576  these bytes are not to be trusted any more
    v "tag"      bytes from here on are of this version of the file, as its server calls it
    b "id"       the machine's start in which bytes were written from here on
    m            what is written so far is about to be brought to the disk itself
    s            that has happened: what is above the last `m` survives a loss of power
"""

from __future__ import annotations

import json
import os
import zlib
from dataclasses import dataclass, field, replace
from pathlib import Path

from registry.byte_ranges import ByteRanges

_FORMAT = 1
_MAX_BYTES = 64 << 20


@dataclass(frozen=True, slots=True)
class FileFacts:
    """What is known of a file under way."""

    size: int | None = None
    digest: str | None = None
    """As `sha256:…`; None when only the bytes will tell."""
    title: str | None = None
    names: tuple[str, ...] = ()
    """The models it was asked for, as people write them."""

    def to_json(self) -> str:
        document = {
            "format": _FORMAT, "size": self.size, "digest": self.digest, "title": self.title, "names": list(self.names)
        }  # fmt: skip
        return json.dumps(document, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> FileFacts:
        """Raises ValueError for anything else than `to_json` writes."""
        document = json.loads(text)
        if not isinstance(document, dict) or document.get("format") != _FORMAT:
            raise ValueError("not a journal of this format")
        size, digest, title, names = (document.get(name) for name in ("size", "digest", "title", "names"))
        is_size = size is None or (isinstance(size, int) and size >= 0)
        are_texts = all(one is None or isinstance(one, str) for one in (digest, title))
        if not is_size or not are_texts or not isinstance(names, list):
            raise ValueError("a value of the wrong kind")
        return cls(size, digest, title, tuple(str(name) for name in names))


@dataclass(slots=True)
class JournalState:
    """What a journal's lines come to."""

    facts: FileFacts = field(default_factory=FileFacts)
    done: ByteRanges = field(default_factory=ByteRanges)
    """Bytes that have been written."""
    flushed: ByteRanges = field(default_factory=ByteRanges)
    """Those of them that a loss of power cannot have taken."""
    marked: ByteRanges = field(default_factory=ByteRanges)
    """Those that were written when flushing began."""
    older: ByteRanges = field(default_factory=ByteRanges)
    """Those of them that came from an earlier version of the file than `version`."""
    version: str | None = None
    boot: str | None = None
    """The machine's start in which the last bytes were written; None where the system tells none."""
    has_facts: bool = False

    def apply(self, event: str) -> None:
        """Raises ValueError for a line that is none."""
        kind, _, rest = event.partition(" ")
        if kind == "+":
            start, end = _pair(rest)
            self.done.add(start, end)
            self.older.remove(start, end)
        elif kind == "o":
            start, end = _pair(rest)
            self.done.add(start, end)
            self.older.add(start, end)
        elif kind == "-":
            start, end = _pair(rest)
            for ranges in (self.done, self.flushed, self.marked, self.older):
                ranges.remove(start, end)
        elif kind == "v":
            version = _text_or_none(rest)
            if version != self.version:
                self.older = self.done.copy() if self.version is not None else self.older
                self.version = version
        elif kind == "b":
            self.boot = _text_or_none(rest)
        elif event == "m":
            self.marked = self.done.copy()
        elif event == "s":
            self.flushed = self.marked.copy()
        elif event.startswith("{"):
            self.facts = FileFacts.from_json(event)
            self.has_facts = True
        else:
            raise ValueError("an unknown event")


def facts_event(facts: FileFacts) -> str:
    return facts.to_json()


def written_event(start: int, end: int) -> str:
    return f"+ {start} {end}"


def written_older_event(start: int, end: int) -> str:
    return f"o {start} {end}"


def dropped_event(start: int, end: int) -> str:
    return f"- {start} {end}"


def version_event(version: str | None) -> str:
    return f"v {json.dumps(version)}"


def boot_event(boot: str | None) -> str:
    return f"b {json.dumps(boot)}"


MARK_EVENT = "m"
FLUSHED_EVENT = "s"


def to_line(event: str) -> bytes:
    """An event as it is written."""
    content = event.encode()
    return b"%08x %s\n" % (zlib.crc32(content), content)


def whole_journal(state: JournalState) -> bytes:
    """The shortest journal that comes to this state."""
    events = [facts_event(state.facts)]
    if state.version is not None:
        events.append(version_event(state.version))
    if state.boot is not None:
        events.append(boot_event(state.boot))
    events += [written_event(*one) for one in state.flushed]
    events += [MARK_EVENT, FLUSHED_EVENT]
    events += [written_event(*one) for one in without(state.done, state.flushed)]
    events += [written_older_event(*one) for one in state.older]
    return b"".join(map(to_line, events))


class JournalReader:
    """Reads a journal that another process may be writing, each time only what is new."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._identity: tuple[int, int] | None = None
        self._position = 0
        self.state = JournalState()

    def refresh(self) -> bool:
        """Read what has been added; returns whether there is a journal at all. Blocks."""
        try:
            with self._path.open("rb") as file:
                status = _identity_of(file.fileno())
                if status[:2] != self._identity or status[2] < self._position:
                    self._identity, self._position, self.state = status[:2], 0, JournalState()
                file.seek(self._position)
                self._take(file.read(_MAX_BYTES))
        except OSError:
            return False
        return self.state.has_facts

    def _take(self, content: bytes) -> None:
        for line in content.splitlines(keepends=True):
            event = _read_line(line)
            if event is None:
                return
            try:
                self.state.apply(event)
            except (ValueError, RecursionError):
                return
            self._position += len(line)


def with_name(facts: FileFacts, name: str | None) -> FileFacts:
    """The facts with one more model that the file was asked for."""
    if name is None or name in facts.names:
        return facts
    return replace(facts, names=(*facts.names, name))


def without(ranges: ByteRanges, others: ByteRanges) -> ByteRanges:
    """The bytes of the one that are not in the other."""
    left = ranges.copy()
    for start, end in others:
        left.remove(start, end)
    return left


def _text_or_none(document: str) -> str | None:
    text = json.loads(document)
    if text is not None and not isinstance(text, str):
        raise ValueError("neither a text nor nothing")
    return text


def _read_line(line: bytes) -> str | None:
    if not line.endswith(b"\n") or len(line) < 10 or line[8:9] != b" ":
        return None
    content = line[9:-1]
    if line[:8] != b"%08x" % zlib.crc32(content):
        return None
    try:
        return content.decode()
    except UnicodeDecodeError:
        return None


def _pair(text: str) -> tuple[int, int]:
    start, end = (int(one) for one in text.split(" "))
    if not 0 <= start < end:
        raise ValueError("an impossible range")
    return start, end


def _identity_of(descriptor: int) -> tuple[int, int, int]:
    status = os.fstat(descriptor)
    return status.st_dev, status.st_ino, status.st_size
