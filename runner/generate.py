"""One generation: from what a client asked for to the events of its answer. Read this file first.

A dialect turns its request into a `Call` and gives it to the `Generator`, which finds the model,
merges its parameters and messages with the call's, has the supervisor load it, and hands back a
`Generation`: an open stream whose first event has arrived. So everything that can go wrong before
there is any text is an exception here and a status code there.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Sequence

import msgspec

from registry.store import ModelStore
from runner import answers
from runner.answers import AnswerParts
from runner.call_plan import CallPlan, plan_call
from runner.calls import Call
from runner.chat.types import LAST_EVENTS, ChatEvent, ChatRequest, Failed, Finished, Rendered
from runner.choices import Choices
from runner.errors import ContextLengthExceeded, EngineCrashed, ReportedError, RunnerError
from runner.loaded_model import LoadedModel
from runner.long_prompts import with_ways_out
from runner.model_lookup import find_model
from runner.settings import Settings
from runner.supervisor.lease import Lease
from runner.supervisor.stream import EventStream
from runner.supervisor.supervisor import Supervisor

logger = logging.getLogger(__name__)


class Generation:
    """The events of one answer, the first of which has arrived.

    Iterating gives the answer's events and ends with a Finished; a Failed is given as an event like
    the others. The model is given back before the last event is: who reads that finds it idle.
    `aclose` cancels what is still running and gives the model back; it may be called at any time
    and more than once, and must be called in the end.
    """

    def __init__(self, plan: CallPlan, lease: Lease, stream: EventStream, first: ChatEvent, request_id: str) -> None:
        self.model = plan.model
        self.ignored = plan.ignored
        self.request = plan.request
        self.loaded: LoadedModel = lease.loaded
        self.load_ns: int = lease.load_ns
        self._lease = lease
        self._stream = stream
        self._first: ChatEvent | None = first
        self._request_id = request_id
        self._is_over = False

    def __aiter__(self) -> Generation:
        return self

    async def __anext__(self) -> ChatEvent:
        if self._is_over:
            raise StopAsyncIteration
        event = self._first
        if event is None:
            event = await anext(self._stream)
        else:
            self._first = None
        if type(event) in LAST_EVENTS:
            self._is_over = True
            self._lease.release()
        return event

    async def aclose(self) -> None:
        if not self._is_over:
            logger.info("request %s is cancelled", self._request_id)
            self._is_over = True
        self._lease.release()


Answer = answers.Answer[Generation | Choices]


class Generator:
    """Opens generations on the models of one store."""

    def __init__(self, store: ModelStore, supervisor: Supervisor, settings: Settings) -> None:
        self._store = store
        self._supervisor = supervisor
        self._settings = settings
        self._numbers = itertools.count(1)

    async def open(self, call: Call) -> Generation:
        """Start answering, and wait for the first event.

        Raises RunnerError and RegistryError; cancelling it gives everything back.
        """
        plan = await self._plan(call)
        lease = await self._supervisor.lease(plan.spec, keep_alive=call.keep_alive)
        try:
            plan = plan.settled(lease.loaded)
            stream = lease.generate(self._name(call), plan.request)
            first = await anext(stream)
            if isinstance(first, Failed):
                raise self._explained(ReportedError(first.code, first.message, first.facts), call, plan)
            return Generation(plan, lease, stream, first, call.request_id)
        except BaseException:
            lease.release()
            raise

    async def check(self, call: Call) -> tuple[ChatRequest, tuple[str, ...]]:
        """What would be asked of the model, and the fields that have no effect; nothing is loaded.

        Raises as `open` for what is wrong with the call itself.
        """
        plan = await self._plan(call)
        return plan.request, plan.ignored

    async def complete(self, call: Call) -> Answer:
        """The whole answer at once. Raises as `open`, also for what goes wrong later."""
        generation = await self.open(call)
        parts = AnswerParts()
        try:
            async for event in generation:
                if isinstance(event, Failed):
                    raise ReportedError(event.code, event.message, event.facts)
                if isinstance(event, Finished):
                    return parts.finish(event, generation)
                parts.add(event)
        finally:
            await generation.aclose()
        raise EngineCrashed("The answer broke off.")

    async def open_choices(self, calls: Sequence[Call]) -> Choices:
        """Start several answers by one model, and wait for the first event of any. Raises as `open`.

        The calls differ in prompt or variant only.
        """
        plans = await asyncio.to_thread(lambda: [plan_call(call, self._store, self._settings) for call in calls])
        lease = await self._supervisor.lease(plans[0].spec, keep_alive=calls[0].keep_alive)
        try:
            first = plans[0].settled(lease.loaded)
            streams = [lease.generate(self._name(call), plan.request) for call, plan in zip(calls, plans, strict=True)]
            choices = Choices(first.model, first.request, first.ignored, lease, streams, calls[0].request_id)
        except BaseException:
            lease.release()
            raise
        try:
            await choices.begin()
        except ReportedError as error:
            await choices.aclose()
            raise self._explained(error, calls[0], first) from None
        except BaseException:
            await choices.aclose()
            raise
        return choices

    async def complete_choices(self, calls: Sequence[Call]) -> list[Answer]:
        """All answers, in the order of the calls. Raises what any of them fails with."""
        choices = await self.open_choices(calls)
        parts = [AnswerParts() for _ in calls]
        ends: dict[int, Finished] = {}
        try:
            async for number, event in choices:
                if isinstance(event, Failed):
                    raise ReportedError(event.code, event.message, event.facts)
                if isinstance(event, Finished):
                    ends[number] = event
                else:
                    parts[number].add(event)
        finally:
            await choices.aclose()
        return [one.finish(ends[number], choices) for number, one in enumerate(parts)]

    async def render(self, call: Call) -> tuple[Rendered, tuple[str, ...]]:
        """The prompt that a call would be answered from, and the fields that had no effect. Raises as `open`."""
        plan = await self._plan(call)
        request = msgspec.structs.replace(plan.request, is_render=True)
        async with await self._supervisor.lease(plan.spec, keep_alive=call.keep_alive) as lease:
            event = await anext(lease.generate(self._name(call), request))
        if isinstance(event, Failed):
            raise self._explained(ReportedError(event.code, event.message, event.facts), call, plan)
        assert isinstance(event, Rendered)
        return event, plan.ignored

    async def load(self, call: Call) -> tuple[str, ...]:
        """Load the model of an empty call and leave it loaded; the options that had no effect."""
        plan = await self._plan(call)
        async with await self._supervisor.lease(plan.spec, keep_alive=call.keep_alive) as lease:
            return plan.settled(lease.loaded).ignored

    async def unload(self, call: Call) -> None:
        """Let the model go as soon as its running requests have ended."""
        model = await asyncio.to_thread(find_model, self._store, call.model)
        await self._supervisor.unload(str(model.model_digest))

    async def _plan(self, call: Call) -> CallPlan:
        return await asyncio.to_thread(plan_call, call, self._store, self._settings)

    def _name(self, call: Call) -> str:
        # Clients choose request ids, and may choose one twice.
        return f"{call.request_id}#{next(self._numbers)}"

    def _explained(self, error: ReportedError, call: Call, plan: CallPlan) -> RunnerError:
        """The error; if a window was too small, with the ways out, as far as they are known here."""
        if error.code != ContextLengthExceeded.code:
            return error
        for row in self._supervisor.status():
            if row.spec.weights_digest == plan.spec.weights_digest and row.loaded is not None:
                return with_ways_out(error, call, plan.request, row.loaded.reach, row.largest_context)
        return error
