"""Files that keep to the format and would end the engine, and files that are cut or changed anywhere."""

from __future__ import annotations

import struct
import tracemalloc
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from registry.errors import ModelInvalid
from registry.gguf_metadata import GgufMetadata, read_gguf
from registry.gguf_types import ARRAY, SCALARS, STRING
from registry.parts import join_shards
from tests.gguf_document import Document, TensorEntry
from tests.registry.gguf_bytes import GgufFile, Tensor, default_pairs, number_pair, pair, string_pair, strings_pair
from tests.tiny_model import write_tiny_model

UINT32, INT32, FLOAT32 = 4, 5, 6


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Document:
    return Document.read(write_tiny_model(tmp_path_factory.mktemp("tiny") / "tiny.gguf").read_bytes())


def refusal(folder: Path, content: bytes) -> str:
    path = folder / "hostile.gguf"
    path.write_bytes(content)
    with pytest.raises(ModelInvalid) as refused:
        read_gguf(path)
    return refused.value.message


def with_number(document: Document, key: str, value: float) -> bytes:
    kind = FLOAT32 if isinstance(value, float) else UINT32
    return document.with_pair(key, kind, SCALARS[kind].pack(value)).to_bytes()


def text(content: str) -> bytes:
    return struct.pack("<Q", len(content)) + content.encode()


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("llama.attention.layer_norm_rms_epsilon", float("nan"), "is nan, which is no number to compute with"),
        ("llama.rope.freq_base", float("inf"), "is inf, which is no number"),
        ("llama.attention.layer_norm_rms_epsilon", -1.0, "cannot be below 0"),
        ("llama.expert_count", 4, "expert_used_count says that none is used"),
        ("llama.expert_count", 5000, "is 5000; here it can be 1024 at most"),
        ("llama.expert_used_count", 2, "is 2; here it can be 0 at most"),
        ("llama.expert_group_count", 2, "is 2; here it can be 0 at most"),
        ("llama.nextn_predict_layers", 3, "is 3; here it can be 2 at most"),
        ("llama.block_count", 513, "at most 512"),
        ("llama.rope.dimension_count", 0, "is 0, which does not go with the length of its heads"),
        ("llama.rope.dimension_count", 7, "does not go with"),
        ("llama.rope.dimension_count", 18, "does not go with"),
        ("llama.embedding_length_out", 65, "is 65, and the model is only 64 wide"),
        ("general.alignment", 0, "not a power of two"),
        ("general.alignment", 3, "not a power of two"),
        ("general.alignment", 1 << 31, "not a power of two"),
        ("general.alignment", 8, "the engine needs at least 32"),
    ],
)
def test_a_figure_that_ends_the_engine_is_refused(
    tmp_path: Path, sound: Document, key: str, value: float, said: str
) -> None:
    message = refusal(tmp_path, with_number(sound, key, value))
    assert said in message
    assert key in message or "general.alignment" in key


def test_attention_that_contradicts_itself_is_refused(tmp_path: Path, sound: Document) -> None:
    window = sound.with_pair("llama.attention.sliding_window", UINT32, SCALARS[UINT32].pack(64))
    message = refusal(tmp_path, with_number(window, "llama.attention.sliding_window_pattern", 1))
    assert "no block that uses it" in message
    pairs = [*default_pairs()[2:], string_pair("general.architecture", "bert")]
    pairs += [number_pair(f"bert.{name}", value) for name, value in (("embedding_length", 64), ("block_count", 2))]
    pairs += [number_pair("bert.attention.head_count", 4), number_pair("bert.attention.key_length", 17)]
    assert "with 4 heads it is 16" in refusal(tmp_path, GgufFile(pairs=pairs).to_bytes())


@pytest.mark.parametrize("architecture", ["bert", "qwen2", "phi3", "stablelm"])
@pytest.mark.parametrize("figure", ["key_length", "value_length"])
def test_heads_that_do_not_divide_the_width_are_refused_where_the_engine_takes_that_for_granted(
    tmp_path: Path, architecture: str, figure: str
) -> None:
    pairs = [*default_pairs()[2:], string_pair("general.architecture", architecture)]
    named = (("embedding_length", 64), ("block_count", 2), ("attention.head_count", 4))
    pairs += [number_pair(f"{architecture}.{name}", value) for name, value in named]
    assert read(tmp_path, pairs).block_count == 2
    pairs.append(number_pair(f"{architecture}.attention.{figure}", 8))
    assert "with 4 heads it is 16" in refusal(tmp_path, GgufFile(pairs=pairs).to_bytes())


