"""A worker program that speaks the real messages and does what it is told: no model, no engine.

How it loads stands in the "model file", a JSON object (see `Script`), or in the file after `--script`
where the model file is a real one; how it answers stands in each prompt:

    say N     N words, then the end             die       a word, then it kills itself
    hold      a word, then nothing until        exit      a word, then it ends as if all were well
              cancelled                         hang      a word, then no sign of life, not even an end
    flood N   as `say`, without any pause       garbage   a word, then bytes that are no message
    oversize  a word, then a frame announced that is far too long
    want N    a larger window is asked for, and the answer comes when it is there or refused
    room N    N bytes are asked for beside the model, and the answer, a word, comes when they are given or refused
    faint K N as `say N`, but it kills itself after K words unless its model was loaded before
    until P   a word, and the end once there is a file P

Each word is a token; a request that brings tokens goes on behind so many words.

What it was asked is appended to the script's `journal`, one JSON object a line.
"""

from __future__ import annotations

import json
import os
import queue
import signal
import sys
import threading
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import msgspec
import psutil

from runner.chat.types import ChatEvent, ChatPrompt, Failed, Finished, FinishReason, TextDelta, Usage
from runner.loaded_model import DeviceUse, LoadedModel, LoadOptions
from runner.messages import (
    FRAME_HEADER,
    MAX_FRAME_BYTES,
    Beside,
    Cancel,
    Command,
    Events,
    Generate,
    Grow,
    GrowFailed,
    Grown,
    KeepWindow,
    Load,
    Loaded,
    LoadFailed,
    LoadProgress,
    Pause,
    Report,
    Resume,
    RoomGiven,
    RoomRefused,
    RoomWanted,
    Stats,
    WindowWanted,
    decode_command,
    encode_frame,
)

COMMAND = (sys.executable, "-P", str(Path(__file__).resolve()))


@dataclass
class Script:
    """How a fake model loads."""

    load: str = "ok"
    """`ok`, `fail`, `die`, `garbage`, `hang`, or `tight`: no memory while `crowd` is there."""
    crowd: str | None = None
    """The journal of the worker that takes the memory."""
    gate: str | None = None
    """Loading waits until this file exists."""
    word_seconds: float = 0.0
    """Pause between two words of `say`."""
    stubborn: bool = False
    """It ignores the end of its input, and SIGTERM."""
    training_context: int = 8192
    cannot_grow: bool = False
    size: int = 1_000_000
    size_vram: int = 0
    gpu_memory: int = 0
    journal: str | None = None

    def write(self, path: Path) -> Path:
        path.write_text(json.dumps(asdict(self)))
        return path


@dataclass
class _Answer:
    words_left: int
    then: str
    is_fast: bool = False
    is_paused: bool = False
    said: int = 0
    ends_with: Path | None = None

    def go_on_behind(self, words: int) -> None:
        self.said = words
        self.words_left = max(0, self.words_left - words)


