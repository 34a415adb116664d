"""How a model is loaded, and what the engine tells of it then."""

from __future__ import annotations

import enum

import msgspec

from runner.draft_model import DraftFiles


class LoadChoices(msgspec.Struct, frozen=True, kw_only=True):
    """What may be chosen of the way a model is loaded. None leaves the choice to the engine."""

    num_gpu: int | None = None
    """Layers on the GPU: 0 none, None all if they fit, else none."""
    main_gpu: int | None = None
    num_thread: int | None = None
    use_mmap: bool | None = None
    use_mlock: bool | None = None
    split_mode: str | None = None
    """How a model is divided among several GPUs: `none`, `layer` or `row`."""
    tensor_split: tuple[float, ...] | None = None
    """The parts of the GPUs, in proportion."""
    num_cpu_moe: int | None = None
    """The first so many layers keep their experts in the machine's memory."""
    kv_cache_type: str | None = None
    """`f16`, `q8_0` or `q4_0`."""
    flash_attention: str | None = None
    """`auto`, `on` or `off`."""
    rope_scaling: str | None = None
    """`none`, `linear` or `yarn`."""
    rope_frequency_base: float | None = None
    rope_frequency_scale: float | None = None
    yarn_orig_ctx: int | None = None
    yarn_ext_factor: float | None = None
    yarn_beta_fast: float | None = None
    yarn_beta_slow: float | None = None


class LoadOptions(LoadChoices, frozen=True):
    """How a model is loaded."""

    context_length: int
    """KV cells shared by all sequences, and the longest window of one."""
    max_sequences: int = 16
    num_batch: int = 512
    """Most tokens in one step."""
    longest_context: int = 0
    """How far the window may grow later; 0: not at all."""
    draft: DraftFiles | None = None
    """A model that guesses what this one will say."""


class MemoryKind(enum.StrEnum):
    """What can be done with a part of what the engine remembers of a sequence."""

    CELLS = "cells"
    """A cell for each token: any range can be shared, saved, restored and forgotten."""
    STATES = "states"
    """Only the whole, as it is now: recurrent and hybrid models, and those with a sliding window."""


class Pooling(enum.StrEnum):
    """How the vectors of an input's tokens become one."""

    MEAN = "mean"
    CLS = "cls"
    """That of the first token."""
    LAST = "last"
    RANK = "rank"
    """One number: how well a document answers a query."""


class Encoding(msgspec.Struct, frozen=True):
    """How a model makes vectors."""

    pooling: Pooling
    dimensions: int
    window: int
    """Most tokens of one input."""
    is_whole: bool
    """An input cannot be computed in pieces."""


class DeviceUse(msgspec.Struct, frozen=True):
    """A device and what a model uses of it."""

    name: str
    kind: str
    """`cpu`, `gpu` or `igpu`."""
    description: str
    layers: int
    memory_total: int
    memory_free: int
    """Bytes free before the model was loaded."""


class LoadedModel(msgspec.Struct, frozen=True):
    """What the engine tells of a model it has loaded; sizes in bytes, windows in tokens."""

    architecture: str
    engine: str
    """Name and version of the engine's build."""
    context_length: int
    training_context: int
    max_sequences: int
    vocabulary: int
    size: int
    """Weights and caches."""
    size_vram: int
    """The part of `size` that is on GPUs."""
    layers: int
    gpu_layers: int
    devices: tuple[DeviceUse, ...]
    placement: str
    """One sentence: where the layers are and why."""
    threads: int
    """Most that compute; how many do is found while running."""
    has_chat_template: bool
    can_shift: bool
    max_rows: int = 512
    """Most tokens in one step."""
    memory: MemoryKind = MemoryKind.CELLS
    resting_ids: tuple[int, ...] = ()
    """Ids besides those below `max_sequences` that can share and hold cells, not be computed, saved or restored."""
    generates: bool = True
    """False for models that are only there to make vectors."""
    longest_context: int = 0
    """How far the window may grow while memory allows; 0: not at all."""
    has_fixed_threads: bool = False
    """`threads` was asked for: always so many compute."""
    encoding: Encoding | None = None
    """None when the model cannot make vectors."""
    options: LoadOptions | None = None
    """How it was loaded."""
    media: tuple[str, ...] = ()
    """What its projector takes: `image`, `audio`."""
    media_failure: str = ""
    """Why its projector could not be loaded."""
    draft_failure: str = ""
    """Why the draft model it was loaded with cannot be used, in one sentence."""

    @property
    def reach(self) -> int:
        """The longest window that a sequence can ever get."""
        return max(self.context_length, self.longest_context)
