"""Sound GGUF files with one thing changed: what a hostile or careless writer might make of them."""

from __future__ import annotations

import random
import struct
from collections.abc import Iterator
from dataclasses import replace

from registry.gguf_types import ARRAY, SCALARS, STRING
from tests.gguf_document import Document

UINT32, INT32, FLOAT32, BOOL, UINT64 = 4, 5, 6, 7, 10
COUNTS = (0, 1, 3, 7, 8, 64, 255, 261, 513, 65536, 1 << 24, (1 << 31) - 1, 1 << 31, (1 << 32) - 1)
FLOATS = (float("nan"), float("inf"), float("-inf"), 0.0, -1.0, 1e-30, 1e38)
TEXTS = (
    b"", b"x", b"yarn", b"\xff\xfe", b"\0", b"llama", b"bert", b"bert\0x", b"t5", b"rwkv", b"test", b"none",
    b"A" * 5000,
)  # fmt: skip
ADDED_COUNTS = (
    "vocab_size", "expert_count", "expert_used_count", "expert_group_count", "nextn_predict_layers", "pooling_type",
    "attention.sliding_window", "attention.key_length", "attention.value_length", "rope.dimension_count",
    "leading_dense_block_count", "embedding_length_out",
)  # fmt: skip
ADDED_FLOATS = ("rope.freq_base", "rope.scaling.factor", "attention.clamp_kqv", "logit_scale", "attention.scale")
ADDED_IDS = ("unknown_token_id", "padding_token_id", "eot_token_id", "cls_token_id", "token_type_count")
TYPES = (1, 2, 8, 9, 12, 15, 24, 26, 28, 30, 39)


def mutants(document: Document, *, flips: int, seed: int = 1) -> Iterator[tuple[str, bytes]]:
    """What was changed, and the file; the same every time. By the seed bytes are chosen that are changed anywhere."""
    yield from _changed_pairs(document)
    yield from _added_pairs(document)
    yield from _changed_tensors(document)
    yield from _flipped_bytes(document, flips, seed)


def _changed_pairs(document: Document) -> Iterator[tuple[str, bytes]]:
    for pair in document.pairs:
        key = pair.key.decode()
        yield f"without {key}", document.without_pair(key).to_bytes()
        for what, kind, value in (*_values(pair.kind), *_arrays()):
            yield f"{key} is {what}", document.with_pair(key, kind, value).to_bytes()


def _added_pairs(document: Document) -> Iterator[tuple[str, bytes]]:
    architecture = next(pair.value[8:].decode() for pair in document.pairs if pair.key == b"general.architecture")
    named = [
        *((f"{architecture}.{name}", UINT32) for name in ADDED_COUNTS),
        *((f"{architecture}.{name}", FLOAT32) for name in ADDED_FLOATS),
        *((f"tokenizer.ggml.{name}", UINT32) for name in ADDED_IDS),
        (f"{architecture}.rope.scaling.type", STRING),
        ("general.alignment", UINT32),
        ("general.type", STRING),
        ("split.count", UINT32),
    ]
    for key, kind in named:
        for what, as_kind, value in _values(kind):
            yield f"with {key} {what}", document.with_pair(key, as_kind, value).to_bytes()


def _values(kind: int) -> Iterator[tuple[str, int, bytes]]:
    if kind == FLOAT32:
        yield from ((str(one), FLOAT32, SCALARS[FLOAT32].pack(one)) for one in FLOATS)
    elif kind == STRING:
        yield from ((ascii(one[:20]), STRING, _text(one)) for one in TEXTS)
    elif kind in (UINT32, INT32, UINT64):
        yield from ((str(one), UINT32, SCALARS[UINT32].pack(one)) for one in COUNTS)
        yield "-1", INT32, SCALARS[INT32].pack(-1)
        yield "a float", FLOAT32, SCALARS[FLOAT32].pack(2.0)
    yield "a switch", BOOL, b"\1"


def _arrays() -> Iterator[tuple[str, int, bytes]]:
    head = struct.Struct("<IQ")
    yield "no strings", ARRAY, head.pack(STRING, 0)
    yield "a string twice", ARRAY, head.pack(STRING, 2) + _text(b"x") * 2
    yield "one that ends early", ARRAY, head.pack(STRING, 2) + _text(b"x") + _text(b"x\0y")
    yield "many numbers", ARRAY, head.pack(UINT32, 700) + struct.pack("<700I", *range(700))
    yield "many bytes", ARRAY, head.pack(INT32, 700) + struct.pack("<700i", *[6] * 700)
    yield "odd floats", ARRAY, head.pack(FLOAT32, 2) + struct.pack("<ff", float("nan"), 1e30)


def _changed_tensors(document: Document) -> Iterator[tuple[str, bytes]]:
    # All blocks are alike to a reader.
    chosen = [(index, one) for index, one in enumerate(document.tensors) if not one.name.startswith(b"blk.1.")]
    for index, tensor in chosen:
        name = tensor.name.decode()
        rest = (*document.tensors[:index], *document.tensors[index + 1 :])
        yield f"no {name}", replace(document, tensors=rest).to_bytes()
        for kind in TYPES:
            yield f"{name} of type {kind}", document.with_tensor(index, replace(tensor, kind=kind)).to_bytes()
        for shape in ((1,), (64,), (64, 64, 2, 2), (*tensor.shape, 2), tensor.shape[::-1]):
            yield f"{name} of shape {shape}", document.with_tensor(index, replace(tensor, shape=shape)).to_bytes()


def _flipped_bytes(document: Document, count: int, seed: int) -> Iterator[tuple[str, bytes]]:
    content = document.to_bytes()
    parts = Document.read(content).ends
    header = parts[3 + len(document.pairs) + len(document.tensors)]
    chance = random.Random(seed)
    for number in range(count):
        changed = bytearray(content)
        for _ in range(chance.choice((1, 1, 2, 4))):
            changed[chance.randrange(4, header)] = chance.choice((0, 1, 0x7F, 0x80, 0xFF, chance.randrange(256)))
        yield f"flip {number}", bytes(changed)


def _text(content: bytes) -> bytes:
    return struct.pack("<Q", len(content)) + content
