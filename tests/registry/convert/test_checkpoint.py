"""Checkpoints come from strangers: everything in them is checked, and what is not understood is refused."""

from __future__ import annotations

import contextlib
import json
import os
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from registry.convert.checkpoint import Checkpoint, read_safetensors
from registry.convert.convert import convert
from registry.errors import DiskFull, ModelInvalid, RegistryError, Unsupported
from tests.registry.convert.checkpoints import (
    LLAMA3_PATTERN,
    Weights,
    byte_level_tokenizer,
    decoder_config,
    decoder_weights,
    write_checkpoint,
    write_safetensors,
)

FILES = {"tokenizer.json": byte_level_tokenizer(LLAMA3_PATTERN)}


def raw_safetensors(path: Path, header: object, data: bytes = bytes(64)) -> Path:
    encoded = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(encoded)) + encoded + data)
    return path


def entry(**changes: object) -> dict[str, object]:
    return {"x": {"dtype": "F32", "shape": [4, 4], "data_offsets": [0, 64]} | changes}


def test_tensors_are_read_as_they_were_written(tmp_path: Path) -> None:
    data = np.arange(12, dtype=np.float32).reshape(3, 4)
    write_safetensors(tmp_path / "x", {"a": data, "b": data + 1}, "F16")
    found = {tensor.name: tensor for tensor in read_safetensors(tmp_path / "x")}
    assert found["b"].shape == (3, 4) and found["b"].dtype == "F16"
    np.testing.assert_array_equal(found["b"].read(), data + 1)


@pytest.mark.parametrize(
    ("header", "error", "complaint"),
    [
        (b"{", ModelInvalid, "not in safetensors format"),
        (b"{}}", ModelInvalid, "not JSON"),
        (b"[]", ModelInvalid, "not a JSON object"),
        (b"[" * 200_000, ModelInvalid, "not JSON"),
        ({"x": 1}, ModelInvalid, "is not described"),
        (entry(dtype="F8_E4M3"), Unsupported, "F8_E4M3"),
        (entry(dtype=["F32"]), Unsupported, "F32"),
        (entry(shape=[4, -4]), ModelInvalid, "no sound shape"),
        (entry(shape=[2, 2, 2, 2, 1]), ModelInvalid, "no sound shape"),
        (entry(shape=[4, 8]), ModelInvalid, "does not lie inside"),
        (entry(shape=[1 << 40, 1 << 40]), ModelInvalid, "does not lie inside"),
        (entry(data_offsets=[64, 128]), ModelInvalid, "does not lie inside"),
        (entry(data_offsets=[64, 0]), ModelInvalid, "does not lie inside"),
        (entry(data_offsets=[0]), ModelInvalid, "no place"),
        (entry(data_offsets=[0, True]), ModelInvalid, "no place"),
    ],
)
def test_a_hostile_header_is_refused(
    tmp_path: Path, header: object, error: type[RegistryError], complaint: str
) -> None:
    with pytest.raises(error, match=complaint):
        list(read_safetensors(raw_safetensors(tmp_path / "x", header)))


@pytest.mark.parametrize("content", [b"", b"abc", struct.pack("<Q", 1 << 60), struct.pack("<Q", 500) + b"{}"])
def test_a_file_that_is_too_short_for_what_it_claims_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x").write_bytes(content)
    with pytest.raises(ModelInvalid, match="not in safetensors format"):
        list(read_safetensors(tmp_path / "x"))


