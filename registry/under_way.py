"""Which pulls some process is working on right now, and the word that one of them is to end."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import re
import secrets
import time
from collections.abc import AsyncGenerator, Iterator
from pathlib import Path

from registry.errors import ModelNotFound
from registry.locks import clear_unless_held, held, writing
from registry.name import ModelName
from registry.progress import Progress

_NAME = re.compile(r"pull-[0-9a-f]{64}\.([0-9]{1,10})-[0-9a-f]{16}\.lock")
_LOOK_SECONDS = 0.05
_GLANCE_SECONDS = 0.005
_LISTEN_SECONDS = 0.25


class PullsUnderWay:
    """Owns a lock file for each pull of each process, held for as long as it goes on. Every method blocks."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._folder = root / "locks"

    def enter(self, name: ModelName) -> PullMark:
        """Say that this process is pulling a model. Raises StoreReadOnly or DiskFull."""
        with writing(self._root):
            return PullMark(name, self._folder / f"{_prefix(name)}{os.getpid()}-{secrets.token_hex(8)}.lock")

    def processes(self, name: ModelName) -> list[int]:
        """The ids of the processes that are pulling a model, one for each pull; those that died do not count."""
        return [process for _, process in self._held(name)]

    def end(self, name: ModelName, patience_seconds: float = 10.0) -> list[int]:
        """Tell whoever pulls a model to stop, and wait until they have; returns the processes that have not."""
        told: set[Path] = set()
        give_up_at = time.monotonic() + patience_seconds
        while left := list(self._held(name)):
            with writing(self._root):
                for path, _ in left:
                    if path not in told:
                        _word(path).touch()
                        told.add(path)
            if time.monotonic() >= give_up_at:
                break
            time.sleep(_LOOK_SECONDS)
        for path in told.difference(path for path, _ in left):
            _word(path).unlink(missing_ok=True)  # of a pull that ended before it was told
        return [process for _, process in left]

    def _held(self, name: ModelName) -> Iterator[tuple[Path, int]]:
        for path in sorted(self._folder.glob(f"{_prefix(name)}*.lock")):
            match = _NAME.fullmatch(path.name)
            if match is None:
                continue
            if _is_left(path):
                _word(path).unlink(missing_ok=True)  # of a process that died
            else:
                yield path, int(match[1])


class PullMark:
    """That one pull is under way. Methods block."""

    def __init__(self, name: ModelName, path: Path) -> None:
        self.name = name
        self._path = path
        self._stack = contextlib.ExitStack()
        self._stack.enter_context(held(path))

    def is_to_end(self) -> bool:
        """Whether somebody, perhaps another process, has said that this pull is to stop."""
        return _word(self._path).exists()

    def leave(self) -> None:
        """The pull is over."""
        self._stack.close()
        for path in (self._path, _word(self._path)):
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)


async def until_told(mark: PullMark, steps: AsyncGenerator[Progress]) -> AsyncGenerator[Progress]:
    """A pull's steps, which are closed in the end. Raises ModelNotFound when somebody says that it is to stop."""
    async with contextlib.aclosing(steps):
        while (progress := await _next(mark, steps)) is not None:
            yield progress


async def _next(mark: PullMark, steps: AsyncGenerator[Progress]) -> Progress | None:
    step = asyncio.ensure_future(anext(steps, None))
    try:
        while not step.done():
            if await asyncio.to_thread(mark.is_to_end):
                raise ModelNotFound(
                    f"{mark.name.short} was removed while it was being downloaded.", model=mark.name.short
                )
            await asyncio.wait((step,), timeout=_LISTEN_SECONDS)
    finally:
        if not step.done():
            step.cancel()
            await asyncio.wait((step,))
            if not step.cancelled():
                step.exception()  # of a pull that is given up
    return step.result()


def _prefix(name: ModelName) -> str:
    return f"pull-{hashlib.sha256(name.folded.encode()).hexdigest()}."


def _is_left(path: Path) -> bool:
    if clear_unless_held(path):
        return True
    # Somebody else who looks may have held it for a moment, to remove it.
    time.sleep(_GLANCE_SECONDS)
    return clear_unless_held(path)


def _word(path: Path) -> Path:
    return path.with_suffix(".end")
