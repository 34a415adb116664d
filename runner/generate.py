"""One generation: from what a client asked for to the events of its answer. Read this file first.

A dialect turns its request into a `Call` and gives it to the `Generator`, which finds the model,
merges its parameters and messages with the call's, has the supervisor load it, and hands back a
`Generation`: an open stream whose first event has arrived. So everything that can go wrong before
there is any text is an exception here and a status code there.
"""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import msgspec

from registry.errors import InvalidName, ModelNotFound
from registry.name import ModelName
from registry.requirement import check_requirement
from registry.store import ModelStore
from registry.stored_model import StoredModel
from runner import answers
from runner.answers import AnswerParts
from runner.chat.media import Media, MediaKind
from runner.chat.types import (
    LAST_EVENTS,
    ChatEvent,
    ChatPrompt,
    ChatRequest,
    Failed,
    Finished,
    InsertPrompt,
    Limits,
    Message,
    Priority,
    Rendered,
    TextPrompt,
    TokenPrompt,
    Tool,
    ToolUse,
)
from runner.choices import Choices
from runner.errors import ContextLengthExceeded, EngineCrashed, InvalidRequest, ReportedError, Unsupported
from runner.errors import ModelNotFound as NoSuchModel
from runner.loaded_model import LoadedModel
from runner.model_messages import conversation, own_messages, own_template, system_message
from runner.model_spec import adapters_of, model_spec, named_draft, own_draft
from runner.options import Resolved, resolve_options
from runner.sampling import Constraint
from runner.settings import Settings
from runner.supervisor.lease import Lease
from runner.supervisor.stream import EventStream
from runner.supervisor.supervisor import Supervisor
from runner.supervisor.types import DraftWish, ModelSpec

logger = logging.getLogger(__name__)

_SEEDS = 2**32 - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversation:
    """Messages to be answered with the next one."""

    messages: tuple[Message, ...]
    tools: tuple[Tool, ...] = ()
    continues: bool = False
    """The answer goes on with the words of the last message, which is the model's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Completion:
    """Text to be answered: as a user's message, or with `raw` as it stands."""

    prompt: str
    system: str | None = None
    template: str | None = None
    raw: bool = False
    context: tuple[int, ...] | None = None
    """Tokens of an earlier answer to go on from."""
    suffix: str = ""
    """What is to come behind the answer."""
    tokens: tuple[int, ...] = ()
    """With `raw`, in place of a text."""
    media: tuple[Media, ...] = ()
    """Images and sounds in the prompt."""

    @property
    def is_empty(self) -> bool:
        return not (self.prompt or self.tokens or self.media)


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """What a client asked for, whatever its dialect."""

    request_id: str
    model: str
    prompt: Conversation | Completion
    options: Mapping[str, object] = field(default_factory=dict)
    options_path: str = "options."
    """Where the options stand in the client's request, for errors."""
    keep_alive: float | None = None
    """Seconds the model stays loaded afterwards; None leaves it to the configuration."""
    thinking: bool | None = None
    effort: str | None = None
    """How hard to think, in the word that the model's template may know."""
    thinking_field: str = "think"
    """Where the wish for thinking stands in the client's request."""
    effort_field: str = ""
    """Where the effort stands, when it is in a place of its own."""
    may_think_in_vain: bool = False
    """Whether a wish for thinking is let go where the model cannot; otherwise it is an error."""
    tool_use: ToolUse = ToolUse.AUTO
    named_tool: str | None = None
    parallel_calls: bool | None = None
    truncate: bool = False
    shift: bool = False
    constraint: Constraint | None = None
    logit_bias: tuple[tuple[int, float], ...] = ()
    logprobs: int | None = None
    """Alternatives to tell with each token; None: no log-probabilities."""
    priority: Priority = Priority.INTERACTIVE
    cache_scope: str = ""
    """Whose requests this one may share computed prefixes with; never chosen by a client."""
    echo: bool = False
    """Begin the answer with the prompt."""
    receipt: bool = False
    """Tell with the answer what it was made with."""
    variant: int = 0
    """Added to the seed, so that several answers to one request differ and come again."""

    @property
    def is_empty(self) -> bool:
        """Nothing to answer: the model is only to be loaded or unloaded."""
        if isinstance(self.prompt, Conversation):
            return not self.prompt.messages
        return self.prompt.is_empty


