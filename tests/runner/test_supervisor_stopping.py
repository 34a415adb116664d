"""Stopping the supervisor, and what a worker process is given and says."""

from __future__ import annotations

import asyncio
import logging
import sys
from pathlib import Path

import pytest

from runner.chat.types import Failed, Finished
from runner.errors import ModelNotFound, ServerShutdown
from runner.loaded_model import LoadOptions
from runner.messages import Load
from runner.supervisor.process import WorkerProcess
from runner.supervisor.starting import clean_environment
from runner.supervisor.worker_log import LONGEST_LOG_LINE, LogRelay
from tests.runner.supervisor_fixtures import PATIENCE, ask, house, process_is_gone, read, settings, until


async def test_stopping_lets_running_answers_end_and_refuses_new_ones(tmp_path: Path) -> None:
    async with house(tmp_path) as here:
        spec = here.model(word_seconds=0.02)
        lease = await here.lease(spec)
        stream = lease.generate("a", ask("say 10"))
        await anext(stream)
        stopping = asyncio.create_task(here.supervisor.stop())
        await asyncio.sleep(0)
        with pytest.raises(ServerShutdown) as caught:
            await here.lease(spec)
        assert caught.value.facts["retry_after_seconds"]
        assert isinstance((await read(stream))[-1], Finished)
        lease.release()
        await stopping
        assert here.worker_pids() == []
        assert here.supervisor.status() == []


async def test_answers_that_do_not_end_in_time_end_with_an_error(tmp_path: Path) -> None:
    async with house(tmp_path, chosen=settings(drain_seconds=0.1)) as here:
        lease = await here.lease(here.model())
        stream = lease.generate("a", ask("hold"))
        await anext(stream)
        (pid,) = here.worker_pids()
        reading = asyncio.create_task(read(stream))
        await here.supervisor.stop()
        (failed,) = await reading
        assert isinstance(failed, Failed)
        assert failed.code == "server_shutdown"
        assert process_is_gone(pid)
        lease.release()


async def test_evicting_ends_answers_and_waiting_with_the_error_given(tmp_path: Path) -> None:
    async with house(tmp_path, chosen=settings(max_sequences=1)) as here:
        spec = here.model()
        lease = await here.lease(spec)
        stream = lease.generate("a", ask("hold"))
        await anext(stream)
        (pid,) = here.worker_pids()
        others = [await here.lease(spec) for _ in range(2)]
        waiting = asyncio.create_task(here.lease(spec))
        await asyncio.sleep(0)
        assert await here.supervisor.evict(spec.weights_digest, ModelNotFound("gone"))
        assert process_is_gone(pid)
        (failed,) = await read(stream)
        assert isinstance(failed, Failed)
        assert (failed.code, failed.message) == ("model_not_found", "gone")
        with pytest.raises(ModelNotFound):
            await waiting
        assert here.supervisor.status() == []
        assert not await here.supervisor.evict(spec.weights_digest, ModelNotFound("gone"))
        for one in (lease, *others):
            one.release()


async def test_evicting_gives_a_load_up(tmp_path: Path) -> None:
    async with house(tmp_path) as here:
        spec = here.model(load="hang")
        leasing = asyncio.create_task(here.lease(spec))
        await until(lambda: here.journal(kind="load"))
        assert await here.supervisor.evict(spec.weights_digest, ModelNotFound("gone"))
        with pytest.raises(ModelNotFound):
            await leasing
        assert here.worker_pids() == []


async def test_stopping_ends_loads_and_waiting_at_once(tmp_path: Path) -> None:
    async with house(tmp_path) as here:
        leasing = asyncio.create_task(here.lease(here.model(load="hang")))
        await until(lambda: here.journal(kind="load"))
        await here.supervisor.stop()
        with pytest.raises(ServerShutdown):
            await leasing


