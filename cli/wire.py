"""The JSON of the daemon's API, as far as the command line reads it."""

from __future__ import annotations

from typing import Any, TypedDict

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


class RunningModel(TypedDict, total=False):
    """One of `GET /api/ps`."""

    name: str
    digest: str
    size: int
    size_vram: int
    expires_at: str | None
    context_length: int
    state: str


class Message(TypedDict):
    role: str
    content: str


class TensorEntry(TypedDict):
    name: str
    type: str
    shape: list[int]


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
