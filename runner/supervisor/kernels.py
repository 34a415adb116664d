"""Which quantizations the CPU code of the engine computes fast: those with kernels for the many rows of a prompt."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable

from registry.gguf_header import TensorInfo

_FULL = frozenset({"F64", "F32", "F16", "BF16"})
_ON_ARM = frozenset({"Q4_0", "Q4_K", "Q5_K", "Q6_K", "Q8_0", "Q1_0"})
_NEEDED: tuple[tuple[frozenset[str], frozenset[str]], ...] = (
    # Rearranged for the processor when the weights are loaded.
    (frozenset({"REPACK", "AVX2"}), frozenset({"Q4_0", "Q4_K", "IQ4_NL", "MXFP4"})),
    (frozenset({"REPACK", "NEON", "DOTPROD"}), _ON_ARM | {"IQ4_NL", "MXFP4"}),
    (frozenset({"REPACK", "NEON", "MATMUL_INT8"}), _ON_ARM),
    (frozenset({"REPACK", "VXE"}), frozenset({"Q4_0"})),
    # Unpacked tile by tile while they are multiplied.
    (frozenset({"AVX2"}), frozenset({"Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "IQ1_S", "IQ1_M"})),
    (frozenset({"AVX2"}), frozenset({"IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ3_XXS", "IQ3_S", "IQ4_XS"})),
    (frozenset({"LLAMAFILE", "AVX2"}), frozenset({"Q4_0", "Q5_0", "Q8_0", "IQ4_NL"})),
)
"""Features of the processor, by the engine's names, and the tensor types that they suffice for."""
_SUGGESTED = ("Q4_K", "Q4_0")
_FILES = {"Q3_K": "Q3_K_M", "Q4_K": "Q4_K_M", "Q5_K": "Q5_K_M"}


def fast_types(features: Collection[str]) -> frozenset[str]:
    """The tensor types with a fast kernel, on a processor with these features."""
    return frozenset().union(*(types for needed, types in _NEEDED if needed.issubset(features)))


def fast_files(features: Collection[str]) -> tuple[str, ...]:
    """Types of files whose weights are of types with a fast kernel, by the names that people use."""
    return tuple(sorted(_FILES.get(one, one) for one in fast_types(features)))


def main_type(tensors: Iterable[TensorInfo]) -> str:
    """The type of most of the weights that every token is multiplied with."""
    sizes: Counter[str] = Counter()
    for tensor in tensors:
        if len(tensor.shape) > 1 and tensor.name.startswith("blk."):
            sizes[tensor.type_name] += tensor.size
    return max(sizes, key=lambda name: sizes[name], default="")


def has_fast_kernel(type_name: str, features: Collection[str]) -> bool | None:
    """None for weights that are not quantized."""
    return None if type_name in _FULL or not type_name else type_name in fast_types(features)


def kernel_sentence(type_name: str, features: Collection[str]) -> str:
    """What people are told of it."""
    is_fast = has_fast_kernel(type_name, features)
    if is_fast is None:
        return f"The weights are {type_name or 'of no single type'}; quantized ones are smaller and faster on a CPU."
    if is_fast:
        return f"{type_name} has a fast kernel on this CPU."
    better = [_FILES.get(one, one) for one in _SUGGESTED if one in fast_types(features)]
    advice = f"; {' or '.join(better)} would read prompts several times faster" if better else ""
    return f"{type_name} has no fast kernel on this CPU{advice}."
