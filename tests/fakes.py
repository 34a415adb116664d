"""Scripted stand-ins for what the API leans on; they record what they were asked.

`FakeSupervisor` grants real leases on a worker that is only a script, so that back-pressure,
cancelling and the end of streams are the real ones.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from registry.digest import Digest
from registry.errors import ModelNotFound, RegistryError
from registry.finder import Target
from registry.manifest import CONFIG_TYPE, Layer, Manifest, ModelConfig
from registry.name import ModelName
from registry.outdated import Verdict
from registry.progress import Progress
from registry.pull_plan import PullPlan
from registry.search import FoundModel
from registry.sources.model_url import ModelUrl
from runner.chat.types import ChatEvent, ChatRequest, Finished, FinishReason, TextDelta, Truncation, Usage
from runner.errors import RunnerError
from runner.loaded_model import DeviceUse, LoadedModel
from runner.messages import FRAME_HEADER, Cancel, Events, Generate, Pause, Perform, decode_command, encode_frame
from runner.supervisor.client import WorkerClient
from runner.supervisor.lease import Lease
from runner.supervisor.line import Line
from runner.supervisor.suspects import Suspects
from runner.supervisor.types import ModelSpec, ModelStatus
from runner.tasks import Task

PATIENCE = 60.0

LOADED = LoadedModel(
    architecture="llama",
    engine="fake 1",
    context_length=4096,
    training_context=8192,
    max_sequences=16,
    vocabulary=300,
    size=1000,
    size_vram=0,
    layers=3,
    gpu_layers=0,
    devices=(DeviceUse("CPU", "cpu", "a processor", 3, 64_000, 32_000),),
    placement="All 3 layers are on the CPU.",
    threads=2,
    has_chat_template=True,
    can_shift=True,
)


def finished(
    *,
    reason: FinishReason = FinishReason.STOP,
    truncated: Truncation | None = None,
    context: tuple[int, ...] | None = None,
) -> Finished:
    """The end of an answer: nine prompt tokens, four of them cached, and two of text."""
    usage = Usage(9, 4, 2, queued_ns=1_000, prompt_ns=2_000_000, decode_ns=3_000_000)
    return Finished(reason, usage, seed=7, truncated=truncated, context=context)


def answer(*texts: str) -> list[ChatEvent]:
    """A whole answer in these pieces."""
    return [*map(TextDelta, texts), finished()]


Script = Callable[[ChatRequest], Sequence[ChatEvent]]


class FakeSupervisor:
    """Every model is loaded at once; every request is answered by `script`.

    A script that does not end in Finished or Failed leaves its stream open: `send` goes on.
    """

    def __init__(self, script: Script | Sequence[ChatEvent] = ()) -> None:
        self.script: Script = script if callable(script) else lambda _: script
        self.loaded = LOADED
        self.load_ns = 5_000_000
        self.lease_error: Exception | None = None
        self.lease_gate = asyncio.Event()
        """Leases are granted while it is set."""
        self.lease_gate.set()
        self.rows: list[ModelStatus] = []
        self.answering: set[str] = set()

        self.specs: list[ModelSpec] = []
        self.keep_alives: list[float | None] = []
        self.requests: dict[str, ChatRequest] = {}
        """By id, in the order they came."""
        self.tasks: dict[str, Task] = {}
        self.task_script: Callable[[Task], Sequence[ChatEvent]] = lambda _: ()
        self.cancelled: list[str] = []
        self.paused: list[str] = []
        self.unloaded: list[str] = []
        self.evicted: list[tuple[str, RunnerError]] = []
        self.given_up_leases = 0
        self.open_leases: set[Lease] = set()
        self._something_happened = asyncio.Event()
        self._client = WorkerClient(self._take, lambda report: None, lambda: 0.0)
        self._line = Line("m:latest", Suspects())
        self._line.found(self._client)

    # --- what the API calls --------------------------------------------------------------------

    async def lease(self, spec: ModelSpec, *, keep_alive: float | None = None) -> Lease:
        self.specs.append(spec)
        self.keep_alives.append(keep_alive)
        self._note()
        try:
            await self.lease_gate.wait()
        except asyncio.CancelledError:
            self.given_up_leases += 1
            self._note()
            raise
        if self.lease_error is not None:
            raise self.lease_error
        lease = Lease(self._line, self.loaded, self.load_ns, self._release)
        self.open_leases.add(lease)
        return lease

    async def unload(self, weights_digest: str) -> bool:
        self.unloaded.append(weights_digest)
        return True

    async def evict(self, weights_digest: str, error: RunnerError) -> bool:
        self.evicted.append((weights_digest, error))
        self.answering.discard(weights_digest)
        return True

    def status(self) -> list[ModelStatus]:
        return self.rows

    def is_answering(self, weights_digest: str) -> bool:
        return weights_digest in self.answering

    # --- what tests call -----------------------------------------------------------------------

    @property
    def request(self) -> ChatRequest:
        """The only request there was."""
        (request,) = self.requests.values()
        return request

    def send(self, *events: ChatEvent) -> None:
        """More events for the latest request."""
        self.send_to(list(self.requests)[-1], *events)

    def send_to(self, request_id: str, *events: ChatEvent) -> None:
        self._client.feed(encode_frame(Events([(request_id, event) for event in events])))

    async def until(self, condition: Callable[[FakeSupervisor], object]) -> None:
        """Wait until what was recorded fulfils a condition."""
        async with asyncio.timeout(PATIENCE):
            while not condition(self):
                self._something_happened.clear()
                await self._something_happened.wait()

    def _take(self, frame: bytes) -> None:
        command = decode_command(frame[FRAME_HEADER.size :])
        if isinstance(command, Generate):
            self.requests[command.request_id] = command.request
            self.send(*self.script(command.request))
        elif isinstance(command, Perform):
            self.tasks[command.request_id] = command.task
            self.send_to(command.request_id, *self.task_script(command.task))
        elif isinstance(command, Cancel):
            self.cancelled.append(command.request_id)
        elif isinstance(command, Pause):
            self.paused.append(command.request_id)
        self._note()

    def _release(self, lease: Lease) -> None:
        self.open_leases.discard(lease)
        self._note()

    def _note(self) -> None:
        self._something_happened.set()


@dataclass
class FakeFinder:
    """Finds nothing, and keeps what it was told to look for and to remember."""

    sought: list[ModelName | ModelUrl] = field(default_factory=list)
    remembered: list[Target] = field(default_factory=list)
    begun: ModelUrl | None = None
    """Where every pull that broke off was fetching from."""

    async def begun_from(self, name: ModelName) -> ModelUrl | None:
        return self.begun

    def find(self, source: ModelName | ModelUrl, *, insecure: bool = False) -> object:
        self.sought.append(source)
        return object()

    async def remember(self, target: Target, fetched_at: datetime) -> None:
        self.remembered.append(target)

    def search_catalog(self, text: str) -> list[FoundModel]:
        return []

    async def search_hub(self, text: str, limit: int, seconds: float) -> list[FoundModel]:
        return []

    async def check(self, names: Sequence[ModelName], seconds: float) -> list[Verdict]:
        return []


@dataclass
class FakePuller:
    """Tells `steps`, then raises `error` if there is one; waits for `gate` before each step but the first."""

    steps: Sequence[Progress] = (Progress("pulling manifest"), Progress("success"))
    error: Exception | None = None
    gate: asyncio.Event | None = None
    pulled: list[ModelName] = field(default_factory=list)
    insecure: list[ModelName] = field(default_factory=list)
    """Those of them that may be asked for without protection."""
    begun: asyncio.Event = field(default_factory=asyncio.Event)
    stopped: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when a pull has ended, in whatever way."""

    async def pull(
        self, name: ModelName, *, insecure: bool = False, find: object = None, source: str | None = None
    ) -> AsyncGenerator[Progress, None]:
        self.pulled.append(name)
        self.insecure += [name] if insecure else []
        self.begun.set()
        try:
            for index, step in enumerate(self.steps):
                if index and self.gate is not None:
                    await self.gate.wait()
                yield step
            if self.error is not None:
                raise self.error
        finally:
            self.stopped.set()

    async def plan(self, name: ModelName, *, insecure: bool = False, find: object = None) -> PullPlan:
        return PullPlan(name, (), free=10**9, keep_free=0)

    def processes(self, name: ModelName) -> list[int]:
        return []

    def end(self, name: ModelName) -> list[int]:
        return []