def test_only_a_family_that_can_rotates_a_part_of_its_heads(tmp_path: Path) -> None:
    for architecture, is_let_through in (("phi2", True), ("qwen3", False)):
        pairs = [*default_pairs()[2:], string_pair("general.architecture", architecture)]
        named = (("embedding_length", 64), ("block_count", 2), ("attention.head_count", 4), ("rope.dimension_count", 8))
        pairs += [number_pair(f"{architecture}.{name}", value) for name, value in named]
        if is_let_through:
            assert read(tmp_path, pairs).architecture == architecture
        else:
            assert "rope.dimension_count is 8" in refusal(tmp_path, GgufFile(pairs=pairs).to_bytes())


def test_what_only_all_shards_show_is_found_when_they_are_joined(tmp_path: Path) -> None:
    turns_nothing = [*default_pairs(), number_pair("llama.rope.dimension_count", 0), number_pair("split.count", 2)]
    later = [number_pair("split.no", 1), number_pair("split.count", 2)]
    for name, is_sound in (("blk.0.ssm_a", True), ("blk.0.ffn_up.weight", False)):
        first, second = read(tmp_path, turns_nothing), read(tmp_path, later, Tensor(name))
        if is_sound:
            assert len(join_shards([first, second]).tensors) > 1
        else:
            with pytest.raises(ModelInvalid, match="dimension_count is 0"):
                join_shards([first, second])
    alone = [*turns_nothing[:-1], string_pair("split.count", "2")]
    assert "rope.dimension_count is 0" in refusal(tmp_path, GgufFile(pairs=alone).to_bytes())


def test_attention_without_its_beginning_is_refused(tmp_path: Path, sound: Document) -> None:
    rest = tuple(tensor for tensor in sound.tensors if tensor.name != b"blk.1.attn_q.weight")
    message = refusal(tmp_path, replace(sound, tensors=rest).to_bytes())
    assert message == "'blk.1.attn_output.weight' is there, and no tensor of that block that makes queries."


def read(folder: Path, pairs: list[bytes], *tensors: Tensor) -> GgufMetadata:
    path = folder / "read.gguf"
    path.write_bytes((GgufFile(pairs=pairs, tensors=list(tensors)) if tensors else GgufFile(pairs=pairs)).to_bytes())
    return read_gguf(path)


def test_experts_that_go_together_are_let_through(tmp_path: Path, sound: Document) -> None:
    document = sound
    for name, value in (("count", 8), ("used_count", 2), ("group_count", 4), ("group_used_count", 2)):
        document = document.with_pair(f"llama.expert_{name}", UINT32, SCALARS[UINT32].pack(value))
    path = tmp_path / "moe.gguf"
    path.write_bytes(document.to_bytes())
    assert read_gguf(path).architecture == "llama"
    assert "does not go with 8 experts" in refusal(tmp_path, with_number(document, "llama.expert_group_count", 3))


@pytest.mark.parametrize(
    ("index_of", "kind", "said"),
    [
        ("output_norm.weight", 1, "has the type F16; norms"),
        ("blk.0.attn_q.weight", 26, "has the type I32, in which there are no weights"),
        ("token_embd.weight", 15, "of 64 elements, not a multiple"),
        ("blk.0.ffn_up.weight", 9, "has the type Q8_1, in which"),
    ],
)
def test_a_type_that_a_tensor_cannot_have_is_refused(
    tmp_path: Path, sound: Document, index_of: str, kind: int, said: str
) -> None:
    index = [tensor.name.decode() for tensor in sound.tensors].index(index_of)
    changed = sound.with_tensor(index, replace(sound.tensors[index], kind=kind))
    message = refusal(tmp_path, changed.to_bytes())
    assert index_of in message
    assert said in message