@dataclass
class _FakeWorker:
    inbox: queue.SimpleQueue[Command | None]
    output: BinaryIO
    script: Script = field(default_factory=Script)
    answers: dict[str, _Answer] = field(default_factory=dict)
    steps: int = 0

    def run(self) -> None:
        load = self.inbox.get()
        if not isinstance(load, Load):
            return
        told = sys.argv[sys.argv.index("--script") + 1] if "--script" in sys.argv else load.model_path
        self.script = Script(**json.loads(Path(told).read_text()))
        if self.script.stubborn and sys.platform != "win32":
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        self.note(load)
        self.load(load.options)
        while True:
            while self.is_idle() or not self.inbox.empty():
                command = self.inbox.get()
                if command is None:
                    self.end_of_input()
                else:
                    self.obey(command)
            self.step()

    def load(self, options: LoadOptions) -> None:
        self.send(LoadProgress(0.25))
        while self.script.gate is not None and not Path(self.script.gate).exists():
            time.sleep(0.005)
            if not self.inbox.empty() and self.inbox.get() is None:
                self.end_of_input()
        match self.script.load:
            case "fail":
                self.send(LoadFailed("model_invalid", "The fake file is not a model.", {"tensor": 3}))
                os._exit(0)
            case "tight" if self.script.crowd is not None and is_alive(self.script.crowd):
                self.send(LoadFailed("insufficient_memory", "The fake device is full."))
                os._exit(0)
            case "die":
                die()
            case "garbage":
                self.output.write(b"llama_model_load: surprise\n")
                self.output.flush()
                time.sleep(60)
            case "hang":
                while self.inbox.get() is not None:
                    pass
                self.end_of_input()
        self.send(LoadProgress(1.0))
        self.model = self.loaded_model(options)
        self.send(Loaded(self.model))

    def loaded_model(self, options: LoadOptions) -> LoadedModel:
        on_gpu = self.script.size_vram > 0
        kinds = [("cpu", 0), *([("gpu", self.script.gpu_memory)] if self.script.gpu_memory else [])]
        return LoadedModel(
            architecture="fake",
            engine="fake 1",
            context_length=options.context_length,
            training_context=self.script.training_context,
            max_sequences=options.max_sequences,
            vocabulary=100,
            size=self.script.size,
            size_vram=self.script.size_vram,
            layers=4,
            gpu_layers=4 if on_gpu else 0,
            devices=tuple(DeviceUse(kind, kind, "fake", 4, memory, memory) for kind, memory in kinds),
            placement="all layers are imagined",
            threads=2,
            has_chat_template=True,
            can_shift=True,
            longest_context=options.longest_context,
        )

    def obey(self, command: Command) -> None:
        self.note(command)
        match command:
            case Generate(request_id, request, taken):
                prompt = request.prompt
                text = prompt.messages[-1].content if isinstance(prompt, ChatPrompt) else getattr(prompt, "text", "")
                verb, _, count = text.partition(" ")
                if verb in ("say", "flood"):
                    self.answers[request_id] = _Answer(int(count or 3), "finish", is_fast=verb == "flood")
                elif verb == "faint":
                    first, whole = map(int, count.split())
                    self.answers[request_id] = _Answer(first, "die") if self.is_first() else _Answer(whole, "finish")
                elif verb == "until":
                    self.answers[request_id] = _Answer(1, "finish", ends_with=Path(count))
                elif verb == "want":
                    self.answers[request_id] = _Answer(0, "hold")
                    self.send(WindowWanted(int(count)))
                elif verb == "room":
                    self.answers[request_id] = _Answer(0, "hold")
                    self.send(RoomWanted(Beside.VECTORS, int(count)))
                else:
                    self.answers[request_id] = _Answer(1, verb)
                self.answers[request_id].go_on_behind(len(taken))
            case Grow(context_length):
                if self.script.cannot_grow:
                    self.send(GrowFailed("The fake device is full."))
                else:
                    self.model = msgspec.structs.replace(self.model, context_length=context_length)
                    self.send(Grown(self.model))
                self.end_waiting()
            case KeepWindow() | RoomGiven() | RoomRefused():
                self.end_waiting()
            case Cancel(request_id):
                self.answers.pop(request_id, None)
                self.send(self.stats())
            case Pause(request_id) if request_id in self.answers:
                self.answers[request_id].is_paused = True
            case Resume(request_id) if request_id in self.answers:
                self.answers[request_id].is_paused = False

    def end_waiting(self) -> None:
        for answer in self.answers.values():
            answer.words_left, answer.then = 1, "finish"

    def is_first(self) -> bool:
        """Whether nothing of this model was ever loaded before."""
        assert self.script.journal is not None
        told = Path(self.script.journal).read_text().splitlines()
        return len([line for line in told if json.loads(line)["type"] == "load"]) == 1

    def is_idle(self) -> bool:
        return not any(self.can_go_on(answer) for answer in self.answers.values())

    def can_go_on(self, answer: _Answer) -> bool:
        return not answer.is_paused and (answer.words_left > 0 or answer.then != "hold")

    def step(self) -> None:
        events: list[tuple[str, ChatEvent]] = []
        tokens: list[tuple[str, int]] = []
        ends: list[str] = []
        for request_id, answer in list(self.answers.items()):
            if not self.can_go_on(answer):
                continue
            if answer.words_left > 0:
                answer.words_left -= 1
                answer.said += 1
                tokens.append((request_id, answer.said))
                events.append((request_id, TextDelta(f"word{answer.said} ")))
            elif answer.ends_with is not None and not answer.ends_with.exists():
                time.sleep(0.005)
            else:
                ends.append(answer.then)
                if answer.then == "finish":
                    events.append((request_id, Finished(FinishReason.STOP, usage(answer.said), seed=1)))
                elif answer.then not in ("die", "exit", "hang", "garbage", "oversize"):
                    events.append((request_id, Failed("invalid_request", f"What is {answer.then}?")))
                del self.answers[request_id]
        self.steps += 1
        if events:
            self.send(Events(events, tokens))
        self.send(self.stats())
        for end in ends:
            self.misbehave(end)
        if self.script.word_seconds and not all(answer.is_fast for answer in self.answers.values()):
            time.sleep(self.script.word_seconds)

    def stats(self) -> Stats:
        return Stats(len(self.answers), 0, 0, self.steps, self.steps, self.steps, 1, 1, 0)

    def misbehave(self, how: str) -> None:
        match how:
            case "die":
                die()
            case "exit":
                os._exit(0)
            case "hang":
                while self.inbox.get() is not None:
                    pass
                self.end_of_input()
            case "garbage":
                self.output.write(b"GGML_ASSERT: this is not a message\n" * 3)
                self.output.flush()
            case "oversize":
                self.output.write(FRAME_HEADER.pack(MAX_FRAME_BYTES))
                self.output.flush()

    def send(self, report: Report) -> None:
        self.output.write(encode_frame(report))
        self.output.flush()

    def note(self, command: Command) -> None:
        if self.script.journal is not None:
            entry: dict[str, Any] = {"pid": os.getpid(), **msgspec.to_builtins(command)}
            with Path(self.script.journal).open("a") as journal:
                journal.write(json.dumps(entry) + "\n")

    def end_of_input(self) -> None:
        while self.script.stubborn:
            time.sleep(60)
        os._exit(0)


