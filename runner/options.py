"""Merges what the model, the configuration and a request say about one generation."""

from __future__ import annotations

import dataclasses
import difflib
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import msgspec

from registry.errors import RegistryError
from registry.parameters import REMOVED, ParameterValue, check_parameter
from runner.errors import InvalidRequest, RequestError
from runner.sampling import SamplingParams
from runner.supervisor.types import LoadWishes

_SAMPLING = frozenset(field.name for field in dataclasses.fields(SamplingParams))
_WISHES = frozenset(LoadWishes.__struct_fields__) - {"draft"}
_LIMITS = frozenset(
    {"num_predict", "num_keep", "stop", "deterministic", "lora_scales", "draft_num_predict", "draft_model"}
)
_HONOURED = _SAMPLING | _WISHES | _LIMITS

_NOTHING: Mapping[str, object] = {"draft_model": ""}
"""Values that take back what the model or the configuration asks for."""

_WHOLE_PROMPT = 2**31 - 1

_T = TypeVar("_T", SamplingParams, LoadWishes)

_AUTOMATIC: Mapping[str, int] = {"num_gpu": -1, "num_thread": 0}
"""Values that mean the same as leaving the option out."""


@dataclass(frozen=True, slots=True)
class Resolved:
    """The options of one generation, every default applied."""

    sampling: SamplingParams
    num_predict: int
    num_keep: int
    num_ctx: int | None
    """Never more than the model was trained with."""
    stop: tuple[str, ...]
    wishes: LoadWishes
    ignored: tuple[str, ...]
    """What had no effect: removed options, and parts of the model's or the configuration's that cannot apply."""
    deterministic: bool = False
    """Nothing else that runs may change the text."""
    draft_num_predict: int | None = None
    """Most tokens that are guessed ahead at a time; None leaves it to what pays."""
    draft_model: str | None = None
    """The model that guesses ahead; empty: none, not even the one that comes with the model."""
    lora_scales: tuple[float, ...] = ()
    """Of the model's adapters, in order; those that are not here count as 1."""


def resolve_options(
    *,
    model: Mapping[str, ParameterValue],
    config: Mapping[str, object],
    request: Mapping[str, object],
    training_context: int,
    request_path: str = "options.",
    processors: int | None = None,
) -> Resolved:
    """Later sources win: built-in default, model PARAMETER, `[models."NAME"]`, request.

    Raises InvalidRequest for an option of the request or the configuration that is unknown, of the wrong
    type or out of range. A model's own parameters come from
    elsewhere and cannot be mended by the caller: what cannot apply there is listed as ignored.
    `request_path` stands in front of an option's name in errors and in `ignored`. `processors`
    is how many threads may be asked for; None counts those of this machine.
    """
    ignored: list[str] = []
    merged = _model_options(model, ignored)
    merged |= _checked(config, "", ignored, prefix="The configuration of this model is wrong: ")
    merged |= _checked(request, request_path, ignored)
    for name in ("rope_frequency_base", "rope_frequency_scale", "yarn_orig_ctx"):
        if merged.get(name) == 0:
            del merged[name]
    wishes = _picked(merged, LoadWishes)
    if wishes.flash_attention == "off" and wishes.kv_cache_type not in (None, "f16"):
        raise InvalidRequest(
            f"kv_cache_type {wishes.kv_cache_type} needs flash attention; leave flash_attention on or auto.",
            f"{request_path}kv_cache_type",
        )
    longest = wishes.longest_window(training_context)
    # Threads wait for each other in every step: more of them than processors bring a model to a standstill.
    for name, most in (("num_ctx", longest), ("num_thread", processors or os.cpu_count() or 1)):
        if 0 < most < merged.get(name, 0):
            ignored.append(f"{request_path}{name}" if request.get(name) is not None else name)
            merged[name] = most
    for name, automatic in _AUTOMATIC.items():
        if merged.get(name) == automatic:
            del merged[name]
    if merged.get("seed", 0) < 0:
        del merged["seed"]
    return Resolved(
        sampling=_picked(merged, SamplingParams),
        num_predict=max(-1, merged.get("num_predict", -1)),
        num_keep=_WHOLE_PROMPT if merged.get("num_keep", 4) < 0 else merged.get("num_keep", 4),
        num_ctx=merged.get("num_ctx"),
        stop=tuple(dict.fromkeys(merged.get("stop", ()))),
        wishes=_picked(merged, LoadWishes),
        deterministic=bool(merged.get("deterministic", False)),
        draft_num_predict=merged.get("draft_num_predict"),
        draft_model=merged.get("draft_model"),
        ignored=tuple(dict.fromkeys(ignored)),
        lora_scales=tuple(float(scale) for scale in merged.get("lora_scales", ())),
    )


def load_option_names() -> frozenset[str]:
    """Options that decide how a model is loaded, and so have an effect whatever is asked of it."""
    return _WISHES


def check_option(name: str, value: object) -> None:
    """Raises ValueError, which says what is allowed, for an option that a model cannot be given."""
    try:
        _checked({name: value}, "", [])
    except RequestError as error:
        raise ValueError(error.message) from None


def suggestion(name: str, known: Iterable[str]) -> str:
    """The end of a message about an unknown name: what it may have been meant to be, else what there is."""
    ordered = sorted(known)
    # Looking for neighbours takes time and memory in proportion to the name, which a stranger chose.
    near = difflib.get_close_matches(name[:100], ordered, n=3, cutoff=0.7)
    if near:
        return f"did you mean {' or '.join(map(repr, near))}?"
    return f"known are {', '.join(ordered)}."


def _model_options(parameters: Mapping[str, ParameterValue], ignored: list[str]) -> dict[str, Any]:
    options: dict[str, Any] = {}
    for name, value in parameters.items():
        try:
            if name not in _HONOURED:
                raise RegistryError(name)
            options[name] = check_parameter(name, value)
        except RegistryError:
            ignored.append(f"PARAMETER {name}")
    return options


def _checked(options: Mapping[str, object], path: str, ignored: list[str], prefix: str = "") -> dict[str, Any]:
    checked: dict[str, Any] = {}
    for name, value in options.items():
        field = f"{path}{name}"
        if name in REMOVED:
            ignored.append(field)
        elif value is None:
            continue
        elif name in _NOTHING and value == _NOTHING[name]:
            checked[name] = value
        elif name not in _HONOURED:
            shown = field if len(field) <= 100 else f"{field[:100]}…"
            raise InvalidRequest(f"{prefix}The option {shown!r} is unknown; {suggestion(name, _HONOURED)}", shown)
        else:
            checked[name] = _checked_value(name, value, path, prefix)
    return checked


def _checked_value(name: str, value: object, path: str, prefix: str) -> ParameterValue:
    try:
        return check_parameter(name, value)
    except RegistryError as error:
        raise InvalidRequest(f"{prefix}{path}{error.message}", f"{path}{name}") from None


def _picked(options: Mapping[str, Any], kind: type[_T]) -> _T:
    names = _WISHES if kind is LoadWishes else _SAMPLING
    # Lists of numbers are kept as texts.
    return msgspec.convert({name: options[name] for name in names & options.keys()}, kind, strict=False)