def test_a_vocabulary_that_the_engine_cannot_read_text_with_is_refused(tmp_path: Path, sound: Document) -> None:
    doubled = struct.pack("<IQ", STRING, 3) + text("a") + text("b") + text("a")
    message = refusal(tmp_path, sound.with_pair("tokenizer.ggml.tokens", ARRAY, doubled).to_bytes())
    assert message == "The token 'a' is in the vocabulary twice."
    for other, told in (("a\0c", "a"), ("[EMPTY_3]", "[EMPTY_3]")):
        tokens = struct.pack("<IQ", STRING, 4) + text("a") + text("b") + text(other) + text("")
        message = refusal(tmp_path, sound.with_pair("tokenizer.ggml.tokens", ARRAY, tokens).to_bytes())
        assert message == f"The token {told!r} is in the vocabulary twice."
    message = refusal(tmp_path, sound.with_pair("tokenizer.ggml.model", STRING, text("llama")).to_bytes())
    assert "0 of the 256 tokens for single bytes" in message
    message = refusal(tmp_path, sound.with_pair("tokenizer.ggml.model", STRING, text("llama\0x")).to_bytes())
    assert "0 of the 256 tokens for single bytes" in message
    message = refusal(tmp_path, sound.with_pair("tokenizer.ggml.model", STRING, text("none")).to_bytes())
    assert "no vocabulary" in message
    empty = GgufFile(pairs=[*default_pairs(), strings_pair("tokenizer.ggml.tokens", [])])
    assert refusal(tmp_path, empty.to_bytes()) == "The vocabulary has no tokens."
    one_too_many = struct.pack("<IQ", STRING, (1 << 20) + 1) + bytes(8 * ((1 << 20) + 1))
    huge = GgufFile(pairs=[*default_pairs(), pair("tokenizer.ggml.tokens", ARRAY, one_too_many)])
    assert "has 1048577 tokens; at most 1048576 are read" in refusal(tmp_path, huge.to_bytes())


@pytest.mark.parametrize(("kind", "default"), [("bert", 100), ("t5", 2)])
def test_a_vocabulary_without_a_token_for_what_is_unknown_is_refused(tmp_path: Path, kind: str, default: int) -> None:
    def pairs(tokens: int, unknown: int | None) -> list[bytes]:
        found = [*default_pairs(), string_pair("tokenizer.ggml.model", kind)]
        found.append(strings_pair("tokenizer.ggml.tokens", [f"w{number}" for number in range(tokens)]))
        return found if unknown is None else [*found, number_pair("tokenizer.ggml.unknown_token_id", unknown)]

    for tokens, unknown in ((default, None), (default, default), (1, 1 << 31)):
        message = refusal(tmp_path, GgufFile(pairs=pairs(tokens, unknown)).to_bytes())
        assert "no token for what is not in it, and tokenizer.ggml.unknown_token_id names none" in message
    for tokens, unknown in ((default + 1, None), (default, 0), (default + 1, 1 << 31)):
        assert read(tmp_path, pairs(tokens, unknown)).array_lengths["tokenizer.ggml.tokens"] == tokens


@pytest.mark.parametrize("tokens", [200, 2000])
def test_word_pieces_that_are_said_to_be_bytes_are_refused(tmp_path: Path, tokens: int) -> None:
    pairs = [*default_pairs(), string_pair("tokenizer.ggml.model", "bert")]
    pairs.append(strings_pair("tokenizer.ggml.tokens", [f"w{number}" for number in range(tokens)]))
    for kinds, is_let_through in (([1] * tokens, True), ([*[1] * (tokens - 1), 6], False)):
        types = struct.pack(f"<IQ{tokens}i", INT32, tokens, *kinds)
        told = [*pairs, pair("tokenizer.ggml.token_type", ARRAY, types)]
        if is_let_through:
            assert read(tmp_path, told).architecture == "llama"
        else:
            assert "tokens for single bytes" in refusal(tmp_path, GgufFile(pairs=told).to_bytes())


def test_names_that_the_engine_would_read_otherwise_are_refused(tmp_path: Path, sound: Document) -> None:
    key = "llama.attention.layer_norm_rms_epsilon"
    message = refusal(tmp_path, with_number(sound.without_pair(key), f"{key}\0x", -1.0))
    assert "has a zero byte in it" in message and "The key of" in message
    changed = sound.with_tensor(0, replace(sound.tensors[0], name=b"x\0y"))
    assert "The name of tensor 0 ('x\\x00y') has a zero byte" in refusal(tmp_path, changed.to_bytes())


def test_a_vocabulary_with_all_byte_tokens_is_let_through(tmp_path: Path, sound: Document) -> None:
    tokens = ["", "", *(f"<0x{byte:02X}>" for byte in range(256)), *(f"word{number}" for number in range(2000))]
    document = sound.with_pair("tokenizer.ggml.model", STRING, text("llama"))
    array = struct.pack("<IQ", STRING, len(tokens)) + b"".join(map(text, tokens))
    path = tmp_path / "spm.gguf"
    path.write_bytes(document.with_pair("tokenizer.ggml.tokens", ARRAY, array).to_bytes())
    assert read_gguf(path).array_lengths["tokenizer.ggml.tokens"] == 2258


