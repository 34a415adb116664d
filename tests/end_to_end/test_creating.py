"""Models made over the API by a real daemon: of shards, with a projector, quantized, and then used."""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.end_to_end.conftest import Daemon, running_daemon
from tests.registry.model_parts import projector
from tests.tiny_adapter import write_tiny_adapter
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


def answer(daemon: Daemon, name: str, **asked: Any) -> dict[str, Any]:
    options = {"num_predict": 8, "seed": 1, "temperature": 0, **asked}
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


def test_adapters_answer_as_much_as_each_request_wants_of_them(own_daemon: Daemon, tmp_path: Path) -> None:
    # Numbers are always added up in the same order, so that texts can be compared.
    settled = {"num_thread": 1, "flash_attention": "off", "draft_num_predict": 0}
    # Weights of their own: what other tests have loaded would be loaded again.
    create(own_daemon, "plain", [write_tiny_model(tmp_path / "plain.gguf", seed=7)], parameters=settled)
    adapters = {}
    for name, seed in (("one.gguf", 5), ("two.gguf", 6)):
        write_tiny_adapter(tmp_path / name, seed=seed)
        adapters[name] = upload(own_daemon, tmp_path / name)
    body = {"model": "tuned", "from": "plain", "adapters": adapters, "stream": False}
    assert own_daemon.client.post("/api/create", json=body).json() == {"status": "success"}
    plain = answer(own_daemon, "plain")["response"]
    scales: list[list[float] | None] = [None, [1, 1], [1, 0], [0, 1], [0, 0], [0.5, 1]]
    alone = [answer(own_daemon, "tuned", lora_scales=one)["response"] for one in scales]
    assert alone[0] == alone[1]
    assert alone[4] == plain
    assert len({alone[0], alone[2], alone[3], alone[4]}) == 4
    with ThreadPoolExecutor(8) as pool:
        jobs = [pool.submit(answer, own_daemon, "tuned", lora_scales=one) for one in scales * 2]
        # Later ones may differ: what is computed together agrees with what is computed alone within a tolerance.
        assert [job.result()["response"][0] for job in jobs] == [text[0] for text in alone * 2]
    told = answer(own_daemon, "tuned", lora_scales=[1, 1, 1])
    assert (told["code"], told["field"]) == ("invalid_request", "options.lora_scales")
    [row] = [model for model in own_daemon.loaded() if model["name"] in ("tuned:latest", "plain:latest")]
    assert row["last_reload_reason"] is None
    assert row["memory"]["adapters"] == sum((tmp_path / name).stat().st_size for name in adapters)


def test_how_a_model_is_loaded_is_told_and_changed_when_a_request_asks(own_daemon: Daemon, tmp_path: Path) -> None:
    create(own_daemon, "wide", [write_tiny_model(tmp_path / "wide.gguf", width=256)])

    def row() -> dict[str, Any]:
        [found] = [model for model in own_daemon.loaded() if model["name"] == "wide:latest"]
        return found

    assert answer(own_daemon, "wide")["response"]
    assert row()["options"].get("kv_cache_type") is None
    assert answer(own_daemon, "wide", kv_cache_type="q8_0", flash_attention="on")["response"]
    assert row()["options"]["kv_cache_type"] == "q8_0"
    assert row()["last_reload_reason"] == "a request asked for kv_cache_type q8_0, and f16 was loaded"
    assert answer(own_daemon, "wide")["response"]
    assert row()["options"]["kv_cache_type"] == "q8_0"
    stretched = answer(own_daemon, "wide", num_ctx=1024, rope_frequency_scale=0.5, rope_scaling="yarn")
    assert stretched["response"]
    assert row()["context_length"] == 1024
    assert answer(own_daemon, "wide")["response"]
    assert "rope_scaling the model's own" in row()["last_reload_reason"]
    for wrong in ({"kv_cache_type": "q5_1"}, {"flash_attention": True}, {"tensor_split": "a"}, {"rope_scaling": "x"}):
        told = answer(own_daemon, "wide", **wrong)
        assert (told["code"], told["field"]) == ("invalid_request", f"options.{next(iter(wrong))}")
    create(own_daemon, "narrow", [write_tiny_model(tmp_path / "narrow.gguf")])
    told = answer(own_daemon, "narrow", kv_cache_type="q4_0")
    assert (told["code"], told["field"]) == ("unsupported", "kv_cache_type")
