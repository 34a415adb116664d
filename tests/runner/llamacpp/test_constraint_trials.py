"""Constraints tried in another process: what takes too long or ends it is refused, and nobody else is held up."""

from __future__ import annotations

import contextlib
import gc
import json
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import psutil
import pytest

from runner.errors import ConstraintInvalid, RunnerError
from runner.llamacpp.constraint_trial import MEMORY_BYTES
from runner.llamacpp.constraint_trials import TRIAL_SECONDS, ConstraintTrials
from runner.sampling import Constraint, ConstraintKind

PLAIN = Constraint(ConstraintKind.REGEX, "[a-z]+", "format")
WRONG = Constraint(ConstraintKind.REGEX, "(ab", "format")
ENDLESS = Constraint(
    ConstraintKind.JSON_SCHEMA, json.dumps({"allOf": [{"pattern": f"a{number}"} for number in range(40)]}), "format"
)


@pytest.fixture
def trials() -> Iterator[ConstraintTrials]:
    trials = ConstraintTrials()
    before = set(psutil.Process().children())
    yield trials
    trials.close()
    assert set(psutil.Process().children()) <= before


def processes() -> set[psutil.Process]:
    found = set()
    for child in psutil.Process().children():
        with contextlib.suppress(psutil.Error):
            if "runner.llamacpp.constraint_trial" in child.cmdline():
                found.add(child)
    return found


def test_one_process_serves_one_after_the_other(trials: ConstraintTrials) -> None:
    before = processes()
    trials.try_out(PLAIN)
    mine = processes() - before
    assert len(mine) == 1
    trials.try_out(PLAIN)
    with pytest.raises(ConstraintInvalid, match="The regular expression in format cannot be honoured: at 1"):
        trials.try_out(WRONG)
    trials.try_out(PLAIN)
    assert processes() - before == mine


@pytest.mark.skipif(sys.platform != "linux", reason="other systems show no limits of other processes")
def test_a_trial_may_take_some_memory_and_no_more(trials: ConstraintTrials) -> None:
    before = processes()
    trials.try_out(PLAIN)
    (process,) = processes() - before
    limit, _ = process.rlimit(psutil.RLIMIT_AS)
    assert process.memory_info().vms < limit < process.memory_info().vms + MEMORY_BYTES + 1


def test_what_takes_too_long_is_refused_and_its_process_is_gone() -> None:
    trials = ConstraintTrials(seconds=0.5)
    before = processes()
    with pytest.raises(
        ConstraintInvalid, match=r"JSON schema in format .* longer than 0\.5 seconds to compile"
    ) as told:
        trials.try_out(ENDLESS)
    assert told.value.facts == {"field": "format"}
    assert processes() <= before
    trials.try_out(PLAIN)
    trials.close()
    assert processes() <= before


def test_a_refusal_comes_within_two_seconds() -> None:
    assert TRIAL_SECONDS + 0.5 < 2, "with the start of a process"


def test_nobody_waits_for_a_trial_of_another() -> None:
    trials = ConstraintTrials(seconds=4)
    with ThreadPoolExecutor(3) as threads:
        endless = [threads.submit(trials.try_out, ENDLESS) for _ in range(2)]
        threads.submit(trials.try_out, PLAIN).result()
        assert not any(trial.done() for trial in endless)
        for trial in endless:
            assert isinstance(trial.exception(), ConstraintInvalid)
    trials.close()


def test_a_process_that_ended_while_it_was_idle_is_replaced(trials: ConstraintTrials) -> None:
    before = processes()
    trials.try_out(PLAIN)
    for process in processes() - before:
        process.kill()
        process.wait()
    trials.try_out(PLAIN)
    assert len(processes() - before) == 1


def test_a_process_that_dies_of_a_constraint_takes_nobody_along() -> None:
    dying = "import sys; sys.stdout.buffer.write(b'\\x05\\0\\0\\0ready'); sys.stdout.flush(); sys.stdin.buffer.read(1)"
    trials = ConstraintTrials((sys.executable, "-c", dying))
    for _ in range(2):
        with pytest.raises(ConstraintInvalid, match="the compiler failed"):
            trials.try_out(PLAIN)
    trials.close()


@pytest.mark.parametrize("command", [(sys.executable, "-c", "pass"), ("no-such-program",)])
def test_without_a_process_nothing_passes(command: tuple[str, ...]) -> None:
    trials = ConstraintTrials(command)
    with pytest.raises(RunnerError, match="cannot be checked") as told:
        trials.try_out(PLAIN)
    assert told.value.code == "internal"


def test_a_process_that_is_idle_for_long_is_ended() -> None:
    trials = ConstraintTrials(idle_seconds=0.2)
    before = processes()
    trials.try_out(PLAIN)
    psutil.wait_procs(processes() - before, 20)
    assert processes() <= before
    trials.try_out(PLAIN)
    trials.close()


def test_a_process_ends_with_those_who_started_it() -> None:
    trials = ConstraintTrials()
    before = processes()
    trials.try_out(PLAIN)
    mine = processes() - before
    del trials
    gc.collect()
    _, left = psutil.wait_procs(mine, 20)
    assert not left
    started = f"from {ConstraintTrials.__module__} import *; from runner.sampling import *; import os\n"
    kept = "t = ConstraintTrials(); t.try_out(Constraint(ConstraintKind.REGEX, 'a', 'f'))\n"
    told = "import psutil; print(psutil.Process().children()[0].pid, flush=True); os._exit(0)"
    done = subprocess.run([sys.executable, "-c", started + kept + told], capture_output=True, text=True, check=True)
    pid = int(done.stdout)
    _, left = psutil.wait_procs([psutil.Process(pid)] if psutil.pid_exists(pid) else [], 20)
    assert not left