def test_adapters_and_projectors_are_read(tmp_path: Path) -> None:
    adapter = [
        string_pair("general.architecture", "llama"),
        string_pair("general.type", "adapter"),
        string_pair("adapter.type", "lora"),
    ]
    names = ("blk.0.attn_q.weight.lora_a", "blk.0.attn_q.weight.lora_b")
    path = tmp_path / "one.gguf"
    path.write_bytes(GgufFile(pairs=adapter, tensors=[Tensor(name, kind=1) for name in names]).to_bytes())
    assert read_gguf(path).values["general.type"] == "adapter"
    projector = [
        string_pair("general.architecture", "clip"),
        string_pair("general.type", "mmproj"),
        number_pair("clip.vision.block_count", 27),
    ]
    tensors = [Tensor("v.class_embd", shape=(64,), kind=1), Tensor("mm.0.weight", kind=30)]
    path.write_bytes(GgufFile(pairs=projector, tensors=tensors).to_bytes())
    assert read_gguf(path).architecture == "clip"


def test_a_file_cut_anywhere_between_two_parts_is_refused(tmp_path: Path, sound: Document) -> None:
    content = sound.to_bytes()
    for end in sorted({*Document.read(content).ends, *(end - 1 for end in sound.ends), 0, 1}):
        if end < sound.ends[-1]:
            assert refusal(tmp_path, content[:end])


def test_dimensions_that_overflow_or_lie_over_one_another_are_refused(tmp_path: Path, sound: Document) -> None:
    first = sound.tensors[0]
    for shape, said in (
        ((1 << 32, 1 << 32), "overflow"),
        ((1 << 63, 2), "overflow"),
        ((64, 0), "no elements"),
        ((64, (1 << 40)), "beyond the file's end"),
    ):
        huge = replace(first, shape=shape, data=b"")
        changed = replace(sound, tensors=(*sound.tensors[1:], huge))
        content = GgufFile(tensors=[Tensor("x.weight", shape=shape)]).header() if said == "overflow" else b""
        assert said in refusal(tmp_path, content or _raw(changed)), shape


def _raw(document: Document) -> bytes:
    """Without the data of the last tensor, which may be larger than any file."""
    return replace(document, tensors=(*document.tensors[:-1], _Small(document.tensors[-1]))).to_bytes()


class _Small(TensorEntry):
    """Claims a shape and brings no data."""

    def __init__(self, of: TensorEntry) -> None:
        super().__init__(of.name, of.shape, of.kind, b"")

    @property
    def natural_size(self) -> int:
        return 0


def test_no_claim_makes_the_reader_take_memory(tmp_path: Path) -> None:
    claims = [
        GgufFile(tensor_count=1 << 60).to_bytes(),
        GgufFile(pair_count=1 << 60).to_bytes(),
        GgufFile(pairs=[*default_pairs(), struct.pack("<Q", (1 << 64) - 1)]).to_bytes(),
        GgufFile(pairs=[text("k") + struct.pack("<I", STRING) + struct.pack("<Q", (1 << 64) - 8)]).to_bytes(),
        GgufFile(pairs=[text("k") + struct.pack("<IIQ", ARRAY, UINT32, 1 << 62)]).to_bytes(),
        GgufFile(pairs=[text("k") + struct.pack("<IIQ", ARRAY, ARRAY, 1 << 62)]).to_bytes(),
    ]
    tracemalloc.start()
    try:
        for claim in claims:
            assert refusal(tmp_path, claim)
        assert tracemalloc.get_traced_memory()[1] < 32 << 20
    finally:
        tracemalloc.stop()


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@example(at=24, new=b"\xff" * 8)
@given(at=st.integers(0, 20_000), new=st.binary(min_size=1, max_size=9))
def test_whatever_is_changed_is_refused_with_a_sentence_or_read(
    tmp_path: Path, sound: Document, at: int, new: bytes
) -> None:
    content = bytearray(sound.to_bytes())
    content[at : at + len(new)] = new
    path = tmp_path / "changed.gguf"
    path.write_bytes(content)
    try:
        read_gguf(path)
    except ModelInvalid as error:
        assert error.message.endswith(".")
