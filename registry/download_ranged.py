"""Fetches one file over several connections at once, in ranges, and goes on where connections break."""

from __future__ import annotations

import asyncio
import re
import time

import httpx

from registry.download_share import MIN_SEGMENT_BYTES, Share, Span, segment_bytes
from registry.download_transfer import FileChanged, Held, Transfer
from registry.download_whole import read_from_start
from registry.errors import RegistryError, SourceError, SourceUnreachable, Unauthorized
from registry.patience import pause_after
from registry.sources.file_version import version_of
from registry.sources.http import Dropped

_LOOK_SECONDS = 0.1
_IDLE_WORKER_SECONDS = 0.2
_FIRST_NOTICE_SECONDS = 5.0
_SILENT_SECONDS = 3.0
_LONG_SILENT_SECONDS = 15.0
_MAX_RESTARTS = 3
_CONTENT_RANGE = re.compile(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18})")
_BUSY = frozenset({429, 503})


class RangedDownload:
    """Brings what a partial lacks from one address. Owns the connections to it."""

    def __init__(self, transfer: Transfer) -> None:
        self._transfer = transfer
        self._place = transfer.place
        self._partial = transfer.partial
        self._parallel = transfer.options.parallel
        self._final_url: str | None = None
        """Where the address led to last, so that not every request asks again."""
        self._share = Share(())
        self._workers: set[asyncio.Task[None]] = set()
        self._deadlines: dict[Span, asyncio.Timeout] = {}
        """Of the requests under way: passed when a connection has been silent for too long."""
        self._paused = 0
        self._label = transfer.label

    async def run(self) -> None:
        """Return when the partial is complete.

        Raises SourceUnreachable when nothing has come for the idle time, SourceError for another
        file than was expected, Unauthorized, RegistryForbidden, DiskFull or StoreReadOnly. What has
        come stays in the partial.
        """
        if not self._transfer.is_digest_known and self._partial.version is None:
            # Nothing would tell whether the rest belongs to the same version.
            self._partial.drop_all()
        for _ in range(_MAX_RESTARTS):
            try:
                await self._run_once()
                return
            except FileChanged as change:
                self._transfer.start_over(change)
            except _NoRanges:
                await read_from_start(self._transfer)
                return
        raise SourceError(f"{self._label} keeps changing while it is downloaded.")

    async def _run_once(self) -> None:
        partial = self._partial
        if partial.is_complete:
            return
        if partial.size is None:
            self._share = Share([(0, MIN_SEGMENT_BYTES)])
        else:
            self._share = Share(partial.missing(), segment_bytes(partial.size, self._parallel))
        self._transfer.has_answered = False
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
            waited = self._transfer.patience.waited
            if waited < _FIRST_NOTICE_SECONDS:
                next_notice = _FIRST_NOTICE_SECONDS
            if waited >= next_notice:
                next_notice *= 2
                self._transfer.notice(f"waiting for network {waited:.0f} s, {self._transfer.kept()} kept")
            if self._transfer.patience.is_over:
                raise self._transfer.unreachable()
        if not self._partial.is_complete:
            raise SourceError(f"{self._label} did not deliver the whole file.")

    def _cut_silent(self, now: float) -> None:
        """Give up connections on which nothing comes, sooner while others show that the network is there."""
        are_others_moving = self._transfer.patience.waited < _SILENT_SECONDS
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
        segments = -(-(size - self._partial.completed) // segment_bytes(size, self._parallel))
        for _ in range(min(self._parallel, segments) - 1):
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
                await self._fetch_in_time(span, url)
                failures = 0
            except Dropped as error:
                failures = 1 if span.position > begun else failures + 1
                self._transfer.last_error = error
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
        if asked is not None and asked > self._transfer.patience.seconds:
            raise SourceUnreachable(
                f"{error.message} It asks to be left alone for {asked:.0f} s; {self._transfer.kept()} kept, "
                "pull again to go on from there.",
                **error.facts,
            )
        self._paused += 1
        try:
            await asyncio.sleep(pause_after(failures, asked))
        finally:
            self._paused -= 1
        return False

    async def _fetch_in_time(self, span: Span, url: str) -> None:
        try:
            async with asyncio.timeout(None) as deadline:
                self._deadlines[span] = deadline
                await self._fetch(span, url)
        except TimeoutError:
            raise Dropped(f"{self._label} has gone silent.") from None
        finally:
            self._deadlines.pop(span, None)

    async def _fetch(self, span: Span, url: str) -> None:
        first, last = self._transfer.offset + span.position, self._transfer.offset + span.end - 1
        async with self._transfer.open(url, f"bytes={first}-{last}") as response:
            if response.status_code == 200:
                raise _NoRanges
            self._check_part(response, first, last, span)
            if str(response.url) != self._place.url:
                self._final_url = str(response.url)
            if not self._transfer.has_answered:
                self._transfer.has_answered = True
                self._start_others()
            await self._receive(response, span, last + 1 - self._transfer.offset)
        if span.left > 0:
            raise Dropped(f"{self._label} ended too early.")

    async def _receive(self, response: httpx.Response, span: Span, asked: int) -> None:
        """Write a body down in pieces; whatever ends it, nothing that came is lost.

        `asked` is where the part ends that was asked for; others may have taken over some of it since.
        """
        held = Held(self._transfer, span.position, version_of(response.headers))
        try:
            async for chunk in response.aiter_raw():
                if span.position + len(chunk) > asked:
                    raise SourceError(f"{self._label} sends more than was asked for.")
                chunk = chunk[: max(0, span.left)]
                if chunk:
                    await held.add(span.position, chunk)
                    span.receive(len(chunk), time.monotonic())
                    self._transfer.patience.renew()
                if span.left <= 0 and span.end < asked:
                    break  # another connection has taken over the rest
                if held.is_due:
                    await held.write()
        finally:
            held.write_rest()

    def _check_part(self, response: httpx.Response, first: int, last: int, span: Span) -> None:
        match = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
        if match is None:
            raise SourceError(f"{self._label} sends a part without saying which.")
        sent_first, sent_last, total = (int(one) for one in match.groups())
        if not sent_first <= sent_last < total:
            raise SourceError(f"{self._label} sends an impossible range.")
        self._transfer.check_same(response, total)
        if self._partial.size is None and self._transfer.window is None:
            self._transfer.learn_size(total)
            self._share.segment_bytes = segment_bytes(total, self._parallel)
            span.end = min(span.end, total)
            self._share.add(span.end, total)
            last = min(last, total - 1)
        if (sent_first, sent_last) != (first, last):
            raise SourceError(f"{self._label} answers with another range than was asked for.")


class _NoRanges(RegistryError):
    """The server sends the whole file where a part was asked for."""

    def __init__(self) -> None:
        super().__init__("no ranges")
