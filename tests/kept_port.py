"""A port for a program that has to be told one beforehand."""

from __future__ import annotations

import contextlib
import socket
import sys
from collections.abc import Iterator


@contextlib.contextmanager
def kept_port() -> Iterator[int]:
    """Nobody listens on it, and nobody else is given it by chance; who asks for it by its number may listen there."""
    with socket.socket() as keeper:
        keeper.bind(("127.0.0.1", 0))
        port = int(keeper.getsockname()[1])
        if sys.platform == "linux":
            # Who binds with the same option may share it, as long as the keeper does not listen.
            keeper.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        else:
            keeper.close()
        yield port
