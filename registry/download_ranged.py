"""Fetches one file over several connections at once, in ranges, and goes on where connections break."""

from __future__ import annotations

import asyncio
import contextlib
import re
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

import httpx

from registry.download_share import MIN_SEGMENT_BYTES, Share, Span, segment_bytes
from registry.errors import RegistryError, SourceError, SourceUnreachable, Unauthorized
from registry.partials import Partial
from registry.patience import Patience, pause_after
from registry.progress import Notice
from registry.sizes import shown_size
from registry.sources.credentials import shown
from registry.sources.http import Dropped, HttpClient, is_same_host, version_of
from registry.sources.resolved import HttpFile

_PIECE_SECONDS = 1.0
_LOOK_SECONDS = 0.1
_IDLE_WORKER_SECONDS = 0.2
_FIRST_NOTICE_SECONDS = 5.0
_SILENT_SECONDS = 3.0
_LONG_SILENT_SECONDS = 15.0
_MAX_RESTARTS = 3
_MAX_VAIN_READINGS = 5
_CONTENT_RANGE = re.compile(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18})")
_BUSY = frozenset({429, 503})


@dataclass(frozen=True, slots=True)
class Window:
    """The part of a remote file that is wanted, when it is not the whole."""

    offset: int
    total: int
    """The remote file's own size."""


@dataclass(frozen=True, slots=True)
class RangedOptions:
    parallel: int = 8
    idle_timeout_seconds: float = 120.0
    piece_bytes: int = 1 << 20
    """Written, and noted in the journal, at once; so much a kill takes from each connection, at most."""


