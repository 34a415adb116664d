"""What a model can do, told from its header, its template and its projectors."""

from __future__ import annotations

from pathlib import Path

import pytest

from registry.capabilities import capabilities
from registry.gguf_metadata import GgufMetadata, read_gguf
from tests.registry.gguf_bytes import GgufFile, default_pairs, number_pair, string_pair
from tests.registry.model_parts import projector


def metadata(path: Path, *pairs: bytes, template: str | None = None, architecture: str = "llama") -> GgufMetadata:
    known = [pair for pair in default_pairs() if b"chat_template" not in pair and b"general.architecture" not in pair]
    known.append(string_pair("general.architecture", architecture))
    if template is not None:
        known.append(string_pair("tokenizer.chat_template", template))
    path.write_bytes(GgufFile(pairs=[*known, *pairs]).to_bytes())
    return read_gguf(path)


@pytest.mark.parametrize(
    ("pairs", "expected"),
    [
        ((), ("completion",)),
        ((number_pair("llama.pooling_type", 1),), ("embedding",)),
        ((number_pair("llama.pooling_type", 4),), ("rerank",)),
        ((number_pair("llama.vision.block_count", 2),), ("completion", "vision")),
        ((number_pair("llama.audio.block_count", 2),), ("completion", "audio")),
        (
            tuple(number_pair(f"tokenizer.ggml.fim_{one}_token_id", 1) for one in ("pre", "suf", "mid")),
            ("completion", "insert"),
        ),
        (
            tuple(number_pair(f"tokenizer.ggml.{one}_token_id", 1) for one in ("prefix", "suffix", "middle")),
            ("completion", "insert"),
        ),
        ((number_pair("tokenizer.ggml.fim_pre_token_id", 1),), ("completion",)),
    ],
)
def test_the_header_tells_what_a_model_does(
    tmp_path: Path, pairs: tuple[bytes, ...], expected: tuple[str, ...]
) -> None:
    assert capabilities(metadata(tmp_path / "x", *pairs), None) == expected


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("{% if tools %}{{ tools }}{% endif %}", {"tools"}),
        ("<tool_call>{{ messages }}", {"tools"}),
        ("{{ content.split('</think>')[-1] }}", {"thinking"}),
        ("<think>{{ messages }}</think>", {"thinking"}),
        ("{{ messages }}</think>", set()),
        ("{{ if .Tools }}{{ .Tools }}{{ end }}{{ .Prompt }}", {"tools"}),
        ("{{ .Prompt }}{{ .Suffix }}", {"insert"}),
        ("{{ if .Thinking }}{{ .Thinking }}{{ end }}", {"thinking"}),
        ("{{ .Prompt }} about tools", set()),
    ],
)
def test_the_template_tells_what_a_model_understands(tmp_path: Path, template: str, expected: set[str]) -> None:
    found = capabilities(metadata(tmp_path / "x"), template)
    assert found[0] == "completion" and set(found[1:]) == expected


def test_the_template_in_the_file_counts_beside_the_models_own(tmp_path: Path) -> None:
    own = metadata(tmp_path / "x", template="{{ tools }}")
    assert capabilities(own, "{{ .Prompt }}") == ("completion", "tools")


def test_a_harmony_model_thinks(tmp_path: Path) -> None:
    own = metadata(tmp_path / "x", template="<|start|>{{ messages }}<|end|>", architecture="gpt-oss")
    assert "thinking" in capabilities(own, None)


@pytest.mark.parametrize("what", ["vision", "audio"])
def test_a_projector_gives_its_sense_to_the_model(tmp_path: Path, what: str) -> None:
    (tmp_path / "p").write_bytes(projector(what=what))
    assert capabilities(metadata(tmp_path / "x"), None, [read_gguf(tmp_path / "p")]) == ("completion", what)
