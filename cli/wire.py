"""The JSON of the daemon's API, as far as the command line reads it."""

from __future__ import annotations

from typing import Any, NotRequired, TypedDict

Json = dict[str, Any]


class Details(TypedDict, total=False):
    format: str
    family: str
    parameter_size: str
    quantization_level: str
    context_length: int
    embedding_length: int


class ModelEntry(TypedDict, total=False):
    """One of `GET /api/tags`."""

    name: str
    digest: str
    size: int
    modified_at: str
    details: Details
    damaged: bool
    damaged_in_place: list[str]
    """Digests of those files that are used where another program keeps them."""


class RunningModel(TypedDict, total=False):
    """One of `GET /api/ps`."""

    name: str
    digest: str
    size: int
    size_vram: int
    expires_at: str | None
    context_length: int
    largest_context_length: int
    """What it can grow to."""
    state: str


class Message(TypedDict):
    role: str
    content: str


class TensorEntry(TypedDict):
    name: str
    type: str
    shape: list[int]


class Fit(TypedDict, total=False):
    """How a model fits the daemon's machine; sizes in bytes."""

    measured: bool
    verdict: str
    placement: str
    weights: int
    kv_cache_per_1k_tokens: int
    compute_buffers: int
    context_length: int
    largest_context_length: int
    needed: int
    kernel: str


class ShowReply(TypedDict, total=False):
    """`POST /api/show`."""

    license: str
    system: str
    template: str
    modelfile: str
    parameters: str
    details: Details
    messages: list[Message]
    model_info: Json
    tensors: list[TensorEntry]
    capabilities: list[str]
    fit: Fit


class FoundModel(TypedDict, total=False):
    """One of `GET /api/search`."""

    name: str
    kind: str
    size: int
    size_is_estimate: bool
    quantizations: list[str]
    fit: str
    license: str
    gated: bool
    installed: list[str]


class HubReply(TypedDict, total=False):
    """Whether the hub was asked, and what came of it."""

    asked: bool
    reached: bool
    error: str


class SearchReply(TypedDict):
    models: list[FoundModel]
    hub: HubReply


class SourceVerdict(TypedDict, total=False):
    """One of `GET /api/outdated`."""

    name: str
    state: str
    reason: str
    source: str


class ProgressRecord(TypedDict, total=False):
    """One line of a pull or a create."""

    status: str
    digest: str
    total: int
    completed: int


class PlannedFile(TypedDict):
    title: str
    type: str
    digest: str | None
    size: int | None
    here: int
    to_fetch: int | None


class PlannedDisk(TypedDict):
    free: int
    keep_free: int
    fits: bool


class PlannedMemory(TypedDict, total=False):
    weights: int
    fit: str
    most_tokens_per_second: float


class PullPlanReply(TypedDict):
    """A pull's answer with `dry_run`."""

    model: str
    files: list[PlannedFile]
    size: int
    to_fetch: int
    disk: PlannedDisk
    memory: PlannedMemory


class FileVerdict(TypedDict):
    digest: str
    size: int
    state: str
    damaged_bytes: int
    models: list[str]
    in_place: NotRequired[bool]
    """It is used where another program keeps it."""


class VerifyRecord(ProgressRecord, total=False):
    """One line of a verification or repair; the verdicts stand in one of its own."""

    models: list[str]
    damaged: int
    files: list[FileVerdict]


class SpeedEntry(TypedDict):
    """Tokens a second with a number of threads."""

    threads: int
    prefill: float
    decode: float


class BestThreads(TypedDict):
    prefill: int
    decode: int


class BenchRecord(ProgressRecord, total=False):
    """One line of a measurement; what was found stands in one of its own."""

    model: str
    type: str
    placement: str
    load_seconds: float
    speeds: list[SpeedEntry]
    best_threads: BestThreads
    kernel: str
    fast_types: list[str]
    also_loaded: list[str]


class GarbageFile(TypedDict, total=False):
    path: str
    bytes: int
    kind: str
    digest: str


class TooYoung(TypedDict):
    files: int
    bytes: int


class GarbageReply(TypedDict):
    dry_run: bool
    files: list[GarbageFile]
    bytes: int
    too_young: TooYoung


class PartialEntry(TypedDict):
    """One of `GET /api/partials`."""

    model: str | None
    size: int | None
    completed: int
    age_seconds: int
    active: bool
    files: list[Json]


class AnswerRecord(TypedDict, total=False):
    """One line of an answer; counts and durations (nanoseconds) stand in the last."""

    response: str
    message: Message
    done: bool
    done_reason: str
    total_duration: int
    load_duration: int
    prompt_eval_count: int
    prompt_eval_duration: int
    eval_count: int
    eval_duration: int
    cached_tokens: int
    truncated: Json