class Generation:
    """The events of one answer, the first of which has arrived.

    Iterating gives the answer's events and ends with a Finished; a Failed is given as an event like
    the others. `aclose` cancels what is still running and gives the model back; it may be called
    at any time and more than once, and must be called in the end.
    """

    def __init__(self, plan: _Plan, lease: Lease, stream: EventStream, first: ChatEvent, request_id: str) -> None:
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
        plan = await asyncio.to_thread(self._plan, call)
        lease = await self._supervisor.lease(plan.spec, keep_alive=call.keep_alive)
        try:
            plan = _settled(plan, lease.loaded)
            # Clients choose request ids, and may choose one twice.
            stream = lease.generate(f"{call.request_id}#{next(self._numbers)}", plan.request)
            first = await anext(stream)
            if isinstance(first, Failed):
                raise self._with_room(ReportedError(first.code, first.message, first.facts), plan.spec)
            return Generation(plan, lease, stream, first, call.request_id)
        except BaseException:
            lease.release()
            raise

    async def check(self, call: Call) -> tuple[ChatRequest, tuple[str, ...]]:
        """What would be asked of the model, and the fields that have no effect; nothing is loaded.

        Raises as `open` for what is wrong with the call itself.
        """
        plan = await asyncio.to_thread(self._plan, call)
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
        plans = await asyncio.to_thread(lambda: [self._plan(call) for call in calls])
        lease = await self._supervisor.lease(plans[0].spec, keep_alive=calls[0].keep_alive)
        try:
            first = _settled(plans[0], lease.loaded)
            streams = [
                lease.generate(f"{call.request_id}#{next(self._numbers)}", plan.request)
                for call, plan in zip(calls, plans, strict=True)
            ]
            choices = Choices(first.model, first.request, first.ignored, lease, streams, calls[0].request_id)
        except BaseException:
            lease.release()
            raise
        try:
            await choices.begin()
        except ReportedError as error:
            await choices.aclose()
            raise self._with_room(error, first.spec) from None
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
        plan = await asyncio.to_thread(self._plan, call)
        request = msgspec.structs.replace(plan.request, is_render=True)
        async with await self._supervisor.lease(plan.spec, keep_alive=call.keep_alive) as lease:
            event = await anext(lease.generate(f"{call.request_id}#{next(self._numbers)}", request))
        if isinstance(event, Failed):
            raise self._with_room(ReportedError(event.code, event.message, event.facts), plan.spec)
        assert isinstance(event, Rendered)
        return event, plan.ignored

    async def load(self, call: Call) -> tuple[str, ...]:
        """Load the model of an empty call and leave it loaded; the options that had no effect."""
        plan = await asyncio.to_thread(self._plan, call)
        async with await self._supervisor.lease(plan.spec, keep_alive=call.keep_alive) as lease:
            return _settled(plan, lease.loaded).ignored

    async def unload(self, call: Call) -> None:
        """Let the model go as soon as its running requests have ended."""
        model = await asyncio.to_thread(find_model, self._store, call.model)
        await self._supervisor.unload(str(model.model_digest))

    def _with_room(self, error: ReportedError, spec: ModelSpec) -> ReportedError:
        """The error; if a window was too small, with the largest that there is memory for, which is known here."""
        if error.code != ContextLengthExceeded.code:
            return error
        for row in self._supervisor.status():
            if row.spec.weights_digest == spec.weights_digest and row.loaded is not None:
                largest = row.largest_context or row.loaded.reach
                return ReportedError(error.code, error.message, {**error.facts, "largest_context_length": largest})
        return error

    def _plan(self, call: Call) -> _Plan:
        model = find_model(self._store, call.model)
        model.verify_unchanged()
        check_requirement(model.config.required_puna)
        if "completion" not in model.capabilities() and not call.is_empty:  # any model can be loaded
            task = "chat" if isinstance(call.prompt, Conversation) else "generate"
            raise Unsupported(f'"{call.model}" does not support {task}', field="model")
        metadata = model.metadata()
        options = resolve_options(
            model={**self._settings.worker.model_options, **model.parameters},
            config=self._settings.model(model.name.short).options,
            request=call.options,
            training_context=metadata.context_length,
            request_path=call.options_path,
        )
        adapters = adapters_of(model, options.lora_scales, f"{call.options_path}lora_scales")
        draft, draft_field = self._draft(model, options, call)
        _check_media(call, model)
        call, vain = _possible_thinking(call, model)
        prompt, unused = _prompt(call, model)
        sampling = options.sampling
        if sampling.seed is not None and call.variant:
            sampling = dataclasses.replace(sampling, seed=(sampling.seed + call.variant) % _SEEDS)
        request = ChatRequest(
            prompt,
            sampling,
            Limits(
                num_predict=options.num_predict,
                num_ctx=options.num_ctx,
                truncate=call.truncate,
                shift=call.shift,
                num_keep=options.num_keep,
                num_draft=options.draft_num_predict,
                uses_draft_model=draft is not None,
            ),
            options.stop,
            (isinstance(call.prompt, Completion) and call.prompt.context) or (),
            wants_context=isinstance(call.prompt, Completion) and not call.prompt.raw,
            constraint=call.constraint,
            logit_bias=call.logit_bias,
            logprobs=call.logprobs,
            echo=call.echo,
            tool_use=call.tool_use,
            named_tool=call.named_tool,
            parallel_calls=call.parallel_calls,
            priority=call.priority,
            cache_scope=call.cache_scope,
            deterministic=options.deterministic,
            adapters=adapters,
        )
        ignored = (*options.ignored, *unused, *vain)
        return _Plan(model, model_spec(model, options, draft), request, ignored, draft_field)

    def _draft(self, model: StoredModel, options: Resolved, call: Call) -> tuple[DraftWish | None, str]:
        """The draft model that is wanted, and what named it. Raises ModelNotFound, Unsupported, or as loading does."""
        if options.draft_model is None:
            return own_draft(model), ""
        if not options.draft_model:
            return None, ""
        field = f"{call.options_path}draft_model" if call.options.get("draft_model") else "PARAMETER draft_model"
        return named_draft(find_model(self._store, options.draft_model), field), field


