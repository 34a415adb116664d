"""The worker's control thread: commands in, prompts prepared beside the engine, sequences out to the loop."""

from __future__ import annotations

import functools
import logging
import random
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import msgspec

from runner.adapters import AdapterSet, scope_with
from runner.chat.types import ChatRequest, Failed, Rendered
from runner.engine import CompiledConstraint, Engine
from runner.errors import ConstraintInvalid, ContextLengthExceeded, Fact, InvalidRequest, RunnerError, Unsupported
from runner.messages import (
    Cancel,
    Command,
    Events,
    Generate,
    Grow,
    KeepWindow,
    Load,
    Pause,
    Perform,
    Report,
    Resume,
    RoomGiven,
    RoomRefused,
)
from runner.sampling import Constraint
from runner.tasks import Detokenized, Tokenized
from runner.worker.adapter_room import AwaitAdapters
from runner.worker.commands import CancelSequence, LoopCommand, SetPaused, Stop
from runner.worker.echo import Echo
from runner.worker.encoding import EncodingJob
from runner.worker.growth import AwaitWindow
from runner.worker.output import constrain, plan_output
from runner.worker.prompt import PreparedPrompt, prepare_prompt
from runner.worker.resuming import resume
from runner.worker.sequence import Sequence
from runner.worker.tasks import prepare_task

logger = logging.getLogger(__name__)

PREPARING_THREADS = 4
"""Tokenizing a huge prompt takes seconds, and so does finding out that a grammar does; a short one need not wait behind
them."""