class RangedDownload:
    """Brings what a partial lacks from one address. Owns the connections to it."""

    def __init__(
        self,
        http: HttpClient,
        place: HttpFile,
        partial: Partial,
        options: RangedOptions,
        notice: Notice,
        *,
        is_digest_known: bool,
        check_room: Callable[[int], None] = lambda size: None,
        window: Window | None = None,
    ) -> None:
        self._http = http
        self._place = place
        self._partial = partial
        self._options = options
        self._notice = notice
        self._is_digest_known = is_digest_known
        self._check_room = check_room
        self._window = window
        self._offset = window.offset if window else 0
        self._patience = Patience(options.idle_timeout_seconds)
        self._final_url: str | None = None
        """Where the address led to last, so that not every request asks again."""
        self._share = Share(())
        self._workers: set[asyncio.Task[None]] = set()
        self._deadlines: dict[Span, asyncio.Timeout] = {}
        """Of the requests under way: passed when a connection has been silent for too long."""
        self._paused = 0
        self._last_error: Dropped | None = None
        self._has_answered = False

    @property
    def label(self) -> str:
        return shown(self._place.url)

    async def run(self) -> None:
        """Return when the partial is complete.

        Raises SourceUnreachable when nothing has come for the idle time, SourceError for another
        file than was expected, Unauthorized, RegistryForbidden, DiskFull or StoreReadOnly. What has
        come stays in the partial.
        """
        if not self._is_digest_known and self._partial.version is None:
            # Nothing would tell whether the rest belongs to the same version.
            self._partial.drop_all()
        for _ in range(_MAX_RESTARTS):
            try:
                await self._run_once()
                return
            except _Changed as change:
                self._start_over(change)
            except _NoRanges:
                await self._read_from_start()
                return
        raise SourceError(f"{self.label} keeps changing while it is downloaded.")

    # --- in ranges -----------------------------------------------------------------------------

    async def _run_once(self) -> None:
        partial = self._partial
        if partial.is_complete:
            return
        if partial.size is None:
            self._share = Share([(0, MIN_SEGMENT_BYTES)])
        else:
            self._share = Share(partial.missing(), segment_bytes(partial.size, self._options.parallel))
        self._has_answered = False
        self._start_worker()
        try:
            await self._watch()
        finally:
            for worker in self._workers:
                worker.cancel()
            if self._workers:
                await asyncio.wait(self._workers)
            for worker in self._workers:
                if not worker.cancelled():
                    worker.exception()
            self._workers.clear()

    async def _watch(self) -> None:
        """Until the file is there: see that something comes, and tell when nothing does."""
        next_notice = _FIRST_NOTICE_SECONDS
        while self._workers and not self._partial.is_complete:
            done, _ = await asyncio.wait(self._workers, timeout=_LOOK_SECONDS, return_when=asyncio.FIRST_COMPLETED)
            for worker in done:
                self._workers.discard(worker)
                worker.result()
            self._cut_silent(time.monotonic())
            waited = self._patience.waited
            if waited < _FIRST_NOTICE_SECONDS:
                next_notice = _FIRST_NOTICE_SECONDS
            if self._patience.is_over:
                raise self._unreachable()
            if waited >= next_notice:
                next_notice *= 2
                self._notice(f"waiting for network {waited:.0f} s, {self._kept()} kept")
        if not self._partial.is_complete:
            raise SourceError(f"{self.label} did not deliver the whole file.")

    def _cut_silent(self, now: float) -> None:
        """Give up connections on which nothing comes, sooner while others show that the network is there."""
        are_others_moving = self._patience.waited < _SILENT_SECONDS
        for span, deadline in self._deadlines.items():
            has_begun = span.position > span.begun
            limit = _SILENT_SECONDS if are_others_moving and has_begun else _LONG_SILENT_SECONDS
            if now - span.last > limit:
                deadline.reschedule(asyncio.get_running_loop().time())

    def _start_worker(self) -> None:
        self._workers.add(asyncio.create_task(self._work()))

    def _start_others(self) -> None:
        """The server has given a part as it should: it may be asked for more at once."""
        size = self._partial.size or 0
        segments = -(-(size - self._partial.completed) // segment_bytes(size, self._options.parallel))
        for _ in range(min(self._options.parallel, segments) - 1):
            self._start_worker()

    async def _work(self) -> None:
        failures = 0
        while not self._share.is_over:
            span = self._share.take(time.monotonic())
            if span is None:
                await asyncio.sleep(_IDLE_WORKER_SECONDS)
                continue
            begun = span.position
            url = self._final_url or self._place.url
            try:
                await self._transfer_in_time(span, url)
                failures = 0
            except Dropped as error:
                failures = 1 if span.position > begun else failures + 1
                self._last_error = error
                if url == self._final_url and failures > 1:
                    self._final_url = None
                self._share.give_back(span)
                if await self._is_one_too_many(error, failures):
                    return
            except (SourceError, Unauthorized) as error:
                self._share.give_back(span)
                if url != self._final_url or error.facts.get("http_status") is None:
                    raise
                # Where a redirect led may be good for a short time only.
                self._final_url = None
            except BaseException:
                self._share.give_back(span)
                raise
            else:
                self._share.give_back(span)

    async def _is_one_too_many(self, error: Dropped, failures: int) -> bool:
        """Pause before the next try; or leave the field to the others, when the server wants fewer."""
        others = len(self._workers) - self._paused - 1
        if error.facts.get("http_status") in _BUSY and others > 0:
            return True
        asked = error.asked_pause
        if asked is not None and asked > self._patience.seconds:
            raise SourceUnreachable(
                f"{error.message} It asks to be left alone for {asked:.0f} s; {self._kept()} kept, "
                "pull again to go on from there.",
                **error.facts,
            )
        self._paused += 1
        try:
            await asyncio.sleep(pause_after(failures, asked))
        finally:
            self._paused -= 1
        return False

    async def _transfer_in_time(self, span: Span, url: str) -> None:
        try:
            async with asyncio.timeout(None) as deadline:
                self._deadlines[span] = deadline
                await self._transfer(span, url)
        except TimeoutError:
            raise Dropped(f"{self.label} has gone silent.") from None
        finally:
            self._deadlines.pop(span, None)

    async def _transfer(self, span: Span, url: str) -> None:
        first, last = self._offset + span.position, self._offset + span.end - 1
        async with self._open(url, f"bytes={first}-{last}") as response:
            if response.status_code == 200:
                raise _NoRanges
            self._check_part(response, first, last, span)
            if str(response.url) != self._place.url:
                self._final_url = str(response.url)
            if not self._has_answered:
                self._has_answered = True
                self._start_others()
            await self._receive(response, span, last + 1 - self._offset)
        if span.left > 0:
            raise Dropped(f"{self.label} ended too early.")

    async def _receive(self, response: httpx.Response, span: Span, asked: int) -> None:
        """Write a body down in pieces; whatever ends it, nothing that came is lost.

        `asked` is where the part ends that was asked for; others may have taken over some of it since.
        """
        version = version_of(response)
        held, held_at, since = bytearray(), span.position, time.monotonic()
        try:
            async for chunk in response.aiter_raw():
                now = time.monotonic()
                if span.position + len(chunk) > asked:
                    raise SourceError(f"{self.label} sends more than was asked for.")
                chunk = chunk[: max(0, span.left)]
                if chunk:
                    held += chunk
                    span.receive(len(chunk), now)
                    self._patience.renew()
                if span.left <= 0 and span.end < asked:
                    break  # another connection has taken over the rest
                if len(held) >= self._options.piece_bytes or now - since >= _PIECE_SECONDS:
                    piece, place = held, held_at
                    held, held_at, since = bytearray(), span.position, now
                    await self._write(place, piece, version)
        finally:
            self._partial.write(held_at, held, version)

    async def _write(self, offset: int, piece: bytearray, version: str | None) -> None:
        writing = asyncio.ensure_future(asyncio.to_thread(self._write_now, offset, piece, version))
        try:
            await asyncio.shield(writing)
        except asyncio.CancelledError:
            # A thread that writes cannot be called back, and its bytes count.
            await asyncio.wait((writing,))
            raise

    def _write_now(self, offset: int, piece: bytearray, version: str | None) -> None:
        self._partial.write(offset, piece, version)
        self._partial.flush_if_due()

    @contextlib.asynccontextmanager
    async def _open(self, url: str, byte_range: str | None) -> AsyncIterator[httpx.Response]:
        # A compressed transfer would make byte positions meaningless.
        headers = {"Accept-Encoding": "identity"}
        if byte_range is not None:
            headers["Range"] = byte_range
        place = self._place
        authorizer = place.authorizer if is_same_host(place.url, url) else None
        async with self._http.open(url, headers, authorizer=authorizer, hosts=place.hosts) as response:
            if response.headers.get("Content-Encoding", "identity") != "identity":
                raise SourceError(f"{self.label} sends a compressed transfer that was not asked for.")
            yield response

    def _check_part(self, response: httpx.Response, first: int, last: int, span: Span) -> None:
        match = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
        if match is None:
            raise SourceError(f"{self.label} sends a part without saying which.")
        sent_first, sent_last, total = (int(one) for one in match.groups())
        if not sent_first <= sent_last < total:
            raise SourceError(f"{self.label} sends an impossible range.")
        self._check_same(response, total)
        if self._partial.size is None and self._window is None:
            self._learn_size(total)
            span.end = min(span.end, total)
            self._share.add(span.end, total)
            last = min(last, total - 1)
        if (sent_first, sent_last) != (first, last):
            raise SourceError(f"{self.label} answers with another range than was asked for.")

    def _learn_size(self, total: int) -> None:
        self._check_room(total - self._partial.completed)
        self._partial.set_size(total)
        self._share.segment_bytes = segment_bytes(total, self._options.parallel)

    def _check_same(self, response: httpx.Response, total: int | None) -> None:
        """Raises _Changed, or SourceError when the file cannot be the one that is wanted."""
        partial, version = self._partial, version_of(response)
        expected = self._window.total if self._window else partial.size
        is_other_size = total is not None and expected is not None and total != expected
        if self._is_digest_known:
            if is_other_size:
                raise SourceError(f"{self.label} has {total} bytes; {expected} are expected.")
            # Another version is noted, not refused: servers that share their work name one file differently,
            # and in the end the digest tells.
            if version is not None:
                partial.begin_version(version)
            return
        is_other = is_other_size or (partial.completed > 0 and version != partial.version)
        if is_other and self._window is not None:
            # Where the wanted part lies in another version, nobody knows.
            raise SourceError(f"{self.label} has changed while it was downloaded.")
        if is_other and (self._has_answered or partial.completed > 0):
            raise _Changed(total, version)
        if version is not None:
            partial.begin_version(version)

    def _start_over(self, change: _Changed) -> None:
        """Nothing of one version is mixed with another."""
        if self._partial.version is not None:
            self._notice(f"{self.label} has changed since it was begun: starting over")
        self._partial.drop_all()
        if change.total is not None:
            self._partial.set_size(change.total)
        self._partial.begin_version(change.version)

    # --- from the start ------------------------------------------------------------------------

    async def _read_from_start(self) -> None:
        """The server gives whole files only: what is here already is passed over."""
        failures = 0
        while not self._partial.is_complete:
            before = self._partial.completed
            try:
                await self._read_whole()
            except Dropped as error:
                self._last_error = error
                failures = 1 if self._partial.completed > before else failures + 1
                if self._patience.is_over or failures > _MAX_VAIN_READINGS:
                    raise self._unreachable() from error
                await asyncio.sleep(pause_after(failures, error.asked_pause))

    async def _read_whole(self) -> None:
        async with self._open(self._place.url, None) as response:
            if response.status_code != 200:
                raise SourceError(f"{self.label} sends a part that was not asked for.")
            total = _length_of(response)
            self._check_whole(response, total)
            position = await self._take_missing(response)
        if self._partial.size is None:
            if total is None and "chunked" not in response.headers.get("Transfer-Encoding", "").lower():
                raise SourceError(f"{self.label} does not tell where its file ends.")
            self._partial.set_size(position)
        if not self._partial.is_complete:
            raise Dropped(f"{self.label} ended too early.")

    def _check_whole(self, response: httpx.Response, total: int | None) -> None:
        try:
            self._check_same(response, total)
        except _Changed as change:
            self._start_over(change)
        if self._partial.size is None and total is not None and self._window is None:
            self._learn_size(total)

    async def _take_missing(self, response: httpx.Response) -> int:
        """Write what is not here yet; returns how many bytes of the wanted part have passed."""
        position, version = -self._offset, version_of(response)
        held, held_at, since = bytearray(), 0, time.monotonic()
        try:
            async for chunk in response.aiter_raw():
                self._patience.renew()
                start, position = position, position + len(chunk)
                if self._partial.size is not None and position > self._partial.size:
                    if self._window is None:
                        raise SourceError(f"{self.label} sends more than the file's {self._partial.size} bytes.")
                    position = self._partial.size
                for missing_start, missing_end in self._partial.missing(max(0, start), max(0, position)):
                    if missing_start != held_at + len(held):
                        await self._write(held_at, held, version)
                        held, held_at = bytearray(), missing_start
                    held += chunk[missing_start - start : missing_end - start]
                if len(held) >= self._options.piece_bytes or time.monotonic() - since >= _PIECE_SECONDS:
                    if self._partial.size is None:
                        self._check_room(len(held))
                    piece, place = held, held_at
                    held, held_at, since = bytearray(), max(0, position), time.monotonic()
                    await self._write(place, piece, version)
                if position == self._partial.size and self._window is not None:
                    break
        finally:
            self._partial.write(held_at, held, version)
        return position

    # --- what is told --------------------------------------------------------------------------

    def _kept(self) -> str:
        size = self._partial.size
        done = shown_size(self._partial.completed)
        return done if size is None else f"{done} of {shown_size(size)}"

    def _unreachable(self) -> SourceUnreachable:
        error = self._last_error
        reason = error.message if error is not None else f"{self.label} sends nothing."
        return SourceUnreachable(
            f"{reason} Nothing new has come for {self._patience.waited:.0f} s; {self._kept()} kept, "
            "pull again to go on from there.",
            **(error.facts if error is not None else {}),
        )


class _NoRanges(RegistryError):
    """The server sends the whole file where a part was asked for."""

    def __init__(self) -> None:
        super().__init__("no ranges")


class _Changed(RegistryError):
    """The file at the address is another one than was begun."""

    def __init__(self, total: int | None, version: str | None) -> None:
        super().__init__("changed")
        self.total = total
        self.version = version


def _length_of(response: httpx.Response) -> int | None:
    length = response.headers.get("Content-Length", "")
    return int(length) if length.isdecimal() and len(length) < 19 else None
