"""python -P -m runner.llamacpp.constraint_trial: compile constraints, and tell of each what is wrong with it.

It ends with its input, or when a constraint keeps it longer than anybody waits.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from collections.abc import Iterator

import msgspec
from llguidance import LLTokenizer, TokenizerWrapper

from runner.errors import ConstraintInvalid
from runner.llamacpp.constraint_grammar import compile_matcher, problem_of
from runner.llamacpp.constraint_trials import LENGTH, READY
from runner.sampling import Constraint

LONGEST_SECONDS = 10.0
"""Whoever asked has ended this process before, unless it has ended itself."""
MEMORY_BYTES = 256 << 20
"""For what is compiled; it will take as much again where it is used."""
STACK_BYTES = 64 << 20
"""For compiling, which works by recursion."""
_SMALL_STACK_BYTES = 1 << 20
_END = 256


def main() -> None:
    threading.stack_size(_SMALL_STACK_BYTES)
    source, sink = sys.stdin.buffer, os.fdopen(os.dup(sys.stdout.fileno()), "wb", buffering=0)
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    tokenizer = LLTokenizer(TokenizerWrapper(_Bytes()), eos_token=[_END])
    _limit_memory()

    def reply(text: bytes) -> None:
        sink.write(LENGTH.pack(len(text)) + text)

    reply(READY)
    while True:
        header = source.read(LENGTH.size)
        payload = source.read(LENGTH.unpack(header)[0]) if len(header) == LENGTH.size else b""
        if not payload:
            return
        constraint = msgspec.msgpack.decode(payload, type=Constraint)
        with _ending_after(LONGEST_SECONDS):
            problem = ""
            try:
                compile_matcher(constraint, tokenizer)
            except ConstraintInvalid as error:
                problem = problem_of(error)
            except MemoryError:
                problem = "it takes too much memory"
        reply(problem.encode())


class _Bytes:
    """A vocabulary with a token for each byte: compiling asks little of words, and large ones take seconds to read."""

    def __init__(self) -> None:
        self.tokens = [*(bytes([byte]) for byte in range(256)), b""]
        self.special_token_ids = [_END]
        self.eos_token_id = _END
        self.bos_token_id = None

    def __call__(self, text: bytes | str) -> list[int]:
        return list(text.encode() if isinstance(text, str) else text)


@contextlib.contextmanager
def _ending_after(seconds: float) -> Iterator[None]:
    timer = threading.Timer(seconds, os._exit, (1,))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _limit_memory() -> None:
    """Keep to what there is and some more, where the system knows such a limit."""
    if sys.platform == "win32":
        return
    import resource

    import psutil

    limit = psutil.Process().memory_info().vms + MEMORY_BYTES
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


if __name__ == "__main__":
    # The main thread's stack is the system's choice.
    threading.stack_size(STACK_BYTES)
    thread = threading.Thread(target=main)
    thread.start()
    thread.join()