async def test_a_crash_while_stopping_starts_nothing_again(tmp_path: Path) -> None:
    async with house(tmp_path) as here:
        lease = await here.lease(here.model())
        stopping = asyncio.create_task(here.supervisor.stop())
        await asyncio.sleep(0)
        assert isinstance((await read(lease.generate("a", ask("die"))))[-1], Failed)
        await stopping
        assert len(here.journal(kind="load")) == 1


async def test_killing_ends_every_process_without_waiting(tmp_path: Path) -> None:
    async with house(tmp_path) as here:
        await here.say(here.model("a"))
        lease = await here.lease(here.model("b"))
        pids = here.worker_pids()
        here.supervisor.kill()
        assert len(pids) == 2
        for pid in pids:
            assert await asyncio.to_thread(process_is_gone, pid)
        await until(lambda: here.supervisor.status() == [])
        lease.release()


def test_a_worker_gets_no_keys_and_no_tokens() -> None:
    given = {
        "PATH": "/bin", "HOME": "/home/u", "LC_ALL": "C", "LD_LIBRARY_PATH": "/lib", "CUDA_VISIBLE_DEVICES": "0",
        "GGML_VK_VISIBLE_DEVICES": "1", "GGML_API_TOKEN": "t", "NVIDIA_SECRET": "s", "CUDA_KEY": "k",
        "PYTHONPATH": "/evil",
        "OPENAI_API_KEY": "k", "HF_TOKEN": "t", "PIP_INDEX_URL": "u", "PUNA_PULL_PROXY": "p", "LD_PRELOAD": "x.so",
    }  # fmt: skip
    assert clean_environment(given) == {
        "PATH": "/bin", "HOME": "/home/u", "LC_ALL": "C", "LD_LIBRARY_PATH": "/lib", "CUDA_VISIBLE_DEVICES": "0",
        "GGML_VK_VISIBLE_DEVICES": "1", "GGML_NO_BACKTRACE": "1",
        "MALLOC_ARENA_MAX": "2", "MALLOC_MMAP_THRESHOLD_": "1048576",
    }  # fmt: skip


@pytest.mark.parametrize("own", [{"OMP_WAIT_POLICY": "active"}, {"GOMP_SPINCOUNT": "7"}, {"MALLOC_ARENA_MAX": "8"}])
def test_how_threads_wait_and_where_memory_comes_from_can_be_chosen_from_outside(own: dict[str, str]) -> None:
    given = clean_environment(own)
    assert given.items() >= own.items()
    assert given["GGML_NO_BACKTRACE"] == "1"
    assert ("MALLOC_MMAP_THRESHOLD_" in given) == ("MALLOC_ARENA_MAX" not in own)


async def test_a_real_process_sees_only_that_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SOME_API_KEY", "secret")
    told = tmp_path / "environment"
    program = f"import os, pathlib; pathlib.Path({str(told)!r}).write_text(' '.join(os.environ))"
    async with house(tmp_path) as here:
        gone = asyncio.Event()
        worker = WorkerProcess(
            (sys.executable, "-c", program), "fake", watchdog_seconds=0, on_gone=lambda worker: gone.set()
        )
        await worker.start(Load("x", LoadOptions(16)))
        await asyncio.wait_for(gone.wait(), PATIENCE)
        assert here.supervisor.status() == []
    assert "SOME_API_KEY" not in told.read_text()
    assert "GGML_NO_BACKTRACE" in told.read_text()


def test_a_workers_log_lines_keep_their_level_and_get_the_models_name(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    relay = LogRelay("fake:latest")
    relay.feed(b"INFO runner.worker: load")
    relay.feed(b"ed\nggml: assertion\n\nERROR x: a\xff\n")
    relay.feed(b"x" * (3 * LONGEST_LOG_LINE))
    relay.flush()
    assert [(record.levelname, record.getMessage()) for record in caplog.records][:3] == [
        ("INFO", "fake:latest: runner.worker: loaded"),
        ("WARNING", "fake:latest: ggml: assertion"),
        ("ERROR", "fake:latest: x: a\ufffd"),
    ]
    assert all(len(record.getMessage()) < LONGEST_LOG_LINE + 50 for record in caplog.records)
