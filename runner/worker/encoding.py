"""Inputs on their way to become vectors: taken in turns beside the answers, many in one batch."""

from __future__ import annotations

import array
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from runner.chat.types import ChatEvent, Failed
from runner.engine import ENCODING_SLOTS, EncodingChunk, Engine, EngineFault, OutOfCells
from runner.errors import RunnerError
from runner.messages import Beside
from runner.tasks import Encoded, ShortenedInput, Vectors
from runner.worker.reserve import Answer, Reserve
from runner.worker.vectors import shaped

TURN_SHARE = 3
"""Beside answers, steps for these get the time of one in so many others, so that who reads along hardly notices."""

Happenings = list[tuple[str, ChatEvent]]


@dataclass(eq=False, slots=True)
class EncodingJob:
    """One request for vectors. Made by the control thread, changed by the queue alone."""

    request_id: str
    inputs: Sequence[Sequence[int]]
    shortened: tuple[ShortenedInput, ...] = ()
    dimensions: int | None = None
    normalize: bool = False
    begun: int = 0
    """Inputs that are in progress or done."""
    done: int = 0


@dataclass(eq=False, slots=True)
class _Input:
    """One input in progress."""

    job: EncodingJob
    index: int
    slot: int
    tokens: Sequence[int]
    computed: int = 0
    is_alone: bool = False
    """It was computed with others before, and something went wrong."""


