"""Models made over the API by a real daemon: of shards, with a projector, quantized, and then used."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest

from tests.end_to_end.conftest import Daemon, running_daemon
from tests.registry.model_parts import projector
from tests.tiny_model import write_tiny_model


@pytest.fixture(scope="module")
def own_daemon(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("creating")
    with running_daemon(folder, folder / "models") as daemon:
        yield daemon


def upload(daemon: Daemon, path: Path) -> str:
    digest = f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}"
    assert daemon.client.post(f"/api/blobs/{digest}", content=path.read_bytes()).status_code in (200, 201)
    return digest


def create(daemon: Daemon, name: str, files: list[Path], **said: Any) -> dict[str, Any]:
    digests = {path.name: upload(daemon, path) for path in files}
    body = {"model": name, "files": digests, "stream": False, **said}
    answer: dict[str, Any] = daemon.client.post("/api/create", json=body).json()
    return answer


def answer(daemon: Daemon, name: str) -> dict[str, Any]:
    options = {"num_predict": 8, "seed": 1, "temperature": 0}
    body = {"model": name, "prompt": "hello", "stream": False, "options": options}
    told: dict[str, Any] = daemon.client.post("/api/generate", json=body).json()
    return told


def test_shards_with_a_projector_answer_as_the_whole_model_does(own_daemon: Daemon, tmp_path: Path) -> None:
    whole = write_tiny_model(tmp_path / "whole.gguf")
    write_tiny_model(tmp_path / "m.gguf", max_tensors=8)
    eyes = tmp_path / "mmproj.gguf"
    eyes.write_bytes(projector())
    shards = [tmp_path / f"m-{number:05}-of-00003.gguf" for number in (3, 1, 2)]
    assert create(own_daemon, "whole", [whole]) == {"status": "success"}
    assert create(own_daemon, "parts", [*shards, eyes]) == {"status": "success"}
    assert answer(own_daemon, "parts")["response"] == answer(own_daemon, "whole")["response"] != ""
    shown = own_daemon.client.post("/api/show", json={"model": "parts"}).json()
    assert "vision" in shown["capabilities"]
    assert shown["fit"]["measured"] and shown["fit"]["kv_cache_per_1k_tokens"] > 0


def test_a_quantized_model_answers_and_is_shown_as_such(own_daemon: Daemon, tmp_path: Path) -> None:
    full = write_tiny_model(tmp_path / "full.gguf", width=256)
    assert create(own_daemon, "small", [full], quantize="q4_K_M") == {"status": "success"}
    assert answer(own_daemon, "small")["done"]
    shown = own_daemon.client.post("/api/show", json={"model": "small"}).json()
    assert shown["details"]["quantization_level"] == "Q4_K_M"
    body = {"model": "x", "from": "small", "quantize": "q8_0", "stream": False}
    again = own_daemon.client.post("/api/create", json=body)
    assert again.status_code == 400 and "only supported for F16, BF16 and F32" in again.json()["error"]


def test_a_model_with_an_adapter_is_kept_and_not_run(own_daemon: Daemon, tmp_path: Path) -> None:
    create(own_daemon, "plain", [write_tiny_model(tmp_path / "plain.gguf")])
    path = tmp_path / "lora.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_type("adapter")
    writer.add_string("adapter.type", "lora")
    writer.add_float32("adapter.lora.alpha", 8.0)
    writer.add_tensor("blk.0.attn_q.weight.lora_a", np.zeros((4, 64), np.float32))
    writer.add_tensor("blk.0.attn_q.weight.lora_b", np.zeros((64, 4), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    body = {"model": "tuned", "from": "plain", "adapters": {path.name: upload(own_daemon, path)}, "stream": False}
    assert own_daemon.client.post("/api/create", json=body).json() == {"status": "success"}
    told = answer(own_daemon, "tuned")
    assert told["code"] == "unsupported" and "LoRA" in told["error"]
