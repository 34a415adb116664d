"""How a model fits: what it needs is measured once, and where it would go is decided from that."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest

from registry.create import create_model
from registry.gguf_header import TensorInfo
from registry.name import ModelName
from registry.recipe import Recipe
from registry.store import ModelStore
from registry.stored_model import StoredModel
from runner.jobs import Measured, WindowNeeds
from runner.supervisor.fit import Fit, FitMeter, Needs, decide, needs_of
from runner.supervisor.jobs import Jobs
from runner.supervisor.kernels import fast_types, has_fast_kernel, kernel_sentence, main_type
from runner.supervisor.likely_fit import LikelyFit
from runner.supervisor.memory import Room, plan_memory
from runner.supervisor.types import LoadWishes, MemoryFacts
from tests.runner.supervisor_fixtures import FakeMachine
from tests.tiny_adapter import write_tiny_adapter
from tests.tiny_model import write_tiny_model

GIB = 1 << 30
NAME = ModelName.parse("tiny")

SCRIPT = """
import os, struct, sys
sys.path.insert(0, {root!r})
from runner.jobs import *
sys.stdin.buffer.read(struct.unpack("<I", sys.stdin.buffer.read(4))[0])
open({count!r}, "a").write("x")
{then}
"""
ANSWER = """
needs = (WindowNeeds(4096, 5000, 70), WindowNeeds(8192, 9096, 80))
gpu = DeviceFacts("GPU0", "gpu", "A card", {vram}, {vram})
report = Measured(3, needs, (gpu,) if {vram} else (), ("AVX2", "REPACK"))
sys.stdout.buffer.write(encode_job_frame(report))
"""


@pytest.fixture
async def model(tmp_path: Path) -> StoredModel:
    store = ModelStore(tmp_path / "models")
    digest = store.add_blob([write_tiny_model(tmp_path / "tiny.gguf").read_bytes()]).digest
    async for _ in create_model(store, Recipe(NAME, files={"tiny.gguf": digest})):
        pass
    return store.find(NAME)


def meter(tmp_path: Path, then: str, memory: int = 8 * GIB) -> FitMeter:
    root = str(Path(__file__).parents[2])
    script = SCRIPT.format(root=root, count=str(tmp_path / "count"), then=then)
    return FitMeter(Jobs((sys.executable, "-c", script)), FakeMachine(memory))


def asked(tmp_path: Path) -> int:
    return len((tmp_path / "count").read_text())


async def test_a_real_worker_measures_what_the_model_needs(model: StoredModel) -> None:
    fit = await FitMeter().fit(model)
    assert fit.is_measured
    # Two layers with two key-value heads of 16, keys and values in 16 bits.
    assert fit.needs.cache_per_token == pytest.approx(2 * 2 * 16 * 2 * 2, rel=0.05)
    assert fit.needs.cache_fixed < 64 * fit.needs.cache_per_token
    assert fit.needs.weights == model.metadata().weights_size
    assert fit.needs.layers == 3 and fit.needs.compute > 0
    assert (fit.window, fit.largest) == (512, 512)
    assert fit.fast_kernel is None and "F32" in fit.kernel
    assert any(device.kind == "cpu" for device in fit.devices)


async def test_a_model_is_measured_once_however_many_ask(model: StoredModel, tmp_path: Path) -> None:
    measuring = meter(tmp_path, ANSWER.format(vram=0))
    fits = await asyncio.gather(*(measuring.fit(model) for _ in range(5)))
    assert len(set(fits)) == 1 and asked(tmp_path) == 1
    assert fits[0].needs == Needs(model.metadata().weights_size, 1, 904, 70, 3)
    assert fits[0].placement == "All 3 layers on the CPU: the engine has no GPU to use."


async def test_adapters_are_counted_with_what_the_model_needs(model: StoredModel, tmp_path: Path) -> None:
    write_tiny_adapter(tmp_path / "adapter.gguf", seed=5)
    digest = model.store.add_blob([(tmp_path / "adapter.gguf").read_bytes()]).digest
    name = ModelName.parse("adapted")
    async for _ in create_model(model.store, Recipe(name, from_model=NAME, adapters={"adapter.gguf": digest})):
        pass
    measuring = meter(tmp_path, ANSWER.format(vram=0))
    plain, adapted = [await measuring.fit(one) for one in (model, model.store.find(name))]
    size = (tmp_path / "adapter.gguf").stat().st_size
    assert (plain.adapters, adapted.adapters) == (0, size)
    assert adapted.needed == plain.needed + size
    assert asked(tmp_path) == 1, "the weights are the same"


async def test_a_gpu_with_room_takes_all_layers(model: StoredModel, tmp_path: Path) -> None:
    fit = await meter(tmp_path, ANSWER.format(vram=GIB)).fit(model)
    assert fit.verdict is LikelyFit.GPU and fit.gpu_layers == 3
    assert fit.placement == "All 3 layers on GPU0 (A card)."


async def test_a_gpu_without_room_is_told_of(model: StoredModel, tmp_path: Path) -> None:
    fit = await meter(tmp_path, ANSWER.format(vram=1000)).fit(model)
    assert fit.verdict is LikelyFit.MEMORY and fit.gpu_layers == 0
    assert "set num_gpu for a part" in fit.placement


async def test_a_machine_that_is_too_small_is_told(model: StoredModel, tmp_path: Path) -> None:
    fit = await meter(tmp_path, ANSWER.format(vram=0), 1000).fit(model)
    assert fit.verdict is LikelyFit.NO and "more than this machine has" in fit.placement


@pytest.mark.parametrize(
    ("then", "times"),
    [
        ("sys.stdout.buffer.write(encode_job_frame(JobFailed('model_invalid', 'No.')))", 1),
        ("os.abort()", 2),
        ("pass", 2),
    ],
)
async def test_what_cannot_be_measured_is_estimated_and_tried_again_unless_refused(
    model: StoredModel, tmp_path: Path, then: str, times: int
) -> None:
    measuring = meter(tmp_path, then)
    for _ in range(2):
        fit: Fit = await measuring.fit(model)
        assert not fit.is_measured and fit.fast_kernel is None and fit.needs.cache_per_token > 0
    assert asked(tmp_path) == times


def test_two_windows_tell_what_a_token_costs() -> None:
    measured = Measured(5, (WindowNeeds(4096, 1000 + 4096 * 7, 50), WindowNeeds(8192, 1000 + 8192 * 7, 60)), (), ())
    assert needs_of(measured, 99) == Needs(99, 7, 1000, 50, 5)
    recurrent = Measured(5, (WindowNeeds(4096, 1000, 50), WindowNeeds(8192, 1000, 50)), (), ())
    assert needs_of(recurrent, 99) == Needs(99, 0, 1000, 50, 5)


@pytest.mark.parametrize(
    ("weights", "room", "verdict"),
    [
        (GIB, Room(16 * GIB, 8 * GIB), LikelyFit.GPU),
        (9 * GIB, Room(16 * GIB, 8 * GIB), LikelyFit.MEMORY),
        (15 * GIB, Room(16 * GIB, 0), LikelyFit.TIGHT),
        (15 * GIB, Room(8 * GIB, 4 * GIB), LikelyFit.NO),
    ],
)
def test_the_verdict_follows_the_memory(weights: int, room: Room, verdict: LikelyFit) -> None:
    plan, found = decide(Needs(weights, 64 << 10, 0, 100 << 20, 33), 32768, room)
    assert found is verdict
    assert plan.context_length == (4096 if found is not LikelyFit.NO else 2048)


def test_what_is_told_is_what_a_load_would_do() -> None:
    """One rule plans loads and tells of them."""
    needs, room = Needs(4 * GIB, 100_000, 0, 1000, 33), Room(6 * GIB, 0)
    facts = MemoryFacts(4 * GIB, 100_000, 131_072, 1000)
    for wishes in (LoadWishes(), LoadWishes(num_ctx=700), LoadWishes(kv_cache_type="q8_0")):
        assert decide(needs, 131_072, room, wishes=wishes)[0] == plan_memory(facts, wishes, room)


def test_a_projector_needs_room_as_well() -> None:
    needs, room = Needs(7 * GIB, 0, 0, 0, 33), Room(32 * GIB, 8 * GIB)
    assert decide(needs, 2048, room)[1] is LikelyFit.GPU
    assert decide(needs, 2048, room, more_weights=2 * GIB)[1] is LikelyFit.MEMORY


@pytest.mark.parametrize(
    ("kind", "features", "is_fast"),
    [
        ("Q4_0", ("AVX2", "REPACK"), True),
        ("Q4_1", ("AVX2", "AVX512", "REPACK"), False),
        ("Q5_1", ("AVX2", "AVX512", "REPACK", "LLAMAFILE"), False),
        ("Q6_K", ("AVX2",), True),
        ("Q6_K", ("AVX", "REPACK"), False),
        ("Q6_K", ("NEON",), False),
        ("IQ4_XS", ("AVX2",), True),
        ("IQ4_XS", ("NEON", "DOTPROD", "REPACK"), False),
        ("Q8_0", ("AVX2", "REPACK"), False),
        ("Q8_0", ("AVX2", "LLAMAFILE"), True),
        ("Q8_0", ("NEON", "DOTPROD", "REPACK"), True),
        ("Q4_0", ("AVX2",), False),
        ("F16", ("AVX2", "REPACK"), None),
    ],
)
def test_fast_kernels_depend_on_type_and_processor(kind: str, features: tuple[str, ...], is_fast: bool | None) -> None:
    assert has_fast_kernel(kind, features) is is_fast


def test_people_are_told_which_type_would_be_faster() -> None:
    assert "Q4_K_M or Q4_0 would read prompts" in kernel_sentence("Q4_1", ("AVX2", "REPACK"))
    assert kernel_sentence("Q4_0", ("AVX2", "REPACK")) == "Q4_0 has a fast kernel on this CPU."
    assert kernel_sentence("Q4_1", ()) == "Q4_1 has no fast kernel on this CPU."
    assert not fast_types(())


def test_the_type_is_that_of_most_weights_in_the_blocks() -> None:
    def tensor(name: str, kind: str, size: int, shape: tuple[int, ...] = (32, 32)) -> TensorInfo:
        return TensorInfo(name, kind, shape, 0, size)

    tensors = [
        tensor("token_embd.weight", "Q8_0", 900),
        tensor("blk.0.ffn_up.weight", "Q4_K", 100),
        tensor("blk.0.ffn_down.weight", "Q6_K", 60),
        tensor("blk.0.attn_norm.weight", "F32", 500, (32,)),
    ]
    assert main_type(tensors) == "Q4_K"
    assert main_type([]) == ""
