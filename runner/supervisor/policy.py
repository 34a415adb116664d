"""What the supervisor decides, as functions of values: reload, make room, refuse, restart."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import msgspec

from runner.loaded_model import LoadChoices, LoadedModel, LoadOptions
from runner.supervisor.memory import Holding, MemoryPlan, Room, clamp_window
from runner.supervisor.types import ROPE_WISHES, LoadWishes

RESTART_DELAYS = (0.0, 0.5, 1.0, 2.0, 5.0)
STABLE_AFTER_SECONDS = 60.0
"""A worker that lived so long has not been restarted in vain: its next crash counts as a first one."""

_LARGER_WINS = ("num_ctx", "num_batch")
_DEFAULTS: Mapping[str, object] = {
    "use_mlock": False,
    "split_mode": "layer",
    "num_cpu_moe": 0,
    "kv_cache_type": "f16",
    "flash_attention": "auto",
    "tensor_split": None,
}
"""What the engine does of itself, and what a wish for it need not load anything again."""


@dataclass(frozen=True, slots=True)
class Occupant:
    """A model in memory, as far as making room is concerned."""

    key: str
    holding: Holding
    is_idle: bool
    """Nobody uses it and nobody waits for it."""
    is_leaving: bool
    last_used: int
    """The larger, the later."""


@dataclass(frozen=True, slots=True)
class Fits:
    """Load now."""


@dataclass(frozen=True, slots=True)
class Evict:
    """Unload these idle models; then there is room."""

    keys: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Wait:
    """There is room once these are gone: they leave already, or are still used."""

    keys: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Refuse:
    """It does not fit even alone."""

    room: Room
    """Of the empty house."""


LoadDecision = Fits | Evict | Wait | Refuse


def make_room(needed: int, room: Room, occupants: Sequence[Occupant], *, uses_gpu: bool = True) -> LoadDecision:
    """Choose what has to go for `needed` bytes, if anything.

    Idle models go first, least recently used first, only as many as it takes, and none when
    that would not be enough. A model that fits on the GPUs gets its place there by evicting idle
    ones; nobody waits for a busy model while the machine's own memory would do.
    """
    if room.vram is None:
        return Fits()
    by_use = sorted(occupants, key=lambda occupant: occupant.last_used)
    leaving = [occupant for occupant in by_use if occupant.is_leaving]
    idle = [occupant for occupant in by_use if occupant.is_idle and not occupant.is_leaving]
    busy = [occupant for occupant in by_use if not occupant.is_idle and not occupant.is_leaving]

    pools: list[tuple[int, Callable[[Holding], int]]] = [(room.ram, _in_ram)]
    if uses_gpu:
        pools = [(room.vram, _in_vram), (room.ram + room.vram, _in_both)]
    for free, share in pools:
        gone = _enough(needed - free, leaving, idle, share)
        if gone is not None:
            evicted = tuple(occupant.key for occupant in gone if occupant.is_idle and not occupant.is_leaving)
            if evicted:
                return Evict(evicted)
            return Wait(tuple(occupant.key for occupant in gone)) if gone else Fits()
    free, share = pools[-1]
    gone = _enough(needed - free, [*leaving, *idle], busy, share)
    if gone is not None:
        return Wait(tuple(occupant.key for occupant in gone if occupant.is_leaving or not occupant.is_idle))
    return Refuse(
        Room(
            ram=room.ram + sum(occupant.holding.ram for occupant in occupants),
            vram=room.vram + sum(occupant.holding.vram for occupant in occupants) if uses_gpu else 0,
        )
    )


def merge_wishes(first: LoadWishes, *others: LoadWishes) -> LoadWishes:
    """The union: the largest window and batch anyone wants; of the rest, the first one's wish counts."""
    merged = first
    for other in others:
        for name in LoadWishes.__struct_fields__:
            mine, theirs = getattr(merged, name), getattr(other, name)
            if name in ROPE_WISHES:
                continue
            if theirs is not None and (mine is None or (name in _LARGER_WINS and theirs > mine)):
                merged = msgspec.structs.replace(merged, **{name: theirs})
    return merged


def includes(union: LoadWishes, wishes: LoadWishes) -> bool:
    """Whether a load made for `union` serves `wishes` as well."""
    for name in LoadWishes.__struct_fields__:
        whole, wish = getattr(union, name), getattr(wishes, name)
        if whole == wish or (wish is None and name not in ROPE_WISHES):
            continue
        if whole is None or name not in _LARGER_WINS or whole < wish:
            return False
    return True


def load_options(wishes: LoadWishes, plan: MemoryPlan, max_sequences: int) -> LoadOptions:
    """How the worker is told to load the model."""
    defaults = LoadOptions(context_length=plan.context_length, max_sequences=max_sequences)
    return LoadOptions(
        context_length=plan.context_length,
        longest_context=plan.longest,
        max_sequences=max_sequences,
        num_batch=defaults.num_batch if wishes.num_batch is None else wishes.num_batch,
        draft=None if wishes.draft is None else wishes.draft.files,
        **{name: getattr(wishes, name) for name in LoadChoices.__struct_fields__},
    )


