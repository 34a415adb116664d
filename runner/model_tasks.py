"""Tasks of models besides answers: find the model, have it loaded, and put together what its worker tells."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field

from registry.store import ModelStore
from registry.stored_model import StoredModel
from runner.chat.types import ChatEvent, Failed
from runner.errors import EngineCrashed, ReportedError, Unsupported
from runner.model_lookup import usable_model
from runner.model_spec import model_spec, options_of
from runner.options import Resolved, load_option_names
from runner.settings import Settings
from runner.supervisor.supervisor import Supervisor
from runner.supervisor.types import ModelSpec
from runner.tasks import (
    Detokenized,
    DetokenizeTask,
    EmbedTask,
    Encoded,
    RerankTask,
    ShortenedInput,
    Task,
    Tokenized,
    TokenizeTask,
    Vectors,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskCall:
    """Which model a client wants for a task, and how."""

    request_id: str
    model: str
    options: Mapping[str, object] = field(default_factory=dict)
    options_path: str = "options."
    keep_alive: float | None = None
    """Seconds the model stays loaded afterwards; None leaves it to the configuration."""


@dataclass(frozen=True, slots=True)
class Encodings:
    """Vectors of inputs, in their order, as little-endian 32-bit floats; of documents, one number each."""

    model: StoredModel
    vectors: list[bytes]
    prompt_tokens: int
    shortened: tuple[ShortenedInput, ...]
    load_ns: int
    ignored: tuple[str, ...]


class ModelTasks:
    """Runs tasks on the models of one store. Cancelling a call gives everything back."""

    def __init__(self, store: ModelStore, supervisor: Supervisor, settings: Settings) -> None:
        self._store = store
        self._supervisor = supervisor
        self._settings = settings
        self._numbers = itertools.count(1)

    async def embed(
        self,
        call: TaskCall,
        inputs: Sequence[str | tuple[int, ...]],
        *,
        truncate: bool = False,
        dimensions: int | None = None,
        keeps_length: Sequence[str] = (),
    ) -> Encodings:
        """A vector of each input, one long, except from models of the architectures that `keeps_length` names.

        Raises RunnerError and RegistryError.
        """
        plan = await asyncio.to_thread(self._plan, call)
        if "rerank" in plan.model.capabilities():
            raise Unsupported(f'"{call.model}" scores documents and makes no embeddings.', field="model")
        task = EmbedTask(
            tuple(inputs),
            truncate=truncate,
            normalize=plan.model.metadata().architecture not in keeps_length,
            dimensions=dimensions,
            num_ctx=plan.options.num_ctx,
        )
        return await self._encode(call, plan, task, len(inputs))

    async def rerank(
        self, call: TaskCall, query: str, documents: Sequence[str], *, truncate: bool = False
    ) -> Encodings:
        """How well each document answers the query, from 0 to 1. Raises as `embed`."""
        plan = await asyncio.to_thread(self._plan, call)
        if "rerank" not in plan.model.capabilities():
            raise Unsupported(
                f'"{call.model}" has no head that scores documents; use a reranking model.', field="model"
            )
        task = RerankTask(query, tuple(documents), truncate=truncate, num_ctx=plan.options.num_ctx)
        return await self._encode(call, plan, task, len(documents))

    async def tokenize(
        self, call: TaskCall, content: str, *, add_special: bool, parse_special: bool
    ) -> tuple[int, ...]:
        """The tokens of a text. Raises as `embed`."""
        event = await self._one(call, TokenizeTask(content, add_special, parse_special))
        assert isinstance(event, Tokenized)
        return event.tokens

    async def detokenize(self, call: TaskCall, tokens: Sequence[int]) -> str:
        """The text of tokens. Raises as `embed`."""
        event = await self._one(call, DetokenizeTask(tuple(tokens)))
        assert isinstance(event, Detokenized)
        return event.content

    async def _encode(self, call: TaskCall, plan: _Plan, task: EmbedTask | RerankTask, count: int) -> Encodings:
        vectors = [b""] * count
        async with await self._supervisor.lease(plan.spec, keep_alive=call.keep_alive) as lease:
            stream = lease.perform(self._name(call), task)
            async for event in _events(stream):
                if isinstance(event, Vectors):
                    for index, data in event.items:
                        vectors[index] = data
                elif isinstance(event, Encoded):
                    return Encodings(
                        plan.model, vectors, event.prompt_tokens, event.shortened, lease.load_ns, plan.ignored
                    )
        raise EngineCrashed("The answer broke off.")

    async def _one(self, call: TaskCall, task: Task) -> ChatEvent:
        plan = await asyncio.to_thread(self._plan, call)
        async with await self._supervisor.lease(plan.spec, keep_alive=call.keep_alive) as lease:
            return await anext(_events(lease.perform(self._name(call), task)))

    def _name(self, call: TaskCall) -> str:
        # Clients choose request ids, and may choose one twice.
        return f"{call.request_id}#t{next(self._numbers)}"

    def _plan(self, call: TaskCall) -> _Plan:
        model = usable_model(self._store, call.model)
        options = options_of(model, self._settings, call.options, call.options_path)
        if model.adapters:
            raise Unsupported(
                f"{model.name.short} has LoRA adapters, and vectors are made without them; name the model that it was "
                "made from.",
                field="model",
            )
        vain = tuple(f"{call.options_path}{name}" for name in call.options if name not in load_option_names())
        given = tuple(name for name in options.ignored if name.startswith(call.options_path))
        return _Plan(model, model_spec(model, options), options, tuple(dict.fromkeys((*given, *vain))))


@dataclass(frozen=True, slots=True)
class _Plan:
    model: StoredModel
    spec: ModelSpec
    options: Resolved
    ignored: tuple[str, ...]


async def _events(stream: AsyncIterator[ChatEvent]) -> AsyncIterator[ChatEvent]:
    """The events of a task; raises what it failed with."""
    async for event in stream:
        if isinstance(event, Failed):
            raise ReportedError(event.code, event.message, event.facts)
        yield event
