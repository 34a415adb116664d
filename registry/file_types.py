"""The types that weights can be quantized to, by the names that people use."""

from __future__ import annotations

from registry.errors import InvalidRequest
from registry.gguf_metadata import GgufMetadata
from registry.gguf_types import FILE_TYPES

_ALIASES = {"Q3_K": "Q3_K_M", "Q4_K": "Q4_K_M", "Q5_K": "Q5_K_M", "MXFP4": "MXFP4_MOE"}
_NOT_WRITTEN = frozenset({"NVFP4"})
"""Types that the engine reads and cannot make."""
_NEEDS_MATRIX = frozenset({"IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ2_M", "IQ3_XXS", "IQ3_XS", "Q2_K_S"})
_NUMBERS = {name: number for number, name in FILE_TYPES.items() if name not in _NOT_WRITTEN}
_FULL_PRECISION = frozenset({"F64", "F32", "F16", "BF16", "I8", "I16", "I32", "I64"})

QUANTIZABLE_TO = tuple(_NUMBERS)
"""Every type that weights can be brought into here."""


def file_type_number(text: str) -> int:
    """The number, in a model's file and in the engine, of a type. Raises InvalidRequest."""
    return _NUMBERS[check_quantizable_to(text)]


def check_quantizable_to(text: str, field: str = "quantize") -> str:
    """The type's own spelling. Raises InvalidRequest for what is no type, and for what cannot be made."""
    name = text.strip().upper()
    name = _ALIASES.get(name, name)
    if name not in _NUMBERS:
        raise InvalidRequest(
            f"unsupported quantization type {text[:40]} - supported types are {', '.join(QUANTIZABLE_TO)}",
            field=field,
        )
    return name


def check_has_matrix(name: str, field: str = "quantize") -> None:
    """Raises InvalidRequest for a type that would be garbage without statistics of the model's activations."""
    if check_quantizable_to(name) in _NEEDS_MATRIX:
        # A matrix that comes with the request is one of the model, not of its draft.
        with_matrix = (
            ": give one with --imatrix, let one be computed with --calibrate, or" if field == "quantize" else ";"
        )
        raise InvalidRequest(
            f"{name} is so small that it needs an importance matrix{with_matrix} choose another type, such as Q3_K_S "
            "or IQ4_XS.",
            field=field,
        )


def check_quantizable(metadata: GgufMetadata, field: str = "quantize") -> None:
    """Raises InvalidRequest for weights that have lost precision already."""
    if any(tensor.type_name not in _FULL_PRECISION for tensor in metadata.tensors):
        raise InvalidRequest(
            f"quantization is only supported for F16, BF16 and F32 models; this one is {metadata.file_type_name}",
            field=field,
        )
