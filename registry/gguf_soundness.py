"""Headers that the format allows and that would end the engine's process: refused before it sees them."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence

from registry.errors import ModelInvalid
from registry.gguf_header import GgufHeader, MetadataValue, TensorInfo, split_of
from registry.gguf_vocabulary import UNKNOWN_TOKEN

MAX_EXPERTS = 1024
_ROPE_SCALINGS = ("none", "linear", "yarn", "longrope")
_NOT_COMPUTED = frozenset({"I8", "I16", "I32", "I64", "F64", "Q8_1", "Q8_K"})
"""Types that no multiplication takes as weights; the last two are for what is computed on the way."""
_FACTORS = ("_norm.weight", ".ssm_a", ".ssm_conv1d.weight", ".shortconv.conv.weight", "token_types.weight")
"""Tensors of several dimensions that are multiplied or added element by element, which is done in F32 only."""
_EVEN_HEADS = frozenset(
    {"falcon", "gptneox", "mpt", "phi2", "phi3", "phimoe", "qwen2", "qwen2moe", "qwen2vl", "stablelm", "starcoder2"}
)
"""Architectures whose heads divide the width evenly, whatever the file says of their lengths."""
_ROTATES_ALL = frozenset({"qwen2", "qwen2moe", "qwen3", "qwen3moe"})
"""Architectures that always rotate whole heads."""
_WIDER_OUTPUT = ("deepseek", "wavtokenizer")
"""Architectures whose vectors may be longer than the model is wide."""
_ATTENTION_IN = (".attn_q.", ".attn_q_a.", ".attn_q_b.", ".attn_qkv.")
_ATTENTION_OUT = re.compile(r"blk\.[0-9]+\.attn_output\.weight")
_TABLES = ("tid2eid", "tid2eid.weight")
"""Tensors of integers that some mixtures of experts look their experts up in."""
_BYTES = 256
_NO_VOCABULARY = ("none", "no_vocab")
_UNKNOWN_TOKENS = {"bert": 100, "t5": 2}
"""By kind of vocabulary: the token for what it cannot tell, where the file names none."""


def check_sound(architecture: str, blocks: int, header: GgufHeader) -> None:
    """Raises ModelInvalid for figures and tensors that the engine asserts cannot be.

    Every rule here was a crash of the engine: an assertion, an exception out of native code, or a wrong read.
    """
    figures = _figures(architecture, header.values)
    for name, value in figures.items():
        _check_finite(f"{architecture}.{name}", value)
    _check_experts(architecture, figures)
    _check_count(f"{architecture}.nextn_predict_layers", figures.get("nextn_predict_layers", 0), blocks)
    scaling = figures.get("rope.scaling.type", "none")
    if scaling not in _ROPE_SCALINGS:
        raise ModelInvalid(
            f"{architecture}.rope.scaling.type is {_shown(scaling)}; it can be {', '.join(_ROPE_SCALINGS)}."
        )
    _check_attention(architecture, figures)
    _check_rotation(architecture, figures)
    _check_output(architecture, figures)
    if header.values.get("general.type", "model") == "model" and architecture != "clip":
        _check_tensors(header.tensors)
        # Of a shard, the other tensors are in other files; whoever joins them checks them together.
        if split_of(header.values) is None:
            check_whole(architecture, header.values, header.tensors)
        _check_vocabulary(header)


def check_whole(architecture: str, values: Mapping[str, MetadataValue], tensors: Sequence[TensorInfo]) -> None:
    """Raises ModelInvalid for what only all the tensors of a model show together."""
    rotates_nothing = _figures(architecture, values).get("rope.dimension_count") == 0
    # A model that remembers by other means may do so.
    if rotates_nothing and not any(".ssm_" in tensor.name for tensor in tensors):
        raise _wrong_rotation(architecture, 0)
    _check_blocks(architecture, tensors)


def _figures(architecture: str, values: Mapping[str, MetadataValue]) -> dict[str, MetadataValue]:
    prefix = f"{architecture}."
    return {key.removeprefix(prefix): value for key, value in values.items() if key.startswith(prefix)}


def _check_finite(key: str, value: MetadataValue) -> None:
    numbers = value if isinstance(value, list) else [value]
    for number in numbers:
        if isinstance(number, float) and not math.isfinite(number):
            raise ModelInvalid(f"{key} is {number}, which is no number to compute with.")
        if key.endswith("epsilon") and isinstance(number, int | float) and number < 0:
            raise ModelInvalid(f"{key} is {number}; it cannot be below 0.")


def _check_experts(architecture: str, figures: Mapping[str, MetadataValue]) -> None:
    prefix = f"{architecture}.expert_"
    experts = _check_count(f"{prefix}count", figures.get("expert_count", 0), MAX_EXPERTS)
    # Some families write one expert for none.
    told = figures.get("expert_used_count", 0)
    used = max((_check_count(f"{prefix}used_count", one, experts) for one in _each(told)), default=0)
    groups = _check_count(f"{prefix}group_count", figures.get("expert_group_count", 0), max(0, experts - 1))
    if experts and not used and not architecture.startswith("hunyuan"):
        raise ModelInvalid(f"{prefix}count is {experts}, and {prefix}used_count says that none is used.")
    if groups > 1:
        chosen = _check_count(f"{prefix}group_used_count", figures.get("expert_group_used_count", 0), groups - 1)
        if experts % groups or not chosen:
            raise ModelInvalid(f"{prefix}group_count is {groups}, which does not go with {experts} experts.")


def _check_attention(architecture: str, figures: Mapping[str, MetadataValue]) -> None:
    pattern = figures.get("attention.sliding_window_pattern")
    has_window = figures.get("attention.sliding_window", 0) != 0
    if has_window and (pattern == 1 or (isinstance(pattern, list) and not any(pattern))):
        raise ModelInvalid(f"{architecture} has a sliding window, and by its pattern no block that uses it.")
    width, heads = figures.get("embedding_length"), figures.get("attention.head_count")
    has_even_heads = "bert" in architecture or architecture in _EVEN_HEADS
    if has_even_heads and isinstance(width, int) and isinstance(heads, int) and heads > 0:
        for name in ("attention.key_length", "attention.value_length"):
            if figures.get(name, width // heads) != width // heads:
                raise ModelInvalid(
                    f"{architecture}.{name} is {figures[name]}; with {heads} heads it is {width // heads}."
                )


def _check_rotation(architecture: str, figures: Mapping[str, MetadataValue]) -> None:
    rotated = figures.get("rope.dimension_count")
    if not isinstance(rotated, int):
        return
    width, heads = figures.get("embedding_length"), figures.get("attention.head_count")
    even = width // heads if isinstance(width, int) and isinstance(heads, int) and heads > 0 else None
    most = figures.get("attention.key_length", even)
    is_too_large = isinstance(most, int) and rotated > most
    is_a_part = architecture in _ROTATES_ALL and rotated != most
    if rotated % 2 or is_too_large or is_a_part:
        raise _wrong_rotation(architecture, rotated)


def _wrong_rotation(architecture: str, rotated: int) -> ModelInvalid:
    return ModelInvalid(
        f"{architecture}.rope.dimension_count is {rotated}, which does not go with the length of its heads."
    )


def _check_output(architecture: str, figures: Mapping[str, MetadataValue]) -> None:
    width, out = figures.get("embedding_length"), figures.get("embedding_length_out", 0)
    if isinstance(width, int) and isinstance(out, int) and out > width and not architecture.startswith(_WIDER_OUTPUT):
        raise ModelInvalid(f"{architecture}.embedding_length_out is {out}, and the model is only {width} wide.")


def _check_blocks(architecture: str, tensors: Sequence[TensorInfo]) -> None:
    """Raises ModelInvalid for a whole model whose blocks lack the way into attention, and have the way out.

    One family has blocks with the way out alone.
    """
    if architecture == "deci":
        return
    entered = {tensor.name.split(".attn_")[0] for tensor in tensors if any(one in tensor.name for one in _ATTENTION_IN)}
    for tensor in tensors:
        if _ATTENTION_OUT.fullmatch(tensor.name) and tensor.name.split(".attn_")[0] not in entered:
            raise ModelInvalid(f"{_shown(tensor.name)} is there, and no tensor of that block that makes queries.")


def _check_tensors(tensors: Sequence[TensorInfo]) -> None:
    for index, tensor in enumerate(tensors):
        where = f"tensor {index} ({_shown(tensor.name)})"
        is_factor = len(tensor.shape) == 1 or tensor.name.endswith(_FACTORS)
        if is_factor and tensor.type_name != "F32":
            raise ModelInvalid(
                f"{where} has the type {tensor.type_name}; norms, biases and other factors have to be F32."
            )
        if tensor.type_name in _NOT_COMPUTED and not tensor.name.endswith(_TABLES):
            raise ModelInvalid(f"{where} has the type {tensor.type_name}, in which there are no weights.")


def _check_vocabulary(header: GgufHeader) -> None:
    kind, vocabulary = header.values.get("tokenizer.ggml.model"), header.vocabulary
    if kind in _NO_VOCABULARY:
        raise ModelInvalid(f"The file has no vocabulary (tokenizer.ggml.model is {kind!a}), so that it reads no text.")
    if vocabulary is None:
        return
    if not vocabulary.tokens:
        raise ModelInvalid("The vocabulary has no tokens.")
    _check_unknown_token(kind, header.values.get(UNKNOWN_TOKEN), vocabulary.tokens)
    if kind == "bert" and (vocabulary.byte_tokens or vocabulary.has_byte_types):
        raise ModelInvalid("The vocabulary has tokens for single bytes, which a vocabulary of word pieces has not.")
    if vocabulary.doubled is not None:
        raise ModelInvalid(f"The token {_shown(vocabulary.doubled)} is in the vocabulary twice.")
    if kind == "llama" and vocabulary.byte_tokens < _BYTES:
        raise ModelInvalid(
            f"The vocabulary has {vocabulary.byte_tokens} of the {_BYTES} tokens for single bytes; "
            "the engine cannot read text without the others."
        )


def _check_unknown_token(kind: MetadataValue, named: MetadataValue, tokens: int) -> None:
    default = _UNKNOWN_TOKENS.get(kind) if isinstance(kind, str) else None
    is_named = isinstance(named, int) and 0 <= named < tokens
    # The engine would give a number that is none of its tokens for every word that it does not know.
    if default is not None and default >= tokens and not is_named:
        raise ModelInvalid(f"The vocabulary has no token for what is not in it, and {UNKNOWN_TOKEN} names none.")


def _check_count(key: str, value: object, most: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise ModelInvalid(f"{key} is not an integer.")
    if not 0 <= value <= most:
        raise ModelInvalid(f"{key} is {value}; here it can be {most} at most.")
    return value


def _each(value: MetadataValue) -> Sequence[object]:
    return value if isinstance(value, list) else [value]


def _shown(text: object) -> str:
    shown = ascii(text)
    return shown if len(shown) <= 80 else f"{shown[:80]}…"
