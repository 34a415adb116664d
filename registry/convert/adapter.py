"""Turns a LoRA adapter as PEFT publishes it into a GGUF file, for a model that is here as GGUF already."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import gguf
import numpy as np

from registry.convert.checkpoint import Array, StoredTensor, read_json_file, read_safetensors
from registry.convert.config import Config
from registry.convert.convert import FAMILIES, check_room, to_f32
from registry.convert.family import Family, Target, unknown_tensor
from registry.errors import ModelInvalid, Unsupported

CONFIG_FILE = "adapter_config.json"
_F32_BYTES = 4
_PREFIX = "base_model.model."
_HALF = re.compile(r"(.+)\.(?:lora_([AB])(?:\.default)?\.weight|lora_embedding_([AB])(?:\.default)?)")
_LITERAL = re.compile(r"[A-Za-z0-9_.]+")
_EMBEDDING = "token_embd.weight"
_NOT_BUILT = ("use_dora", "fan_in_fan_out", "layer_replication", "modules_to_save", "target_parameters", "lora_bias")
_NO_BIAS = "none"


@dataclass(frozen=True, slots=True)
class _Pair:
    """The two factors of what is added to one tensor."""

    module: str
    """In the adapter's own words."""
    a: StoredTensor
    b: StoredTensor

    @property
    def rank(self) -> int:
        return self.b.shape[-1]

    @property
    def size(self) -> int:
        return (math.prod(self.a.shape) + math.prod(self.b.shape)) * _F32_BYTES


def convert_adapter(
    folder: Path,
    base: Mapping[str, object],
    output: Path,
    *,
    room: int | None = None,
    on_progress: Callable[[float], None] = lambda _: None,
) -> None:
    """Write the adapter in `folder` to `output`; blocks. The same adapter always gives the same bytes.

    `base` says of the model what its own config.json would (`num_attention_heads`, …), and its architecture's name in
    GGUF as `architecture`. Raises Unsupported, ModelInvalid or DiskFull; what was written is left.
    """
    config = _read_config(folder)
    family = _family_of(base)
    pairs = [(_target(pair, family, Config(base)), pair) for pair in _pairs(folder)]
    total = sum(pair.size for _, pair in pairs)
    check_room("adapter", total, room)
    alpha = _finite(config.number("lora_alpha"))
    writer = gguf.GGUFWriter(output, family.architecture)
    try:
        _describe(pairs, alpha, writer)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        done = 0
        for target, pair in pairs:
            # The engine divides one alpha by each pair's rank; what the adapter says otherwise goes into its numbers.
            factor = _scale(pair, config) / (alpha / pair.rank) if alpha else 0.0
            for factors in _factors(target, pair, factor):
                writer.write_tensor_data(np.ascontiguousarray(factors, dtype=np.float32))
            done += pair.size
            on_progress(done / total)
    finally:
        writer.close()


def _read_config(folder: Path) -> Config:
    values = read_json_file(folder / CONFIG_FILE)
    if values is None:
        raise ModelInvalid(f"The adapter has no {CONFIG_FILE}.")
    config = Config(values, CONFIG_FILE)
    config.require("peft_type", "LORA")
    config.require("bias", _NO_BIAS)
    for name in _NOT_BUILT:
        if values.get(name):
            raise Unsupported(f"{CONFIG_FILE} asks for {name}, which the engine does not have.")
    return config


def _family_of(base: Mapping[str, object]) -> Family:
    for family in FAMILIES:
        if family.architecture == base.get("architecture"):
            return family
    known = ", ".join(family.architecture for family in FAMILIES)
    raise Unsupported(
        f"Adapters in safetensors are converted for {known} models; this one is {base.get('architecture')}."
    )


def _pairs(folder: Path) -> list[_Pair]:
    """Every pair of factors by the name of its module. Raises ModelInvalid or Unsupported for any other tensor."""
    files = sorted(folder.glob("*.safetensors"))
    if len(files) != 1:
        raise ModelInvalid(f"An adapter is one file of safetensors with {CONFIG_FILE}; here are {len(files)}.")
    halves: dict[str, dict[str, StoredTensor]] = {}
    for tensor in read_safetensors(files[0]):
        match = _HALF.fullmatch(tensor.name.removeprefix(_PREFIX))
        if match is None:
            raise Unsupported(f"The adapter's tensor {tensor.name[:80]!a} is no half of a LoRA pair.")
        if len(tensor.shape) != 2 or tensor.dtype == "I64" or 0 in tensor.shape:
            raise ModelInvalid(f"The adapter's tensor {tensor.name[:80]!a} is no matrix.")
        halves.setdefault(match[1], {})[match[2] or match[3]] = tensor
    if not halves:
        raise ModelInvalid("The adapter changes nothing.")
    for module, found in halves.items():
        if len(found) < 2:
            raise ModelInvalid(f"The adapter has only one half of its pair for {module[:80]!a}.")
        if found["A"].shape[0] != found["B"].shape[1]:
            raise ModelInvalid(f"The two halves for {module[:80]!a} have different ranks.")
    return [_Pair(module, found["A"], found["B"]) for module, found in sorted(halves.items())]


def _target(pair: _Pair, family: Family, base: Config) -> Target:
    target = family.place(f"{pair.module}.weight", base)
    if target is None or target.change is not None:
        raise unknown_tensor(pair.module)
    return target


def _describe(pairs: list[tuple[Target, _Pair]], alpha: float, writer: gguf.GGUFWriter) -> None:
    writer.add_type(gguf.GGUFType.ADAPTER)
    writer.add_string(gguf.Keys.Adapter.TYPE, "lora")
    writer.add_float32(gguf.Keys.Adapter.LORA_ALPHA, alpha)
    for target, pair in pairs:
        for half, shape in zip("ab", _shapes(target.name, pair), strict=True):
            writer.add_tensor_info(
                f"{target.name}.lora_{half}", shape, np.dtype(np.float32), math.prod(shape) * _F32_BYTES
            )


def _factors(target: Target, pair: _Pair, factor: float) -> tuple[Array, Array]:
    """The numbers of both halves, the product multiplied with `factor`."""
    a, b = _read(pair.a), _read(pair.b)
    if target.name == _EMBEDDING:
        a = a.T  # rows are looked up in it
    elif target.reorder is not None:
        b = target.reorder(b)
    return a, b * np.float32(factor)


def _shapes(name: str, pair: _Pair) -> tuple[tuple[int, ...], tuple[int, ...]]:
    a = pair.a.shape
    return (a[::-1] if name == _EMBEDDING else a), pair.b.shape


def _scale(pair: _Pair, config: Config) -> float:
    """What the product of the pair is multiplied with."""
    said = _pattern(config, "alpha_pattern", pair.module)
    alpha = _finite(config.number("lora_alpha") if said is None else said)
    return alpha / (math.sqrt(pair.rank) if config.is_true("use_rslora") else pair.rank)


def _pattern(config: Config, name: str, module: str) -> float | None:
    """What is said for one module; the names stand for the end of a module's."""
    table = config.table(name)
    for key in table.names():
        if not _LITERAL.fullmatch(key):
            raise Unsupported(f"{CONFIG_FILE} has the expression {key[:60]!a} in {name}; plain names are read.")
        if module == key or module.endswith(f".{key}"):
            return table.number(key)
    return None


def _finite(alpha: float) -> float:
    if not math.isfinite(alpha):
        raise ModelInvalid(f"{CONFIG_FILE} has an alpha that is no number to compute with.")
    return alpha


def _read(tensor: StoredTensor) -> Array:
    return to_f32(tensor.read(), tensor.dtype)