@dataclass(slots=True)
class EncodingQueue:
    """The jobs, first come first; their inputs share batches as far as there is room.

    An input whose batch failed, or whose vector holds what is no number, is tried once more alone;
    then its job ends with an error that names it.
    """

    engine: Engine
    reserve: Reserve
    _jobs: deque[EncodingJob] = field(default_factory=deque)
    _active: list[_Input] = field(default_factory=list)
    _suspects: deque[tuple[EncodingJob, int]] = field(default_factory=deque)
    _not_before_ns: int = 0

    def __len__(self) -> int:
        return len(self._jobs)

    def add(self, job: EncodingJob) -> Happenings:
        """Take a job in; what happens at once."""
        if not job.inputs:
            return [(job.request_id, Encoded(0))]
        self._jobs.append(job)
        return []

    def cancel(self, request_id: str) -> None:
        for job in [job for job in self._jobs if job.request_id == request_id]:
            self._drop(job)

    def is_due(self, now: int, *, beside: bool) -> bool:
        """Whether it is these inputs' turn; `beside` says that answers are being computed."""
        if not self._jobs or (self.reserve.is_asked(Beside.VECTORS) and not self._active):
            return False
        return not beside or now >= self._not_before_ns

    def turn_took(self, began_ns: int, now: int) -> None:
        """Note how long a turn was: answers have their share before the next."""
        self._not_before_ns = now + TURN_SHARE * (now - began_ns)

    def turn(self, most_rows: int | None = None) -> tuple[int, Happenings]:
        """Compute one batch, of at most `most_rows` tokens where inputs can be cut; its rows, and what came of it."""
        refused = self._begin()
        planned = list(self._plan(most_rows))
        if not planned:
            return 0, refused
        chunks = [chunk for _, chunk in planned]
        rows = sum(len(chunk.tokens) for chunk in chunks)
        try:
            vectors = self.engine.encode(chunks)
        except (EngineFault, OutOfCells) as fault:
            return rows, refused + self._start_over(str(fault) or "it ran out of cells")
        happened: list[tuple[_Input, bytes | None]] = []
        for (item, chunk), vector in zip(planned, vectors, strict=True):
            item.computed += len(chunk.tokens)
            if vector is not None:
                self._active.remove(item)
                happened.append((item, _shaped(item.job, vector)))
        return rows, refused + self._settle(happened)

    def _begin(self) -> Happenings:
        """Put inputs in progress, in order, as long as there is room; the end of a job that there is no memory for."""
        engine = self.engine
        while len(self._active) < ENCODING_SLOTS:
            candidate = self._next()
            if candidate is None:
                break
            job, index, is_alone = candidate
            if self._active and (is_alone or self._active[0].is_alone):
                break
            tokens = job.inputs[index]
            if not self._active:
                room = self.reserve.ask(Beside.VECTORS, engine.encoding_memory(len(tokens)))
                if room is Answer.ASKED:
                    break
                if room is Answer.REFUSED:
                    self._drop(job)
                    return [(job.request_id, self.reserve.refusal(Beside.VECTORS, f"inputs of {len(tokens)} tokens"))]
                try:
                    engine.prepare_encoding(len(tokens))
                except RunnerError as error:
                    self._drop(job)
                    return [(job.request_id, Failed(error.code, error.message, dict(error.facts)))]
            elif sum(len(item.tokens) for item in self._active) + len(tokens) > engine.encoding_room:
                break
            if is_alone:
                self._suspects.popleft()
            else:
                job.begun += 1
            taken = {item.slot for item in self._active}
            slot = next(number for number in range(ENCODING_SLOTS) if number not in taken)
            self._active.append(_Input(job, index, slot, tokens, is_alone=is_alone))
        return []

    def _next(self) -> tuple[EncodingJob, int, bool] | None:
        if self._suspects:
            return (*self._suspects[0], True)
        for job in self._jobs:
            if job.begun < len(job.inputs):
                return job, job.begun, False
        return None

    def _plan(self, most_rows: int | None) -> Iterator[tuple[_Input, EncodingChunk]]:
        kind = self.engine.info.encoding
        assert kind is not None
        room = self.engine.encoding_rows
        if most_rows is not None and not kind.is_whole:
            room = max(1, min(room, most_rows))
        for item in self._active:
            left = len(item.tokens) - item.computed
            count = min(left, room)
            if not count or (kind.is_whole and count < left):
                return
            room -= count
            end = item.computed + count
            yield item, EncodingChunk(item.slot, item.computed, item.tokens[item.computed : end], count == left)

    def _settle(self, happened: list[tuple[_Input, bytes | None]]) -> Happenings:
        events: Happenings = []
        ready: dict[EncodingJob, list[tuple[int, bytes]]] = {}
        for item, vector in happened:
            job = item.job
            if vector is not None:
                ready.setdefault(job, []).append((item.index, vector))
                job.done += 1
            elif item.is_alone:
                events += self._fail(job, item.index, "model_invalid", "holds NaN or infinite values")
            else:
                self._suspects.append((job, item.index))
        for job, items in ready.items():
            if job in self._jobs:
                events.append((job.request_id, Vectors(tuple(items))))
                if job.done == len(job.inputs):
                    events.append((job.request_id, Encoded(sum(map(len, job.inputs)), job.shortened)))
                    self._drop(job)
        return events

    def _start_over(self, fault: str) -> Happenings:
        """A batch failed: each of its inputs is tried alone, and the one that fails alone was at fault."""
        items, self._active = self._active, []
        if items[0].is_alone:
            item = items[0]
            return self._fail(item.job, item.index, "internal", f"could not be computed ({fault})")
        self._suspects.extend((item.job, item.index) for item in items)
        return []

    def _fail(self, job: EncodingJob, index: int, code: str, what: str) -> Happenings:
        if job not in self._jobs:
            return []
        self._drop(job)
        message = f"The embedding of input {index} {what}, alone as well as with others."
        return [(job.request_id, Failed(code, message, {"index": index}))]

    def _drop(self, job: EncodingJob) -> None:
        self._jobs.remove(job)
        self._active = [item for item in self._active if item.job is not job]
        self._suspects = deque(suspect for suspect in self._suspects if suspect[0] is not job)


def _shaped(job: EncodingJob, vector: array.array[float]) -> bytes | None:
    return shaped(vector, dimensions=job.dimensions, normalize=job.normalize)