def is_alive(journal: str) -> bool:
    """Whether the worker that wrote the journal still runs."""
    pid = json.loads(Path(journal).read_text().splitlines()[-1])["pid"]
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def usage(words: int) -> Usage:
    return Usage(1, 0, words, 1, 1, 1)


def die() -> None:
    if sys.platform == "win32":
        os._exit(9)
    os.kill(os.getpid(), signal.SIGKILL)


def read_commands(source: BinaryIO, inbox: queue.SimpleQueue[Command | None]) -> None:
    while len(header := source.read(FRAME_HEADER.size)) == FRAME_HEADER.size:
        (length,) = FRAME_HEADER.unpack(header)
        inbox.put(decode_command(source.read(length)))
    inbox.put(None)


def main() -> None:
    if "--devices" in sys.argv:
        json.dump([{"kind": "cpu", "memory_total": 1 << 34}, {"kind": "gpu", "memory_total": 1 << 33}], sys.stdout)
        return
    print("INFO fake: a fake worker starts", file=sys.stderr, flush=True)
    inbox: queue.SimpleQueue[Command | None] = queue.SimpleQueue()
    threading.Thread(target=read_commands, args=(sys.stdin.buffer, inbox), daemon=True).start()
    _FakeWorker(inbox, sys.stdout.buffer).run()


if __name__ == "__main__":
    main()