def reload_reason(options: LoadOptions, loaded: LoadedModel, wishes: LoadWishes) -> str | None:
    """Why a model must be loaded again to serve `wishes`, in one sentence; None when it serves them as it is."""
    if wishes.num_ctx is not None:
        window = clamp_window(wishes.num_ctx, wishes.longest_window(loaded.training_context))
        if window > max(loaded.reach, options.context_length):
            return f"a request asked for a window of {window} tokens, and {loaded.reach} is as far as it grows"
    if wishes.num_batch is not None and wishes.num_batch > options.num_batch:
        return f"a request asked for num_batch {wishes.num_batch}, and {options.num_batch} was loaded"
    if wishes.num_gpu is not None and not _serves_num_gpu(options, loaded, wishes.num_gpu):
        return f"a request asked for num_gpu {wishes.num_gpu}, and {loaded.gpu_layers} layers were on the GPU"
    # Left to itself the engine takes GPU 0, its own number of threads, and maps the file.
    main_gpu = options.main_gpu or 0
    if wishes.main_gpu is not None and wishes.main_gpu != main_gpu and _knows_gpus(options, loaded):
        return f"a request asked for main_gpu {wishes.main_gpu}, and {main_gpu} was loaded"
    threads = options.num_thread or loaded.threads
    if wishes.num_thread is not None and wishes.num_thread != threads:
        return f"a request asked for num_thread {wishes.num_thread}, and {threads} were in use"
    maps = options.use_mmap is not False
    if wishes.use_mmap is not None and wishes.use_mmap != maps:
        return f"a request asked for use_mmap {str(wishes.use_mmap).lower()}"
    return _other_reason(options, loaded, wishes)


def _other_reason(options: LoadOptions, loaded: LoadedModel, wishes: LoadWishes) -> str | None:
    for name, default in _DEFAULTS.items():
        wished, has = getattr(wishes, name), getattr(options, name)
        has = default if has is None else has
        if wished is None or wished == has:
            continue
        if name in ("split_mode", "tensor_split", "num_cpu_moe") and not _knows_gpus(options, loaded):
            continue
        return f"a request asked for {name} {_shown(wished)}, and {_shown(has)} was loaded"
    draft, wished_draft = options.draft, wishes.draft and wishes.draft.files
    if wished_draft and (draft is None or draft.digest != wished_draft.digest) and loaded.generates:
        has = "none" if draft is None else draft.name
        return f"a request asked for the draft model {wished_draft.name}, and {has} was loaded"
    for name in ROPE_WISHES if loaded.generates else ():
        wished, has = getattr(wishes, name), getattr(options, name)
        if wished != has:
            return f"a request asked for {name} {_shown(wished)}, and {_shown(has)} was loaded"
    return None


def _shown(value: object) -> str:
    if isinstance(value, tuple):
        return ",".join(f"{one:g}" for one in value)
    return "the model's own" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def restart_delay(crashes: int) -> float:
    """Seconds to wait before starting a worker again after so many crashes in a row."""
    return 0.0 if crashes <= 0 else RESTART_DELAYS[min(crashes, len(RESTART_DELAYS)) - 1]


def crashes_in_a_row(crashes: int, lived_seconds: float) -> int:
    """The count after one more crash of a worker that lived so long."""
    return 1 if lived_seconds >= STABLE_AFTER_SECONDS else crashes + 1


def _knows_gpus(options: LoadOptions, loaded: LoadedModel) -> bool:
    """Whether there are GPUs, or might be: a load that was told to use none saw none."""
    return options.num_gpu == 0 or any(device.kind != "cpu" for device in loaded.devices)


def _serves_num_gpu(options: LoadOptions, loaded: LoadedModel, num_gpu: int) -> bool:
    if num_gpu == options.num_gpu or not _knows_gpus(options, loaded):
        return True
    wanted = loaded.layers if num_gpu < 0 else min(num_gpu, loaded.layers)
    return wanted == loaded.gpu_layers


def _enough(
    missing: int, always: Sequence[Occupant], then: Sequence[Occupant], share: Callable[[Holding], int]
) -> list[Occupant] | None:
    """The occupants whose leaving frees `missing` bytes: all of `always`, and of `then` as many as it takes."""
    if missing <= 0:
        return []
    gone = list(always)
    missing -= sum(share(occupant.holding) for occupant in always)
    for occupant in then:
        if missing <= 0:
            break
        if share(occupant.holding) > 0:
            gone.append(occupant)
            missing -= share(occupant.holding)
    return gone if missing <= 0 else None


def _in_ram(holding: Holding) -> int:
    return holding.ram


def _in_vram(holding: Holding) -> int:
    return holding.vram


def _in_both(holding: Holding) -> int:
    return holding.ram + holding.vram
