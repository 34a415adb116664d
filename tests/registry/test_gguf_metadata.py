"""What the header of a model file is worth: figures, sizes, capabilities."""

from __future__ import annotations

from pathlib import Path

import pytest

from registry.capabilities import capabilities
from registry.errors import ModelInvalid
from registry.gguf_metadata import GgufMetadata, human_count, read_gguf
from tests.registry.gguf_bytes import (
    GgufFile,
    Tensor,
    default_pairs,
    number_pair,
    numbers_pair,
    string_pair,
    tiny_gguf,
)


def read(folder: Path, content: bytes) -> GgufMetadata:
    path = folder / "model.gguf"
    path.write_bytes(content)
    return read_gguf(path)


def of_pairs(folder: Path, *pairs: bytes) -> GgufMetadata:
    return read(folder, GgufFile(pairs=list(pairs)).to_bytes())


def test_figures_come_from_the_header(tmp_path: Path) -> None:
    metadata = read(tmp_path, tiny_gguf())
    assert metadata.architecture == "llama"
    assert (metadata.block_count, metadata.context_length, metadata.embedding_length) == (2, 128, 32)
    assert metadata.parameter_count == 256
    assert metadata.weights_size == 1024
    assert metadata.chat_template == "{{ messages[0].content }}"
    # Two blocks of two heads, keys and values of 32 / 4 numbers, two bytes each.
    assert metadata.kv_bytes_per_token() == 2 * 2 * (8 + 8) * 2


def test_stated_key_and_value_lengths_win_over_the_width(tmp_path: Path) -> None:
    metadata = read(
        tmp_path,
        tiny_gguf(number_pair("llama.attention.key_length", 192), number_pair("llama.attention.value_length", 128)),
    )
    assert metadata.kv_bytes_per_token() == 2 * 2 * (192 + 128) * 2


def test_heads_may_differ_from_block_to_block(tmp_path: Path) -> None:
    pairs = [one for one in default_pairs() if b"head_count_kv" not in one]
    metadata = of_pairs(tmp_path, *pairs, numbers_pair("llama.attention.head_count_kv", [0, 3]))
    assert metadata.kv_bytes_per_token() == 3 * 16 * 2


def test_without_key_value_heads_every_head_counts(tmp_path: Path) -> None:
    pairs = [one for one in default_pairs() if b"head_count_kv" not in one]
    assert of_pairs(tmp_path, *pairs).head_count_kv == (4, 4)


@pytest.mark.parametrize(
    ("pair", "complaint"),
    [
        (number_pair("x.block_count", 513), "at most 512"),
        (string_pair("x.block_count", "many"), "not an integer"),
        (number_pair("x.embedding_length", 1 << 30), "makes sense"),
        (numbers_pair("x.attention.head_count", [1]), "1 entries for 4 blocks"),
        (number_pair("x.attention.head_count_kv", 1 << 20), "makes sense"),
        (number_pair("tokenizer.chat_template", 1), "not a string"),
    ],
)
def test_figures_that_make_no_sense_are_refused(tmp_path: Path, pair: bytes, complaint: str) -> None:
    pairs = [string_pair("general.architecture", "x")]
    if b"block_count" not in pair:
        pairs.append(number_pair("x.block_count", 4))
    with pytest.raises(ModelInvalid, match=complaint):
        of_pairs(tmp_path, *pairs, pair)


@pytest.mark.parametrize("architecture", ["", "../etc", "LLaMA", "a b", "x" * 65])
def test_an_architecture_is_a_plain_word(tmp_path: Path, architecture: str) -> None:
    with pytest.raises(ModelInvalid, match=r"general\.architecture"):
        of_pairs(tmp_path, string_pair("general.architecture", architecture))
    with pytest.raises(ModelInvalid, match=r"general\.architecture"):
        of_pairs(tmp_path, string_pair("general.name", "x"))


def test_the_quantization_is_the_stated_one_or_that_of_most_weights(tmp_path: Path) -> None:
    assert read(tmp_path, tiny_gguf(number_pair("general.file_type", 15))).file_type_name == "Q4_K_M"
    assert read(tmp_path, tiny_gguf(number_pair("general.file_type", 15 | 1024))).file_type_name == "Q4_K_M"
    mixed = GgufFile(tensors=[Tensor("a", (32,)), Tensor("b", (64, 64), kind=2), Tensor("c", (32, 2), kind=1)])
    assert read(tmp_path, mixed.to_bytes()).file_type_name == "Q4_0"


@pytest.mark.parametrize(
    ("count", "shown"),
    [(999, "999"), (12_000, "12K"), (134_515_008, "135M"), (1_235_814_432, "1.2B"), (7_000_000_000, "7B")],
)
def test_counts_are_shown_as_people_say_them(count: int, shown: str) -> None:
    assert human_count(count) == shown


def test_capabilities_follow_from_header_and_templates(tmp_path: Path) -> None:
    plain = read(tmp_path, tiny_gguf())
    assert capabilities(plain, None) == ("completion",)
    assert capabilities(plain, "{% if tools %}{{ tools }}{% endif %}") == ("completion", "tools")
    assert capabilities(plain, "<think>{{ reasoning }}</think>") == ("completion", "thinking")
    assert capabilities(plain, "{{ if .Suffix }}{{ .Suffix }}{{ end }}{{ range .Tools }}x{{ end }}") == (
        "completion",
        "tools",
        "insert",
    )
    embedder = read(tmp_path, tiny_gguf(number_pair("llama.pooling_type", 1)))
    assert capabilities(embedder, None) == ("embedding",)
    seer = read(tmp_path, tiny_gguf(number_pair("llama.vision.block_count", 4)))
    assert capabilities(seer, None) == ("completion", "vision")
