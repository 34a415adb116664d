"""The bounded GGUF reader: sound files are read, hostile ones are refused at once."""

from __future__ import annotations

import os
import struct
import time
import tracemalloc
from pathlib import Path

import gguf
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from registry.errors import ModelInvalid
from registry.gguf_header import MAX_ARRAY_ENTRIES, read_header
from registry.gguf_metadata import read_gguf
from registry.gguf_types import FILE_TYPES, TENSOR_TYPES
from tests.registry.gguf_bytes import (
    ARRAY,
    BOOL,
    FLOAT32,
    STRING,
    UINT64,
    GgufFile,
    Tensor,
    default_pairs,
    number_pair,
    numbers_pair,
    pair,
    string_pair,
    strings_pair,
    text,
    tiny_gguf,
    u32,
    u64,
)

HUGE = (1 << 64) - 1


def write(folder: Path, content: bytes) -> Path:
    path = folder / "model.gguf"
    path.write_bytes(content)
    return path


def test_every_kind_of_value_is_read(tmp_path: Path) -> None:
    file = GgufFile(
        pairs=[
            *default_pairs(),
            pair("a.flag", BOOL, b"\1"),
            pair("a.float", FLOAT32, struct.pack("<f", 0.5)),
            pair("a.big", UINT64, u64(HUGE)),
            numbers_pair("a.numbers", [1, 2, 3]),
            strings_pair("a.words", ["one", "zwei", "três"]),
        ]
    )
    header = read_header(write(tmp_path, file.to_bytes()))
    assert header.version == 3
    assert header.values["general.name"] == "Tiny"
    assert header.values["a.flag"] is True
    assert header.values["a.float"] == 0.5
    assert header.values["a.big"] == HUGE
    assert header.values["a.numbers"] == [1, 2, 3]
    assert header.values["a.words"] == ["one", "zwei", "três"]
    assert [(tensor.name, tensor.shape, tensor.offset, tensor.size) for tensor in header.tensors] == [
        ("token_embd.weight", (32, 4), 0, 512),
        ("output.weight", (32, 4), 512, 512),
    ]


def test_version_2_is_read(tmp_path: Path) -> None:
    assert read_header(write(tmp_path, GgufFile(version=u32(2)).to_bytes())).version == 2


def test_a_long_array_is_stepped_over_and_its_length_kept(tmp_path: Path) -> None:
    words = [f"token{number}" * (number % 40) for number in range(60_000)]
    file = GgufFile(pairs=[strings_pair("vocabulary", words), numbers_pair("scores", range(60_000)), *default_pairs()])
    header = read_header(write(tmp_path, file.to_bytes()))
    assert header.values["vocabulary"] is None
    assert header.values["scores"] is None
    assert header.array_lengths == {"vocabulary": 60_000, "scores": 60_000}
    assert header.values["general.architecture"] == "llama"


def test_entries_longer_than_the_buffer_are_stepped_over(tmp_path: Path) -> None:
    words = ["x" * 3_000_000 if number in (0, 700, 1999) else "y" for number in range(2000)]
    file = GgufFile(pairs=[strings_pair("vocabulary", words), *default_pairs()])
    header = read_header(write(tmp_path, file.to_bytes()))
    assert header.array_lengths["vocabulary"] == 2000
    assert header.values["llama.block_count"] == 2


def test_a_file_of_the_reference_writer_is_read(tmp_path: Path) -> None:
    path = tmp_path / "written.gguf"
    writer = gguf.GGUFWriter(str(path), "qwen2")
    writer.add_block_count(3)
    writer.add_context_length(4096)
    writer.add_embedding_length(64)
    writer.add_head_count(4)
    writer.add_head_count_kv([2, 0, 2])
    writer.add_custom_alignment(64)
    writer.add_file_type(7)
    writer.add_token_list([f"t{number}" for number in range(5000)])
    writer.add_tensor("a.weight", np.ones((4, 5), dtype=np.float32))
    writer.add_tensor("b.weight", np.ones((1, 7), dtype=np.float16))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    metadata = read_gguf(path)
    assert (metadata.architecture, metadata.block_count, metadata.context_length) == ("qwen2", 3, 4096)
    assert metadata.head_count_kv == (2, 0, 2)
    assert metadata.file_type_name == "Q8_0"
    assert metadata.array_lengths["tokenizer.ggml.tokens"] == 5000
    assert [(one.name, one.type_name, one.shape) for one in metadata.tensors] == [
        ("a.weight", "F32", (5, 4)),
        ("b.weight", "F16", (7, 1)),
    ]


