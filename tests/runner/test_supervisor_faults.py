"""The supervisor over real processes: workers that die, hang or talk nonsense."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from runner.chat.types import Failed, Finished
from runner.errors import EngineCrashed, RunnerError
from runner.supervisor.types import ModelState
from tests.fake_worker import COMMAND
from tests.runner.supervisor_fixtures import ask, house, process_is_gone, read, settings, texts, until

posix_only = pytest.mark.skipif(sys.platform == "win32", reason="signals")


async def test_a_death_is_a_pause_for_all_that_is_under_way(tmp_path: Path) -> None:
    async with house(tmp_path) as here:
        spec, other = here.model(), here.model("other")
        async with await here.lease(other) as untouched, await here.lease(spec) as lease:
            bystander = untouched.generate("o", ask("hold"))
            await anext(bystander)
            long = lease.generate("l", ask("say 40"))
            faint = lease.generate("f", ask("faint 2 5"))
            for stream, words in ((faint, 5), (long, 40)):
                events = await read(stream)
                assert texts(events) == [f"word{number} " for number in range(1, words + 1)]
                assert isinstance(events[-1], Finished)
            assert isinstance((await read(lease.generate("late", ask("say 1"))))[-1], Finished)
            bystander.cancel()
            assert isinstance((await read(untouched.generate("again", ask("say 1"))))[-1], Finished)
        restarts = {status.spec.name: status.restarts for status in here.supervisor.status()}
        assert restarts == {"fake:latest": 1, "other:latest": 0}


async def test_a_request_that_sees_two_deaths_ends_and_its_like_is_refused(tmp_path: Path) -> None:
    async with house(tmp_path) as here:
        spec = here.model()
        async with await here.lease(spec) as lease:
            failed = (await read(lease.generate("d", ask("die"))))[-1]
            assert isinstance(failed, Failed)
            assert (failed.code, failed.facts) == ("engine_crashed", {"model": "fake:latest"})
            assert "not tried again" in failed.message
            [refused] = await read(lease.generate("e", ask("die")))
            assert isinstance(refused, Failed)
            assert refused.code == "engine_crashed" and "refused" in refused.message
            assert isinstance((await read(lease.generate("f", ask("say 1"))))[-1], Finished)
        assert len(here.journal(kind="load")) == 3
        assert here.supervisor.status()[0].restarts == 2


async def test_requests_are_sent_again_with_what_was_said(tmp_path: Path) -> None:
    async with house(tmp_path) as here:
        await here.say(here.model(), "faint 3 4")
        assert [entry["taken"] for entry in here.journal(kind="generate")] == [[], [1, 2, 3]]


async def test_who_leaves_during_the_pause_is_not_sent_again(tmp_path: Path) -> None:
    async with house(tmp_path) as here:
        async with await here.lease(here.model()) as lease:
            leaver, stayer = lease.generate("a", ask("hold")), lease.generate("b", ask("hold"))
            for stream in (leaver, stayer):
                await anext(stream)
            here.model(gate=str(here.gate("fake")))
            here.worker_processes()[0].kill()
            await until(lambda: here.supervisor.status()[0].state is ModelState.LOADING)
            leaver.cancel()
            here.gate("fake").touch()
            await until(lambda: len(here.journal(kind="generate")) == 3)
        assert here.journal(kind="generate")[-1]["request_id"] == "b"


async def test_a_pause_ends_with_the_error_when_the_model_cannot_be_loaded_again(tmp_path: Path) -> None:
    async with house(tmp_path) as here:
        async with await here.lease(here.model()) as lease:
            held = lease.generate("h", ask("hold"))
            await anext(held)
            here.model(load="fail")
            here.worker_processes()[0].kill()
            [failed] = await read(held)
            assert isinstance(failed, Failed)
            assert failed.code == "model_invalid"
            assert await read(lease.generate("late", ask("say 1"))) == [failed]
        assert here.supervisor.status() == []


async def test_a_worker_that_ends_in_silence_is_a_crash_as_well(tmp_path: Path) -> None:
    async with house(tmp_path) as here:
        events = await here.say(here.model(), "exit")
        assert isinstance(events[-1], Failed)
        assert events[-1].code == "engine_crashed"
        assert here.supervisor.status()[0].restarts == 2


async def test_a_model_that_crashes_while_idle_is_loaded_again(tmp_path: Path) -> None:
    async with house(tmp_path) as here:
        await here.say(here.model())
        here.worker_processes()[0].kill()
        await until(lambda: len(here.journal(kind="load")) == 2)
        await until(lambda: here.supervisor.status()[0].state is ModelState.READY)
        assert here.supervisor.status()[0].restarts == 1


async def test_a_crashed_model_that_should_not_stay_is_not_loaded_again(tmp_path: Path) -> None:
    async with house(tmp_path) as here:
        await here.say(here.model(), "die", keep_alive=0)
        await until(lambda: here.supervisor.status() == [])
        assert len(here.journal(kind="load")) == 2, "once more for the request itself"


async def test_requests_that_wait_when_the_worker_dies_go_on_waiting(tmp_path: Path) -> None:
    async with house(tmp_path, chosen=settings(max_sequences=1)) as here:
        spec = here.model()
        leases = [await here.lease(spec) for _ in range(3)]
        waiting = asyncio.create_task(here.say(spec))
        await until(lambda: here.supervisor.is_answering(spec.weights_digest))
        await read(leases[0].generate("d", ask("die")))
        assert not waiting.done(), "there are as many places as before"
        for lease in leases:
            lease.release()
        assert isinstance((await waiting)[-1], Finished)
        assert here.supervisor.status()[0].leases == 0


async def test_a_crash_while_loading_fails_those_who_wait(tmp_path: Path) -> None:
    async with house(tmp_path) as here:
        with pytest.raises(EngineCrashed, match="while it loaded fake:latest"):
            await here.lease(here.model(load="die"))
        assert here.supervisor.status() == []


async def test_a_model_that_keeps_dying_is_started_more_and_more_slowly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("runner.supervisor.policy.RESTART_DELAYS", (0.0, 3600.0))
    async with house(tmp_path) as here:
        spec = here.model(load="die")
        for _ in range(2):
            with pytest.raises(EngineCrashed):
                await here.lease(spec)
        pausing = asyncio.create_task(here.lease(spec))
        await asyncio.sleep(0.05)
        [status] = here.supervisor.status()
        assert (status.state, here.worker_pids()) == (ModelState.LOADING, [])
        pausing.cancel()
        await asyncio.gather(pausing, return_exceptions=True)
        monkeypatch.setattr("runner.supervisor.policy.RESTART_DELAYS", (0.0,))
        here.model(load="ok")
        assert isinstance((await here.say(spec))[-1], Finished)
        assert len(here.journal(kind="load")) == 3


@posix_only
async def test_deaths_and_loads_leave_no_descriptors_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runner.supervisor.policy.RESTART_DELAYS", (0.0,))
    process = psutil.Process()
    async with house(tmp_path) as here:
        spec = here.model()
        await here.say(spec, keep_alive=0)
        await until(lambda: here.supervisor.status() == [])
        before = process.num_fds()
        for number in range(2):
            assert isinstance((await here.say(spec, f"die {number}", keep_alive=0))[-1], Failed)
            await until(lambda: here.supervisor.status() == [])
        with pytest.raises(RunnerError):
            await here.lease(here.model("refused", load="fail"))
        await until(lambda: process.num_fds() <= before)


async def test_nonsense_on_the_pipe_is_a_crash(tmp_path: Path) -> None:
    async with house(tmp_path) as here:
        for index, nonsense in enumerate(("garbage", "oversize")):
            events = await here.say(here.model(f"model{index}"), nonsense)
            assert isinstance(events[-1], Failed)
            assert events[-1].code == "engine_crashed"
            assert "no message" in events[-1].message
        with pytest.raises(EngineCrashed, match="no message"):
            await here.lease(here.model("loading", load="garbage"))


async def test_a_worker_without_progress_is_ended_by_the_watchdog(tmp_path: Path) -> None:
    async with house(tmp_path, chosen=settings(watchdog_seconds=1)) as here:
        spec = here.model()
        events = await here.say(spec, "hang")
        assert isinstance(events[-1], Failed)
        assert events[-1].code == "engine_crashed"
        assert "no progress for 1 s" in events[-1].message
        assert isinstance((await here.say(spec))[-1], Finished)


@posix_only
async def test_a_worker_without_progress_is_ended_although_its_clients_left(tmp_path: Path) -> None:
    async with house(tmp_path, chosen=settings(watchdog_seconds=1)) as here:
        spec = here.model()
        async with await here.lease(spec) as lease:
            stream = lease.generate("a", ask("hold"))
            await anext(stream)
            await until(lambda: here.supervisor.status()[0].stats)  # nothing of it is under way any more
            # Stopped before its client leaves, so that it cannot hear of that.
            for pid in here.worker_pids():
                os.kill(pid, signal.SIGSTOP)
        await until(lambda: len(here.journal(kind="load")) == 2)
        assert isinstance((await here.say(spec))[-1], Finished)


async def test_the_watchdog_leaves_workers_alone_that_nobody_waits_for(tmp_path: Path) -> None:
    async with house(tmp_path, chosen=settings(watchdog_seconds=1)) as here:
        await here.say(here.model("idle"))
        async with await here.lease(here.model("cancelled")) as lease:
            cancelled = lease.generate("c", ask("hold"))
            await anext(cancelled)
            told = len(here.journal("cancelled"))
            cancelled.cancel()
            await until(lambda: len(here.journal("cancelled")) > told)
        async with await here.lease(here.model("paused")) as lease:
            unread = lease.generate("p", ask("flood 5000"))
            await until(lambda: unread.is_paused)
            await asyncio.sleep(1.5)
            assert [status.restarts for status in here.supervisor.status()] == [0, 0, 0]
            events = await read(unread)
        assert isinstance(events[-1], Finished)
        assert len(events) == 5001


async def test_a_worker_that_does_not_want_to_end_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runner.supervisor.process.STOP_SECONDS", 0.1)
    async with house(tmp_path) as here:
        spec = here.model(stubborn=True)
        await here.say(spec)
        (pid,) = here.worker_pids()
        assert await here.supervisor.unload(spec.weights_digest)
        assert process_is_gone(pid)


async def test_a_refused_model_tells_its_error_and_not_a_crash(tmp_path: Path) -> None:
    async with house(tmp_path) as here:
        for _ in range(3):  # and there is no pause before trying again
            with pytest.raises(RunnerError) as caught:
                await here.lease(here.model(load="fail"))
            assert caught.value.code == "model_invalid"


@posix_only
def test_no_worker_outlives_a_daemon_that_was_killed(tmp_path: Path) -> None:
    program = f"""
import asyncio, pathlib
from tests.runner.supervisor_fixtures import ask, house
async def main():
    async with house(pathlib.Path({str(tmp_path)!r})) as here:
        leases = [await here.lease(here.model(name)) for name in ("idle", "busy")]
        stream = leases[1].generate("a", ask("hold"))
        await anext(stream)
        print(*here.worker_pids(), flush=True)
        await asyncio.sleep(60)
asyncio.run(main())
"""
    root = Path(COMMAND[-1]).parent.parent
    daemon = subprocess.Popen([sys.executable, "-c", program], cwd=root, stdout=subprocess.PIPE)
    try:
        assert daemon.stdout is not None
        pids = [int(pid) for pid in daemon.stdout.readline().split()]
        assert len(pids) == 2
        os.kill(daemon.pid, signal.SIGKILL)
        daemon.wait()
        assert all(process_is_gone(pid) for pid in pids)
    finally:
        daemon.kill()
        daemon.communicate()
