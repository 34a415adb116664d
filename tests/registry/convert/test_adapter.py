"""A converted adapter computes W + scale · B A, for every family whose models are converted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from registry.adapter_files import described_base
from registry.convert.adapter import convert_adapter
from registry.convert.convert import convert
from registry.errors import DiskFull, ModelInvalid, RegistryError, Unsupported
from registry.gguf_metadata import read_gguf
from registry.parts import check_adapter
from tests.registry.convert.adapters import write_adapter
from tests.registry.convert.checkpoints import bert_weights, decoder_weights, write_checkpoint
from tests.registry.convert.engine import engine_embedding, engine_logits
from tests.registry.convert.reference import bert_embedding, decoder_logits
from tests.registry.convert.test_families import BERT, BERT_FILES, BERT_TOKENS, CASES, TOKENS

LAYER = "model.layers.1."
PROJECTIONS = [
    f"{LAYER}{part}.weight"
    for part in ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj", "mlp.down_proj")
]
BERT_PARTS = [
    f"encoder.layer.0.{part}.weight"
    for part in ("attention.self.query", "attention.output.dense", "intermediate.dense")
]
LLAMA = "llama"


def check_same(folder: Path, case: str, names: Any, **said: object) -> Path:
    """With the adapter the model computes what its definition gives with the product in the weights."""
    is_bert = case == "bert"
    config, weights, files = (BERT, bert_weights(BERT), BERT_FILES) if is_bert else CASES[case]
    base = write_checkpoint(folder / "base", config, weights, files=files)
    added = write_adapter(folder / "adapter", weights, names, **said)
    convert(base, folder / "base.gguf")
    metadata = read_gguf(folder / "base.gguf")
    converted = folder / "adapter.gguf"
    convert_adapter(folder / "adapter", described_base(metadata), converted)
    check_adapter(read_gguf(converted), metadata)
    merged = {name: one + added.get(name, np.float32(0)) for name, one in weights.items()}
    if is_bert:
        alone, expected = (bert_embedding(config, one, BERT_TOKENS) for one in (weights, merged))
        found = engine_embedding(folder / "base.gguf", BERT_TOKENS, converted)
    else:
        alone, expected = (decoder_logits(config, one, TOKENS) for one in (weights, merged))
        found = engine_logits(folder / "base.gguf", TOKENS, converted)
    np.testing.assert_allclose(found, expected, atol=3e-3, rtol=3e-3)
    assert np.abs(alone - expected).max() > 0.05
    return converted


@pytest.mark.parametrize("case", ["llama", "qwen2", "qwen3", "gemma3"])
def test_an_adapter_adds_its_product_to_the_weights(tmp_path: Path, case: str) -> None:
    check_same(tmp_path, case, PROJECTIONS)


def test_an_adapter_of_bert_adds_its_product_to_the_weights(tmp_path: Path) -> None:
    check_same(tmp_path, "bert", BERT_PARTS)


def test_embeddings_and_heads_are_changed_too(tmp_path: Path) -> None:
    check_same(tmp_path, LLAMA, ["model.embed_tokens.weight", "lm_head.weight"])


@pytest.mark.parametrize(
    "said",
    [{"use_rslora": True}, {"alpha_pattern": {"q_proj": 1.0, "layers.1.mlp.down_proj": 20}}],
    ids=["rslora", "alphas"],
)
def test_scales_of_single_modules_are_kept(tmp_path: Path, said: dict[str, object]) -> None:
    ranks = {name: 2 + number for number, name in enumerate(PROJECTIONS)}
    check_same(tmp_path, LLAMA, ranks, **said)


def test_the_same_adapter_gives_the_same_bytes(tmp_path: Path) -> None:
    first = check_same(tmp_path, LLAMA, PROJECTIONS[:1])
    again = tmp_path / "again.gguf"
    base = described_base(read_gguf(tmp_path / "base.gguf"))
    convert_adapter(tmp_path / "adapter", base, again)
    assert again.read_bytes() == first.read_bytes()
    with pytest.raises(DiskFull, match="room for 0 MB"):
        convert_adapter(tmp_path / "adapter", base, again, room=10)


BASE = {"architecture": "llama", "num_attention_heads": 4, "num_key_value_heads": 2, "tie_word_embeddings": True}


@pytest.mark.parametrize(
    ("base", "config", "error", "complaint"),
    [
        ({"architecture": "mamba"}, {}, Unsupported, "this one is mamba"),
        ({}, {"peft_type": "IA3"}, Unsupported, "IA3"),
        ({}, {"use_dora": True}, Unsupported, "use_dora"),
        ({}, {"bias": "all"}, Unsupported, "bias"),
        ({}, {"fan_in_fan_out": True}, Unsupported, "fan_in_fan_out"),
        ({}, {"modules_to_save": ["lm_head"]}, Unsupported, "modules_to_save"),
        ({}, {"lora_alpha": None}, ModelInvalid, "lora_alpha"),
        ({}, {"lora_alpha": float("nan")}, ModelInvalid, "no number to compute with"),
        ({}, {"alpha_pattern": {"(a+)+$": 3}}, Unsupported, "expression"),
    ],
)
def test_what_the_engine_does_not_compute_is_refused(
    tmp_path: Path, base: dict[str, object], config: dict[str, object], error: type[RegistryError], complaint: str
) -> None:
    write_adapter(tmp_path, decoder_weights(CASES[LLAMA][0]), PROJECTIONS[:1], **config)
    with pytest.raises(error, match=complaint):
        convert_adapter(tmp_path, BASE | base, tmp_path / "out.gguf")


def test_a_tensor_that_has_no_place_is_refused(tmp_path: Path) -> None:
    weights = decoder_weights(CASES[LLAMA][0])
    for name, complaint in (("lm_head.weight", "lm_head"), ("model.layers.0.odd.weight", "odd")):
        write_adapter(tmp_path, {**weights, "model.layers.0.odd.weight": weights["lm_head.weight"]}, [name])
        with pytest.raises(Unsupported, match=f"{complaint}.* has no place"):
            convert_adapter(tmp_path, BASE, tmp_path / "out.gguf")


def test_what_is_no_adapter_is_refused(tmp_path: Path) -> None:
    weights = decoder_weights(CASES[LLAMA][0])
    write_adapter(tmp_path, weights, PROJECTIONS[:1])
    file, config = tmp_path / "adapter_model.safetensors", tmp_path / "adapter_config.json"
    content = file.read_bytes()
    for changed, complaint in (
        (content.replace(b"lora_A", b"lora_X"), "no half of a LoRA pair"),
        (content.replace(b"lora_A", b"lora_B", 1).replace(b"[4, 64]", b"[4, 64]"), "one half|comes twice|has only"),
        (b"nonsense", "not in safetensors format"),
    ):
        file.write_bytes(changed)
        with pytest.raises(RegistryError, match=complaint):
            convert_adapter(tmp_path, BASE, tmp_path / "out.gguf")
    file.write_bytes(content)
    for text, complaint in (("[]", "not a JSON object"), (json.dumps({"peft_type": "LORA"}), "lora_alpha")):
        config.write_text(text)
        with pytest.raises(ModelInvalid, match=complaint):
            convert_adapter(tmp_path, BASE, tmp_path / "out.gguf")
    config.unlink()
    with pytest.raises(ModelInvalid, match=r"no adapter_config\.json"):
        convert_adapter(tmp_path, BASE, tmp_path / "out.gguf")
