"""Reads request bodies: their size, content type, JSON and fields, in this order."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection

from starlette.requests import ClientDisconnect, Request

from runner.api.form_data import boundary_of, decode_form
from runner.api.streaming import ClientGone
from runner.api.strict_json import decode
from runner.api.validation import BodyT, validate
from runner.errors import BodyTooLarge, InvalidRequest, Unsupported

_SMALL = 64 * 1024
"""Bodies up to this size are parsed in place; a thread would cost more than it saves."""


async def read_body(request: Request, body_type: type[BodyT], max_bytes: int) -> BodyT:
    """The checked body of a request.

    Raises InvalidRequest, Unsupported, BodyTooLarge, InvalidJson, InvalidEncoding, TooDeep, or
    ClientGone. Big bodies are parsed in a thread.
    """
    refuse_encodings(request)
    if "origin" in request.headers and not _is_json(request.headers.get("content-type", "")):
        raise InvalidRequest("A request from a web page needs Content-Type: application/json.")
    body = await _collect(request, max_bytes)
    if not body:
        raise InvalidRequest("missing request body")
    if len(body) <= _SMALL:
        return validate(body_type, decode(body))
    return await asyncio.to_thread(lambda: validate(body_type, decode(body)))


async def read_form(request: Request, body_type: type[BodyT], max_bytes: int, *, files: Collection[str]) -> BodyT:
    """The checked fields of a form, with `files` as bytes. Raises as `read_body`."""
    refuse_encodings(request)
    boundary = boundary_of(request.headers.get("content-type", ""))
    body = await _collect(request, max_bytes)
    return await asyncio.to_thread(lambda: validate(body_type, decode_form(body, boundary, files)))


async def stream_body(request: Request) -> AsyncIterator[bytes]:
    """The raw pieces of a body of any size; raises ClientGone when it breaks off."""
    refuse_encodings(request)
    try:
        async for chunk in request.stream():
            if chunk:
                yield chunk
    except ClientDisconnect:
        raise ClientGone from None


def refuse_encodings(request: Request) -> None:
    """Raise Unsupported for compressed bodies: nothing here would take them apart."""
    encoding = request.headers.get("content-encoding", "identity").strip().lower()
    if encoding not in ("", "identity"):
        raise Unsupported("Compressed request bodies are not supported; send it without Content-Encoding.")


async def _collect(request: Request, max_bytes: int) -> bytes:
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared[:20]) > max_bytes:
        raise _too_large(max_bytes)
    chunks = []
    size = 0
    async for chunk in stream_body(request):
        size += len(chunk)
        if size > max_bytes:
            raise _too_large(max_bytes)
        chunks.append(chunk)
    return b"".join(chunks)


def _too_large(max_bytes: int) -> BodyTooLarge:
    return BodyTooLarge(f"The body is larger than the {max_bytes} bytes allowed here.", max_body_bytes=max_bytes)


def _is_json(content_type: str) -> bool:
    return content_type.partition(";")[0].strip().lower() == "application/json"