class Control:
    """Turns commands into sequences. Called from the thread that reads the pipe."""

    def __init__(
        self,
        engine: Engine,
        post: Callable[[LoopCommand], None],
        emit: Callable[[Report], None],
        largest_window: Callable[[], int] | None = None,
    ) -> None:
        """`largest_window` tells of the largest that there is memory for."""
        self._engine = engine
        self._largest_window = largest_window or (lambda: engine.info.reach)
        self._post = post
        self._emit = emit
        self._pool = ThreadPoolExecutor(PREPARING_THREADS, thread_name_prefix="prepare")
        self._lock = threading.Lock()
        self._preparing: dict[str, list[LoopCommand]] = {}
        """Requests whose prompt is being made, and the commands that came for them meanwhile."""
        self._may_read: set[str] = set()
        """Adapters that there is memory for, by their digests."""

    def handle(self, command: Command) -> None:
        """Start obeying a command; does not block."""
        match command:
            case Generate() | Perform():
                with self._lock:
                    self._preparing[command.request_id] = []
                self._pool.submit(self._prepare, command, time.perf_counter_ns())
            case Cancel(request_id):
                self._forward(CancelSequence(request_id))
            case Pause(request_id):
                self._forward(SetPaused(request_id, paused=True))
            case Resume(request_id):
                self._forward(SetPaused(request_id, paused=False))
            case Grow() | KeepWindow() | RoomGiven() | RoomRefused():
                self._post(command)
            case Load():
                logger.error("a second model was to be loaded into this worker; refused")

    def stop(self) -> None:
        """End the loop after its current step."""
        self._post(Stop())

    def _forward(self, command: CancelSequence | SetPaused) -> None:
        with self._lock:
            waiting = self._preparing.get(command.request_id)
            if waiting is not None:
                waiting.append(command)
                return
        self._post(command)

    def _prepare(
        self,
        command: Generate | Perform,
        received_ns: int,
        *,
        is_second_try: bool = False,
        refusal: Failed | None = None,
    ) -> None:
        outcome: Sequence | EncodingJob | Rendered | Tokenized | Detokenized | Failed
        try:
            if refusal is not None:
                outcome = refusal
            elif isinstance(command, Perform):
                outcome = prepare_task(command.request_id, command.task, self._engine)
            else:
                outcome = self._sequence(command, received_ns, is_second_try=is_second_try)
        except _NeedsWindow as need:
            again = functools.partial(self._prepare, command, received_ns, is_second_try=True)
            self._post(AwaitWindow(need.cells, lambda: _submit(self._pool, again)))
            return
        except _NeedsAdapters as need:
            self._await_adapters(need.adapters, command, received_ns)
            return
        except ContextLengthExceeded as error:
            facts: dict[str, Fact] = {**error.facts, "largest_context_length": self._largest_window()}
            outcome = Failed(code=error.code, message=error.message, facts=facts)
        except RunnerError as error:
            outcome = Failed(code=error.code, message=error.message, facts=dict(error.facts))
        except Exception:
            logger.exception("request %s: its prompt could not be prepared", command.request_id)
            outcome = Failed(code="internal", message="The prompt could not be prepared; the log has the reason.")
        with self._lock:
            commands = self._preparing.pop(command.request_id)
        if any(isinstance(later, CancelSequence) for later in commands):
            # The loop does not know the request; it reports, and so the daemon learns that it was heard.
            self._post(CancelSequence(command.request_id))
            return
        if isinstance(outcome, Failed | Rendered | Tokenized | Detokenized):
            self._emit(Events([(command.request_id, outcome)]))
            return
        for item in (outcome, *commands):
            self._post(item)

    def _await_adapters(self, adapters: AdapterSet, command: Generate | Perform, received_ns: int) -> None:
        def go_on(refusal: Failed | None) -> None:
            if refusal is None:
                self._may_read.update(use.digest for use in adapters)
            _submit(self._pool, functools.partial(self._prepare, command, received_ns, refusal=refusal))

        self._post(AwaitAdapters(adapters, go_on))

    def _sequence(self, command: Generate, received_ns: int, *, is_second_try: bool) -> Sequence | Rendered:
        request = command.request
        if not self._engine.info.generates:
            raise Unsupported("This model makes vectors and does not generate text.", field="model")
        if request.adapters:
            if any(use.digest not in self._may_read for use in request.adapters):
                raise _NeedsAdapters(request.adapters)
            self._engine.load_adapters(request.adapters)
            scope = scope_with(request.cache_scope, request.adapters)
            request = msgspec.structs.replace(request, cache_scope=scope)
        _check_biased_tokens(request, self._engine)
        info = self._engine.info
        prompt = prepare_prompt(request, self._engine, room=info.context_length if is_second_try else None)
        shares_window = not (request.is_render or request.deterministic)
        length = len(prompt.tokens) + len(command.taken)
        if shares_window and not is_second_try and length >= info.context_length:
            raise _NeedsWindow(length + 1)
        if request.is_render:
            return Rendered(prompt.text, tuple(max(token, -1) for token in prompt.tokens), prompt.window)
        plan = plan_output(request, prompt, self._engine)
        wanted = constrain(request, plan, self._engine)
        formats = [tool.format for tool in (plan.tools if plan is not None else ()) if tool.format is not None]
        for tool_format in formats:
            # What is wrong with one is told as its own error; in a grammar of all tools nobody would find it.
            self._engine.compile_constraint(tool_format)
        seed = request.sampling.seed
        sequence = Sequence(
            command.request_id,
            request,
            prompt.tokens,
            window=prompt.window,
            seed=random.SystemRandom().getrandbits(32) if seed is None else seed,
            received_ns=received_ns,
            truncated=prompt.truncated,
            constraint=wanted and self._compile(command.request_id, wanted, must_hold=bool(formats)),
            output=plan,
            echo=_echo(request, prompt, self._engine),
            media=prompt.media,
            taken=command.taken,
        )
        resume(sequence, command.taken, self._engine)
        return sequence

    def _compile(self, request_id: str, wanted: Constraint, *, must_hold: bool) -> CompiledConstraint | None:
        try:
            return self._engine.compile_constraint(wanted)
        except ConstraintInvalid as error:
            # Nobody asked for this one: without it, calls that the model begins of itself are as good as the model.
            if must_hold or not wanted.is_optional:
                raise
            logger.warning("request %s: its tools' calls are not held to their schemas: %s", request_id, error.message)
            return None


class _NeedsAdapters(Exception):
    """Memory for some of the adapters is yet to be asked for."""

    def __init__(self, adapters: AdapterSet) -> None:
        super().__init__(adapters)
        self.adapters = adapters


class _NeedsWindow(Exception):
    """The prompt fits, but only into a larger window than there is."""

    def __init__(self, cells: int) -> None:
        super().__init__(cells)
        self.cells = cells


def _submit(pool: ThreadPoolExecutor, work: Callable[[], None]) -> None:
    pool.submit(work)


def _echo(request: ChatRequest, prompt: PreparedPrompt, engine: Engine) -> Echo | None:
    return Echo(prompt.text, prompt.tokens, request.logprobs, engine) if request.echo else None


def _check_biased_tokens(request: ChatRequest, engine: Engine) -> None:
    for token, _ in request.logit_bias:
        if token >= engine.info.vocabulary:
            raise InvalidRequest(
                f"Token {token} is not in this model's vocabulary of {engine.info.vocabulary}.", field="logit_bias"
            )