def test_the_tables_agree_with_the_reference_package() -> None:
    for kind, (block, size) in gguf.GGML_QUANT_SIZES.items():
        ours = TENSOR_TYPES[int(kind)]
        assert (ours.name, ours.block_elements, ours.block_bytes) == (kind.name, block, size)
    for file_type in gguf.LlamaFileType:
        if file_type.name != "GUESSED":
            assert FILE_TYPES[int(file_type)] == file_type.name.removeprefix("ALL_").removeprefix("MOSTLY_")


def with_pairs(*pairs: bytes) -> bytes:
    return GgufFile(pairs=[*default_pairs(), *pairs]).to_bytes()


def with_tensors(*tensors: Tensor) -> bytes:
    return GgufFile(tensors=list(tensors)).to_bytes()


HOSTILE: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "does not begin with GGUF"),
    "another format": (b"PK\3\4" + bytes(100), "does not begin with GGUF"),
    "big-endian": (GgufFile(version=struct.pack(">I", 3)).to_bytes(), "big-endian"),
    "version 1": (GgufFile(version=u32(1)).to_bytes(), "version 1"),
    "version 0": (GgufFile(version=u32(0)).to_bytes(), "version 0"),
    "nothing after the version": (b"GGUF" + u32(3), "ends at byte 8"),
    "no tensors": (GgufFile(tensors=[]).to_bytes(), "holds no tensors"),
    "more tensors than are read": (GgufFile(tensor_count=HUGE).to_bytes(), "tensors; at most"),
    "more tensors than the file holds": (GgufFile(tensor_count=60_000).to_bytes(), "can hold"),
    "more pairs than are read": (GgufFile(pair_count=HUGE).to_bytes(), "pairs; at most"),
    "more pairs than the file holds": (GgufFile(pair_count=16_000).to_bytes(), "can hold"),
    "a string longer than the file": (with_pairs(text("k") + u32(STRING) + u64(10_000_000)), "inside"),
    "a string without measure": (with_pairs(text("k") + u32(STRING) + u64(HUGE)), "at most"),
    "a key without measure": (with_pairs(u64(HUGE)), "at most"),
    "an empty key": (with_pairs(string_pair("", "x")), "is empty"),
    "a key that is not UTF-8": (with_pairs(pair(b"\xff\xfe", STRING, text("x"))), "not UTF-8"),
    "a key twice": (with_pairs(string_pair("general.name", "Other")), "comes twice"),
    "an unknown type": (with_pairs(pair("k", 77, b"")), "unknown type 77"),
    "an array of unknown entries": (with_pairs(pair("k", ARRAY, u32(77) + u64(1))), "unknown type 77"),
    "an array of arrays": (with_pairs(pair("k", ARRAY, u32(ARRAY) + u64(1) + u32(STRING) + u64(0))), "array of arrays"),
    "an array without measure": (with_pairs(pair("k", ARRAY, u32(0) + u64(HUGE))), "entries in all"),
    "an array longer than the file": (with_pairs(pair("k", ARRAY, u32(STRING) + u64(1_000_000))), "can hold"),
    "an endless entry in a skipped array": (
        with_pairs(pair("k", ARRAY, u32(STRING) + u64(2000) + u64(HUGE) + bytes(40_000))),
        "An entry of",
    ),
    "a skipped array past the end": (
        with_pairs(pair("k", ARRAY, u32(STRING) + u64(2000) + (u64(1_000_000) + bytes(8)) * 2000)),
        "inside",
    ),
    "alignment zero": (with_pairs(number_pair("general.alignment", 0)), "power of two"),
    "odd alignment": (with_pairs(number_pair("general.alignment", 33)), "power of two"),
    "huge alignment": (with_pairs(number_pair("general.alignment", 1 << 31)), "power of two"),
    "alignment as text": (with_pairs(string_pair("general.alignment", "32")), "not an integer"),
    "no dimensions": (with_tensors(Tensor("t", ())), "dimensions"),
    "five dimensions": (with_tensors(Tensor("t", (1, 1, 1, 1, 1))), "dimensions"),
    "an empty dimension": (with_tensors(Tensor("t", (32, 0))), "no elements"),
    "dimensions that overflow": (with_tensors(Tensor("t", (1 << 32, 1 << 32, 1 << 32))), "overflow"),
    "an unknown tensor type": (with_tensors(Tensor("t", kind=99)), "unknown type 99"),
    "a removed tensor type": (with_tensors(Tensor("t", kind=4)), "unknown type 4"),
    "rows that split a block": (with_tensors(Tensor("t", (33, 2), kind=2)), "not a multiple of Q4_0's 32"),
    "a tensor without name": (with_tensors(Tensor("")), "is empty"),
    "a tensor twice": (with_tensors(Tensor("t"), Tensor("t")), "comes twice"),
    "a crooked offset": (with_tensors(Tensor("t", offset=7)), "not a multiple of 32"),
    "overlapping tensors": (with_tensors(Tensor("a"), Tensor("b", offset=32)), "inside the tensor before it"),
    "a gap between tensors": (with_tensors(Tensor("a"), Tensor("b", offset=1024)), "would follow"),
    "a first tensor that does not begin at zero": (with_tensors(Tensor("a", offset=64)), "would follow"),
    "a tensor past the end": (with_tensors(Tensor("a", (1 << 20, 1 << 10))), "beyond the file's end"),
    "cut data": (tiny_gguf()[:-900], "beyond the file's end"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_is_refused_at_once_and_without_memory(name: str, tmp_path: Path) -> None:
    content, complaint = HOSTILE[name]
    path = write(tmp_path, content)
    tracemalloc.start()
    begun = time.thread_time()
    try:
        with pytest.raises(ModelInvalid) as refused:
            read_gguf(path)
        took = time.thread_time() - begun
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert complaint in refused.value.message
    assert took < 2
    # The reader's buffer, and what lies in the file: never what a count in it claims.
    assert peak < 4 * 1024 * 1024 + 2 * len(content)


def test_too_many_entries_are_refused_before_they_are_counted(tmp_path: Path) -> None:
    """A sparse file as long as its array claims: only the limit can stop the reader."""
    head = GgufFile(pairs=[pair("k", ARRAY, u32(0) + u64(MAX_ARRAY_ENTRIES + 1))]).header()
    path = write(tmp_path, head)
    os.truncate(path, 64 * 1024 * 1024)
    with pytest.raises(ModelInvalid, match="entries in all"):
        read_header(path)


def test_text_beyond_the_budget_is_refused(tmp_path: Path) -> None:
    pairs = [string_pair(f"k{number}", b"x" * (12 << 20)) for number in range(3)]
    with pytest.raises(ModelInvalid, match="bytes of text"):
        read_header(write(tmp_path, GgufFile(pairs=pairs).to_bytes()))


def test_what_is_not_a_regular_file_is_refused_without_opening_it(tmp_path: Path) -> None:
    if not hasattr(os, "mkfifo"):
        path = tmp_path
    else:
        path = tmp_path / "pipe"
        os.mkfifo(path)
    with pytest.raises(ModelInvalid, match="not a regular file"):
        read_header(path)
    with pytest.raises(ModelInvalid, match="cannot be read"):
        read_header(tmp_path / "absent.gguf")


SOUND = tiny_gguf(strings_pair("tokenizer.ggml.tokens", [f"t{number}" for number in range(1500)]))


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    edits=st.lists(st.tuples(st.integers(0, len(SOUND) - 1), st.binary(min_size=1, max_size=9)), max_size=4),
    cut=st.none() | st.integers(0, len(SOUND)),
)
def test_a_mutated_file_is_read_or_refused_and_nothing_else(
    tmp_path: Path, edits: list[tuple[int, bytes]], cut: int | None
) -> None:
    content = bytearray(SOUND)
    for at, replacement in edits:
        content[at : at + len(replacement)] = replacement
    path = write(tmp_path, bytes(content[:cut]))
    try:
        metadata = read_gguf(path)
    except ModelInvalid as error:
        assert error.message.endswith(".")
        return
    assert metadata.kv_bytes_per_token() >= 0
    assert metadata.weights_size <= len(content)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 420), st.sampled_from([0, 1, 0xFF, 0x7FFFFFFF, 0xFFFFFFFF, 1 << 32, 1 << 62, HUGE]))
def test_a_wild_number_anywhere_in_the_header_is_harmless(tmp_path: Path, at: int, number: int) -> None:
    content = bytearray(SOUND)
    content[at : at + 8] = u64(number)
    try:
        read_gguf(write(tmp_path, bytes(content)))
    except ModelInvalid:
        return
