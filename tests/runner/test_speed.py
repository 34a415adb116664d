"""How fast a model is: measured by a process of its own, that is gone when nobody follows."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from pathlib import Path

import psutil
import pytest

from registry.create import create_model
from registry.name import ModelName
from registry.recipe import Recipe
from registry.store import ModelStore
from registry.stored_model import StoredModel
from runner.errors import EngineCrashed, ReportedError, RunnerError, ServerShutdown
from runner.supervisor.jobs import Jobs
from runner.supervisor.speed import ModelSpeed, SpeedMeter
from tests.tiny_model import write_tiny_model

NAME = ModelName.parse("tiny")
SCRIPT = """
import os, struct, sys
sys.path.insert(0, {root!r})
from runner.jobs import *
assert sys.argv[-1] == BENCHMARK_FLAG
sys.stdin.buffer.read(struct.unpack("<I", sys.stdin.buffer.read(4))[0])
open({pid!r}, "w").write(str(os.getpid()))
def tell(report):
    sys.stdout.buffer.write(encode_job_frame(report))
    sys.stdout.buffer.flush()
tell(JobProgress(0.5))
{then}
"""
SPEEDS = """
speeds = (Speed(1, 100.0, 90.0), Speed(2, 190.0, 60.0))
tell(Benchmarked(speeds, 0.5, "CPU.", "llama.cpp", ("AVX2", "REPACK")))
"""


@pytest.fixture
async def model(tmp_path: Path) -> StoredModel:
    store = ModelStore(tmp_path / "models")
    digest = store.add_blob([write_tiny_model(tmp_path / "tiny.gguf").read_bytes()]).digest
    async for _ in create_model(store, Recipe(NAME, files={"tiny.gguf": digest})):
        pass
    return store.find(NAME)


def scripted(tmp_path: Path, then: str) -> Jobs:
    root = str(Path(__file__).parents[2])
    return Jobs((sys.executable, "-c", SCRIPT.format(root=root, pid=str(tmp_path / "pid"), then=then)))


def meter(tmp_path: Path, then: str) -> SpeedMeter:
    return SpeedMeter(scripted(tmp_path, then))


async def measured(meter: SpeedMeter, model: StoredModel) -> ModelSpeed:
    steps = [step async for step in meter.speed(model)]
    assert isinstance(steps[-1], ModelSpeed)
    assert all(isinstance(step, float) for step in steps[:-1])
    return steps[-1]


async def test_a_real_worker_measures_a_model(model: StoredModel) -> None:
    speed = await measured(SpeedMeter(seconds=0.2), model)
    assert speed.best_decode.decode > 0 and speed.best_prefill.prefill > 0
    assert speed.kind == "F32" and speed.fast_kernel is None


async def test_reading_and_writing_may_each_want_another_number_of_threads(model: StoredModel, tmp_path: Path) -> None:
    speed = await measured(meter(tmp_path, SPEEDS), model)
    assert (speed.best_prefill.threads, speed.best_decode.threads) == (2, 1)
    assert "Q4_K_M" in speed.fast_files and "Q4_1" not in speed.fast_files


@pytest.mark.parametrize(
    ("then", "error"),
    [
        ("tell(JobFailed('unsupported', 'No.'))", ReportedError),
        ("os.abort()", EngineCrashed),
        ("pass", EngineCrashed),
    ],
)
async def test_a_measurement_that_fails_says_why(
    model: StoredModel, tmp_path: Path, then: str, error: type[RunnerError]
) -> None:
    with pytest.raises(error):
        await measured(meter(tmp_path, then), model)


async def test_nobody_following_ends_the_process(model: StoredModel, tmp_path: Path) -> None:
    steps = meter(tmp_path, "sys.stdin.buffer.read()").speed(model)
    async with contextlib.aclosing(steps):
        assert [await anext(steps), await anext(steps)] == [0.0, 0.5]
        process = psutil.Process(int((tmp_path / "pid").read_text()))
    assert not process.is_running()


async def test_the_end_of_the_server_ends_it_and_says_so(model: StoredModel, tmp_path: Path) -> None:
    jobs = scripted(tmp_path, "sys.stdin.buffer.read()")
    measuring = SpeedMeter(jobs)
    steps = measuring.speed(model)
    async with contextlib.aclosing(steps):
        assert [await anext(steps), await anext(steps)] == [0.0, 0.5]
        jobs.stop()
        with pytest.raises(ServerShutdown):
            await anext(steps)
    with pytest.raises(ServerShutdown):
        await measured(measuring, model)


async def test_two_measurements_take_turns(model: StoredModel, tmp_path: Path) -> None:
    """The second worker would see the mark that the first one takes away when it ends."""
    mark = tmp_path / "mark"
    then = f"import time; os.mkdir({str(mark)!r}); time.sleep(0.05); os.rmdir({str(mark)!r})" + SPEEDS
    measuring = meter(tmp_path, then)
    await asyncio.gather(measured(measuring, model), measured(measuring, model))
