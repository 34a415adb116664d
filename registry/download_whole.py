"""Reads a file from its start, where a server gives whole files only: what is here already is passed over."""

from __future__ import annotations

import asyncio

import httpx

from registry.download_transfer import FileChanged, Held, Transfer
from registry.errors import SourceError
from registry.patience import pause_after
from registry.sources.file_version import version_of
from registry.sources.http import Dropped

_MAX_VAIN_READINGS = 5


async def read_from_start(transfer: Transfer) -> None:
    """Return when the partial is complete. Raises as RangedDownload.run."""
    failures = 0
    while not transfer.partial.is_complete:
        before = transfer.partial.completed
        try:
            await _read_whole(transfer)
        except Dropped as error:
            transfer.last_error = error
            failures = 1 if transfer.partial.completed > before else failures + 1
            if transfer.patience.is_over or failures > _MAX_VAIN_READINGS:
                raise transfer.unreachable() from error
            await asyncio.sleep(pause_after(failures, error.asked_pause))


async def _read_whole(transfer: Transfer) -> None:
    partial, label = transfer.partial, transfer.label
    async with transfer.open(transfer.place.url, None) as response:
        if response.status_code != 200:
            raise SourceError(f"{label} sends a part that was not asked for.")
        total = _length_of(response)
        _check_whole(transfer, response, total)
        position = await _take_missing(transfer, response)
    if partial.size is None:
        if total is None and "chunked" not in response.headers.get("Transfer-Encoding", "").lower():
            raise SourceError(f"{label} does not tell where its file ends.")
        partial.set_size(position)
    if not partial.is_complete:
        raise Dropped(f"{label} ended too early.")


def _check_whole(transfer: Transfer, response: httpx.Response, total: int | None) -> None:
    try:
        transfer.check_same(response, total)
    except FileChanged as change:
        transfer.start_over(change)
    if transfer.partial.size is None and total is not None and transfer.window is None:
        transfer.learn_size(total)


async def _take_missing(transfer: Transfer, response: httpx.Response) -> int:
    """Write what is not here yet; returns how many bytes of the wanted part have passed."""
    partial, window = transfer.partial, transfer.window
    position = -transfer.offset
    held = Held(transfer, 0, version_of(response.headers))
    try:
        async for chunk in response.aiter_raw():
            transfer.patience.renew()
            start, position = position, position + len(chunk)
            if partial.size is not None and position > partial.size:
                if window is None:
                    raise SourceError(f"{transfer.label} sends more than the file's {partial.size} bytes.")
                position = partial.size
            for missing_start, missing_end in partial.missing(max(0, start), max(0, position)):
                await held.add(missing_start, chunk[missing_start - start : missing_end - start])
            if held.is_due:
                if partial.size is None:
                    transfer.check_room(len(held))
                await held.write()
            if position == partial.size and window is not None:
                break
    finally:
        held.write_rest()
    return position


def _length_of(response: httpx.Response) -> int | None:
    length = response.headers.get("Content-Length", "")
    return int(length) if length.isdecimal() and len(length) < 19 else None
