"""Reads recordings: a request, the events of the model, and the exact answer.

A recording is a text file of sections, each begun by a line `--- name`. What differs from run to
run (times, ids) is written as a mask, `<time>`, in the answer.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import msgspec

from runner.chat.types import ChatEvent

FOLDER = Path(__file__).parent

_MASKS = (
    (re.compile(rb'"created_at":"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z"'), b'"created_at":"<time>"'),
    (re.compile(rb'"total_duration":\d+'), b'"total_duration":"<ns>"'),
    (re.compile(rb'"created":\d{10}\b(?!:)'), b'"created":"<time>"'),
    (re.compile(rb'"id":"(?:chatcmpl|cmpl)-[0-9a-f]{24}"'), b'"id":"<id>"'),
    (re.compile(rb'"id":"msg_[0-9a-f]{24}"'), b'"id":"<id>"'),
    (re.compile(rb"req_[0-9a-f]{24}"), b"<request>"),
    (re.compile(rb"\b(resp|msg|rs|fc)_[0-9a-f]{48}"), rb"<\1>"),
    (re.compile(rb'"(created|completed)_at":\d{10}\b'), rb'"\1_at":"<time>"'),
)
_events = msgspec.json.Decoder(ChatEvent)


@dataclass(frozen=True)
class Recording:
    """One request and what it must be answered with."""

    path: Path
    method: str
    target: str
    request_headers: dict[str, str]
    body: bytes
    events: tuple[ChatEvent, ...]
    status: int
    headers: dict[str, str]
    answer: bytes

    @classmethod
    def read(cls, path: Path) -> Recording:
        sections = _sections(path.read_text(encoding="utf-8"))
        first, request_headers, body = _message(sections["request"])
        status, headers, answer = _message(sections["response"])
        method, target = first.split()
        return cls(
            path=path,
            method=method,
            target=target,
            request_headers=request_headers,
            body=body,
            events=tuple(map(_events.decode, sections.get("events", "").splitlines())),
            status=int(status),
            headers=headers,
            answer=answer,
        )


def recordings() -> list[Recording]:
    return [Recording.read(path) for path in sorted(FOLDER.glob("*/*.wire"))]


def masked(content: bytes) -> bytes:
    """An answer without what differs from run to run."""
    for pattern, mask in _MASKS:
        content = pattern.sub(mask, content)
    return content


def _sections(text: str) -> dict[str, str]:
    parts = re.split(r"^--- (\w+)\n", text, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def _message(section: str) -> tuple[str, dict[str, str], bytes]:
    """First line, headers, and after an empty line the content, whose last line end counts only if doubled."""
    head, _, content = section.partition("\n\n")
    first, *header_lines = head.splitlines()
    headers = dict(line.split(": ", 1) for line in header_lines)
    return first, headers, content.removesuffix("\n").encode()
