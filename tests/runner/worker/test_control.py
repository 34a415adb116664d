"""Commands in, sequences out to the loop."""

from __future__ import annotations

import queue
import threading

from runner.chat.types import ChatPrompt, ChatRequest, Failed, Message, TextPrompt, Tool, ToolUse
from runner.engine import CompiledConstraint
from runner.errors import ConstraintInvalid
from runner.messages import Cancel, Events, Generate, Pause, Report
from runner.sampling import Constraint, SamplingParams
from runner.worker.commands import CancelSequence, LoopCommand, SetPaused
from runner.worker.control import Control
from runner.worker.sequence import Sequence
from tests.fake_engine import FakeEngine

TIMEOUT = 60


class SlowTokenizer(FakeEngine):
    """Tokenizes a prompt only when the test says so."""

    def __init__(self) -> None:
        super().__init__()
        self.begun = threading.Event()
        self.proceed = threading.Event()

    def tokenize(self, text: str, *, add_special: bool, parse_special: bool) -> list[int]:
        if text == "slow":
            self.begun.set()
            assert self.proceed.wait(TIMEOUT)
        return super().tokenize(text, add_special=add_special, parse_special=parse_special)


class Harness:
    def __init__(self, engine: FakeEngine) -> None:
        self.posted: queue.Queue[LoopCommand] = queue.Queue()
        self.reports: queue.Queue[Report] = queue.Queue()
        self.control = Control(engine, self.posted.put, self.reports.put)

    def generate(self, name: str, text: str, seed: int | None = None) -> None:
        request = ChatRequest(TextPrompt(text), sampling=SamplingParams(seed=seed))
        self.control.handle(Generate(name, request))

    def next_posted(self) -> LoopCommand:
        return self.posted.get(timeout=TIMEOUT)


def test_a_request_becomes_a_sequence_with_its_tokens_and_seed() -> None:
    harness = Harness(FakeEngine())
    harness.generate("a", "hello", seed=7)
    sequence = harness.next_posted()
    assert isinstance(sequence, Sequence)
    assert (sequence.request_id, len(sequence.tokens), sequence.plan.seed) == ("a", 5, 7)


def test_a_request_without_a_seed_gets_one_of_its_own() -> None:
    harness = Harness(FakeEngine())
    seeds = set()
    for name in "abcd":
        harness.generate(name, "hello")
        sequence = harness.next_posted()
        assert isinstance(sequence, Sequence)
        seeds.add(sequence.plan.seed)
    assert len(seeds) > 1


def test_a_prompt_that_cannot_be_made_fails_with_its_code() -> None:
    harness = Harness(FakeEngine(cells=8))
    harness.generate("a", "much too long")
    report = harness.reports.get(timeout=TIMEOUT)
    assert isinstance(report, Events)
    [(name, failed)] = report.events
    assert isinstance(failed, Failed)
    assert (name, failed.code, failed.facts["context_length"]) == ("a", "context_length_exceeded", 8)


def test_a_short_prompt_does_not_wait_for_a_long_one() -> None:
    engine = SlowTokenizer()
    harness = Harness(engine)
    harness.generate("long", "slow")
    assert engine.begun.wait(TIMEOUT)
    harness.generate("short", "quick")
    sequence = harness.next_posted()
    assert isinstance(sequence, Sequence)
    assert sequence.request_id == "short"
    engine.proceed.set()
    harness.next_posted()


def test_a_request_cancelled_while_its_prompt_is_made_never_starts() -> None:
    engine = SlowTokenizer()
    harness = Harness(engine)
    harness.generate("gone", "slow")
    assert engine.begun.wait(TIMEOUT)
    harness.control.handle(Cancel("gone"))
    engine.proceed.set()
    assert harness.next_posted() == CancelSequence("gone"), "the daemon waits for a sign that it was heard"
    harness.generate("next", "quick")
    sequence = harness.next_posted()
    assert isinstance(sequence, Sequence)
    assert sequence.request_id == "next"


def test_a_pause_that_came_early_follows_its_sequence() -> None:
    engine = SlowTokenizer()
    harness = Harness(engine)
    harness.generate("a", "slow")
    assert engine.begun.wait(TIMEOUT)
    harness.control.handle(Pause("a"))
    engine.proceed.set()
    assert isinstance(harness.next_posted(), Sequence)
    assert harness.next_posted() == SetPaused("a", paused=True)


def test_a_cancel_for_a_running_request_reaches_the_loop() -> None:
    harness = Harness(FakeEngine())
    harness.control.handle(Cancel("a"))
    assert harness.next_posted() == CancelSequence("a")


class Uncompiling(FakeEngine):
    """Can honour no constraint."""

    def compile_constraint(self, constraint: Constraint) -> CompiledConstraint:
        raise ConstraintInvalid("It is too large.", constraint.field)


def test_tools_that_cannot_be_compiled_end_only_a_request_that_must_call_one() -> None:
    harness = Harness(Uncompiling(cells=4096))
    tool = Tool("note", {"type": "object", "properties": {}})
    prompt = ChatPrompt((Message("user", "hi"),), tools=(tool,), template="{{ messages[0].content }}")
    harness.control.handle(Generate("may", ChatRequest(prompt)))
    sequence = harness.next_posted()
    assert isinstance(sequence, Sequence)
    assert sequence.plan.constraint is None
    harness.control.handle(Generate("must", ChatRequest(prompt, tool_use=ToolUse.REQUIRED)))
    report = harness.reports.get(timeout=TIMEOUT)
    assert isinstance(report, Events)
    [(name, failed)] = report.events
    assert isinstance(failed, Failed)
    assert (name, failed.code) == ("must", "constraint_invalid")
