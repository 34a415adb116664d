"""What is asked of the supervisor, and what it tells of loaded models."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from runner.draft_model import DraftFiles
from runner.loaded_model import LoadChoices, LoadedModel
from runner.messages import Stats


@dataclass(frozen=True, slots=True)
class MemoryFacts:
    """What planning needs to know of a model file; sizes in bytes, windows in tokens."""

    weights: int
    kv_per_token: int
    """KV cache for one token over all layers, in f16."""
    training_context: int
    buffers: int | None = None
    """What it takes to compute, with all caches that do not grow with the window; None: not measured."""


@dataclass(frozen=True, slots=True)
class DraftWish:
    """A model that is to guess what another one will say, and what it needs beside that one."""

    files: DraftFiles
    weights: int
    kv_per_token: int


class LoadWishes(LoadChoices, frozen=True, kw_only=True):
    """What a request needs of the way its model is loaded; None is content with anything."""

    num_ctx: int | None = None
    num_batch: int | None = None
    draft: DraftWish | None = None

    def longest_window(self, training_context: int) -> int:
        """The training context, or what stretching it makes of it."""
        scale = self.rope_frequency_scale
        if self.rope_scaling == "none" or not scale or scale >= 1:
            return training_context
        return int(training_context / scale)


ROPE_WISHES = (
    "rope_scaling",
    "rope_frequency_base",
    "rope_frequency_scale",
    "yarn_orig_ctx",
    "yarn_ext_factor",
    "yarn_beta_fast",
    "yarn_beta_slow",
)
"""These change what a model answers. Whoever does not ask for one wants the model as it was made."""


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """A model to be loaded. Models with the same `weights_digest` share one worker."""

    name: str
    """As `/api/ps` shows it."""
    digest: str
    """Of the manifest, hex without prefix."""
    weights_digest: str
    path: Path
    memory: MemoryFacts
    wishes: LoadWishes = field(default_factory=LoadWishes)
    shards: tuple[Path, ...] = ()
    """The other files of a model that is split, in order."""
    projector: Path | None = None
    """Makes vectors of images and sounds for it."""
    details: dict[str, object] = field(default_factory=dict)
    """The `details` object of /api/tags, shown again by /api/ps."""


class ModelState(enum.StrEnum):
    LOADING = "loading"
    READY = "ready"
    STOPPING = "stopping"


@dataclass(frozen=True, slots=True)
class ModelStatus:
    """One row of `ps`."""

    spec: ModelSpec
    state: ModelState
    loaded: LoadedModel | None
    """None while loading."""
    expires_at: datetime | None
    """Aware, local; None for never."""
    leases: int
    restarts: int
    last_reload_reason: str | None
    stats: Stats | None
    load_fraction: float = 1.0
    """How much of the model is loaded, 0 to 1."""
    largest_context: int = 0
    """How far the window could grow now; 0 while that is not known."""
    planned: int = 0
    """Bytes that are counted for it, wherever they are; 0 while nothing is."""
    planned_vram: int = 0
    """Those of them on GPUs with memory of their own."""
    memory: Mapping[str, int] = field(default_factory=dict)
    """What they are for, in bytes."""
    growths: int = 0
    """How often it has grown since the model was first wanted."""
    grown_at: datetime | None = None