def find_model(store: ModelStore, name: str) -> StoredModel:
    """The installed model of that name. Raises InvalidRequest or ModelNotFound; reads files."""
    if not name.strip():
        raise InvalidRequest("model is required", "model")
    try:
        parsed = ModelName.parse(name)
    except InvalidName as error:
        raise InvalidRequest(f"invalid model name: {error.message}", "model") from None
    try:
        return store.find(parsed)
    except ModelNotFound:
        raise NoSuchModel(f"model '{name}' not found, try pulling it first", model=name) from None


@dataclass(frozen=True, slots=True)
class _Plan:
    """A call, resolved: what is loaded and what is asked of it."""

    model: StoredModel
    spec: ModelSpec
    request: ChatRequest
    ignored: tuple[str, ...]
    draft_field: str = ""
    """What named its draft model; empty for one that came with the model."""


def _check_media(call: Call, model: StoredModel) -> None:
    """Raise Unsupported for what the model cannot take, before it is loaded for that."""
    if isinstance(call.prompt, Conversation):
        media = [medium for message in call.prompt.messages for medium in message.media]
    else:
        media = list(call.prompt.media)
    abilities = model.capabilities() if media else ()
    for medium in media:
        ability = "vision" if medium.kind is MediaKind.IMAGE else "audio"
        if ability not in abilities:
            raise Unsupported(
                f'"{call.model}" does not support {ability}; models that do have it among the capabilities '
                "that `puna show` tells, and come with a projector.",
                field=medium.field,
            )