@given(content=st.binary(max_size=300))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_bytes_make_the_reader_stumble(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x").write_bytes(struct.pack("<Q", max(0, len(content) - 16)) + content)
    with contextlib.suppress(ModelInvalid, Unsupported):
        list(read_safetensors(tmp_path / "x"))


def without(name: str) -> Callable[[dict[str, Any], Weights], None]:
    def change(_: dict[str, Any], weights: Weights) -> None:
        del weights[name]

    return change


def saying(**said: object) -> Callable[[dict[str, Any], Weights], None]:
    return lambda config, _: config.update(said)


def adding(name: str) -> Callable[[dict[str, Any], Weights], None]:
    return lambda _, weights: weights.update({name: np.zeros((2, 2), np.float32)})


@pytest.mark.parametrize(
    ("change", "error", "complaint"),
    [
        (saying(architectures=["MambaForCausalLM"]), Unsupported, "MambaForCausalLM are not converted"),
        (saying(architectures=None), Unsupported, "nobody named"),
        (saying(hidden_size="wide"), ModelInvalid, "'wide' for hidden_size"),
        (saying(num_hidden_layers=0), ModelInvalid, "0 for num_hidden_layers"),
        (saying(num_hidden_layers=1), ModelInvalid, "has 2 blocks, and config.json says 1"),
        (saying(num_hidden_layers=3), ModelInvalid, "Block 2 of the checkpoint is not complete"),
        (saying(vocab_size=17), ModelInvalid, "says 17 tokens"),
        (saying(hidden_act="relu"), Unsupported, "'relu' for hidden_act"),
        (saying(sliding_window=4096), Unsupported, "sliding window"),
        (saying(rope_scaling={"type": "longrope"}), Unsupported, "'longrope' rope scaling"),
        (without("model.embed_tokens.weight"), ModelInvalid, "no token embeddings"),
        (without("model.layers.1.mlp.up_proj.weight"), ModelInvalid, r"Block 1 .* not complete: ffn_up.weight"),
        (adding("model.layers.0.mlp.experts.0.w1.weight"), Unsupported, "has no place in models of this family"),
        (adding("norm.weight"), ModelInvalid, "a tensor twice"),
    ],
)
def test_a_checkpoint_that_would_compute_something_else_is_refused(
    tmp_path: Path,
    change: Callable[[dict[str, Any], Weights], None],
    error: type[RegistryError],
    complaint: str,
) -> None:
    config = decoder_config("LlamaForCausalLM", 2)
    weights = decoder_weights(config)
    change(config, weights)
    folder = write_checkpoint(tmp_path / "c", config, weights, files=FILES)
    with pytest.raises(error, match=complaint):
        convert(folder, tmp_path / "out.gguf")


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    config = decoder_config("LlamaForCausalLM", 2)
    folder = write_checkpoint(tmp_path / "c", config, decoder_weights(config), files=FILES, shards=3)
    (folder / "model-00002-of-00003.safetensors").unlink()
    with pytest.raises(ModelInvalid, match=r"model-00002-of-00003.safetensors is missing"):
        Checkpoint(folder)


def test_what_will_not_fit_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    config = decoder_config("LlamaForCausalLM", 2)
    folder = write_checkpoint(tmp_path / "c", config, decoder_weights(config), files=FILES)
    with pytest.raises(DiskFull, match="room for 0 MB"):
        convert(folder, tmp_path / "out.gguf", room=1000)
    assert not (tmp_path / "out.gguf").exists()


def test_the_program_tells_its_progress_and_its_refusals(tmp_path: Path) -> None:
    config = decoder_config("LlamaForCausalLM", 2)
    folder = write_checkpoint(tmp_path / "c", config, decoder_weights(config), files=FILES)
    command = [sys.executable, "-P", "-m", "registry.convert", str(folder), str(tmp_path / "out.gguf")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    fractions = [json.loads(line)["fraction"] for line in done.stdout.splitlines()]
    assert fractions == sorted(fractions) and fractions[-1] == 1.0 and len(fractions) > 5
    (folder / "config.json").unlink()
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert json.loads(done.stdout) == {"error": "The checkpoint has no config.json.", "code": "model_invalid"}


def test_the_program_ends_in_order_while_its_input_is_open(tmp_path: Path) -> None:
    config = decoder_config("LlamaForCausalLM", 2)
    folder = write_checkpoint(tmp_path / "c", config, decoder_weights(config), files=FILES)
    command = [sys.executable, "-P", "-m", "registry.convert", "--piped", str(folder), str(tmp_path / "out.gguf")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL) as process:
        assert process.wait(60) == 0


@pytest.mark.skipif(os.name == "nt", reason="no named pipes in folders there")
def test_the_program_ends_with_its_input(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    os.mkfifo(tmp_path / "model.safetensors")  # reading it would wait for ever
    command = [sys.executable, "-P", "-m", "registry.convert", "--piped", str(tmp_path), str(tmp_path / "out.gguf")]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=60, check=False)
    assert done.returncode == 0