class FakePusher(FakePuller):
    """The same, the other way round."""

    def push(self, name: ModelName, *, insecure: bool = False) -> AsyncGenerator[Progress, None]:
        return self.pull(name, insecure=insecure)


@dataclass
class FakeTensor:
    name: str
    type_name: str
    shape: tuple[int, ...]


@dataclass
class FakeMetadata:
    """What a small model's file would tell."""

    chat_template: str | None = "{% for m in messages %}{{ m.content }}{% endfor %}"
    architecture: str = "llama"
    context_length: int = 8192
    weights_size: int = 1000
    parameter_count: int = 135_000_000
    values: Mapping[str, object] = field(
        default_factory=lambda: {
            "general.architecture": "llama",
            "general.name": "not shown",
            "llama.context_length": 8192,
            "tokenizer.chat_template": "not shown",
            "tokenizer.ggml.tokens": ["a", "b"],
        }
    )
    tensors: tuple[FakeTensor, ...] = (FakeTensor("output.weight", "Q4_1", (64, 300)),)

    def kv_bytes_per_token(self) -> int:
        return 10


@dataclass
class FakeModel:
    """An installed model with whatever a test wants it to have."""

    name: ModelName = field(default_factory=lambda: ModelName.parse("m"))
    digest: str = "ab" * 32
    size: int = 1234
    modified_at: datetime = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    model_path: Path = Path("blobs") / f"sha256-{'cd' * 32}"
    model_digest: Digest = field(default_factory=lambda: Digest.parse(f"sha256:{'cd' * 32}"))
    system: str | None = None
    template: str | None = None
    parameters: dict[str, Any] = field(default_factory=dict)
    messages: list[tuple[str, str]] = field(default_factory=list)
    licenses: list[str] = field(default_factory=list)
    config: ModelConfig = field(default_factory=ModelConfig)
    can: tuple[str, ...] = ("completion",)
    header: FakeMetadata = field(default_factory=FakeMetadata)
    damage: RegistryError | None = None
    adapters: tuple[object, ...] = ()
    projectors: tuple[Layer, ...] = ()
    projector_path: Path | None = None
    weights: tuple[Layer, ...] = ()
    store: Any = None
    """What its files are asked of, where a test needs that."""
    damaged_in_place: tuple[Digest, ...] = ()
    manifest: Manifest = field(
        default_factory=lambda: Manifest(Layer(CONFIG_TYPE, Digest.parse(f"sha256:{'ef' * 32}"), 2), ())
    )

    @property
    def model_paths(self) -> tuple[Path, ...]:
        return (self.model_path,)

    @property
    def is_damaged(self) -> bool:
        return self.damage is not None

    def metadata(self) -> FakeMetadata:
        return self.header

    def capabilities(self) -> tuple[str, ...]:
        return self.can

    def details(self) -> dict[str, object]:
        if self.damage is not None:
            raise self.damage
        return {
            "parent_model": "",
            "format": "gguf",
            "family": "llama",
            "families": ["llama"],
            "parameter_size": "135M",
            "quantization_level": "Q4_1",
        }

    def verify_unchanged(self) -> None:
        if self.damage is not None:
            raise self.damage


class FakeStore:
    """A store without files."""

    def __init__(self, *models: FakeModel) -> None:
        self.stored = {model.name.folded: model for model in models}
        self.root = Path("store that is not there")

    def models(self) -> list[FakeModel]:
        return list(self.stored.values())

    def find(self, name: ModelName) -> FakeModel:
        if name.folded not in self.stored:
            raise ModelNotFound(f"{name.short} is not here")
        return self.stored[name.folded]

    def copy(self, source: ModelName, destination: ModelName) -> None:
        self.stored[destination.folded] = dataclasses.replace(self.find(source), name=destination)

    def delete(self, name: ModelName) -> None:
        del self.stored[self.find(name).name.folded]

    def check_own(self, name: ModelName) -> None:
        self.find(name)