def _settled(plan: _Plan, loaded: LoadedModel) -> _Plan:
    """The plan, now that the model is loaded. Raises Unsupported for a draft model that was named and does not fit it.

    One that only came with the model is left out, and that is told.
    """
    if not loaded.draft_failure or plan.spec.wishes.draft is None:
        return plan
    if plan.draft_field:
        raise Unsupported(loaded.draft_failure, field=plan.draft_field)
    return dataclasses.replace(plan, ignored=(*plan.ignored, "DRAFT"))


def _possible_thinking(call: Call, model: StoredModel) -> tuple[Call, tuple[str, ...]]:
    """The call without thinking where the model has none, and what was let go."""
    if not (call.thinking or call.effort):
        return call, ()
    if "thinking" in model.capabilities():
        return call, (call.thinking_field,) if call.thinking and _is_past_thinking(call) else ()
    if call.thinking and not call.may_think_in_vain:
        raise Unsupported(f'"{call.model}" does not support thinking', field=call.thinking_field)
    wishes = {call.thinking_field: call.thinking, call.effort_field or call.thinking_field: call.effort}
    vain = tuple(field for field, wish in wishes.items() if wish)
    return dataclasses.replace(call, thinking=None, effort=None), vain


def _is_past_thinking(call: Call) -> bool:
    """Whether the answer is begun already, so that thoughts would come too late."""
    asked = call.prompt
    return isinstance(asked, Conversation) and asked.continues and bool(asked.messages[-1].content)


def _prompt(
    call: Call, model: StoredModel
) -> tuple[ChatPrompt | TextPrompt | TokenPrompt | InsertPrompt, tuple[str, ...]]:
    """The prompt, and what of the model has no place in it."""
    asked = call.prompt
    if isinstance(asked, Conversation):
        template, unused = own_template(model)
        messages = conversation(model, asked.messages)
        made = ChatPrompt(messages, template, call.thinking, asked.tools, call.effort, continues=asked.continues)
        return made, unused
    if asked.raw:
        if asked.template or asked.system or asked.context is not None:
            raise InvalidRequest("raw mode does not support template, system, or context")
        if asked.suffix:
            raise InvalidRequest("raw mode does not support suffix", "suffix")
        return TokenPrompt(asked.tokens) if asked.tokens else TextPrompt(asked.prompt, asked.media), ()
    template, unused = (asked.template, ()) if asked.template else own_template(model)
    if asked.suffix:
        if not asked.template and (template is None or "insert" not in model.capabilities()):
            # Perhaps the model has tokens for it; the worker knows.
            if asked.media:
                raise Unsupported("A suffix and images do not go together.", field=asked.media[0].field)
            return InsertPrompt(asked.prompt, asked.suffix), ()
        return ChatPrompt(
            (Message("user", asked.prompt, media=asked.media),), template, call.thinking, suffix=asked.suffix
        ), unused
    if template is not None or model.metadata().chat_template:
        return ChatPrompt(_completion(model, asked), template, call.thinking), unused
    if asked.system:
        raise Unsupported(f"{model.name.short} has no chat template that would place a system text.", field="system")
    placeless = {"SYSTEM": model.system, "MESSAGE": model.messages}
    return TextPrompt(asked.prompt, asked.media), (*unused, *(name for name, value in placeless.items() if value))


def _completion(model: StoredModel, completion: Completion) -> tuple[Message, ...]:
    return (
        *system_message(model.system if completion.system is None else completion.system),
        *(own_messages(model) if completion.context is None else ()),
        Message("user", completion.prompt, media=completion.media),
    )
