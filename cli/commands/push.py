"""`puna push`: send a model to the registry that its name tells."""

from __future__ import annotations

from contextlib import closing

from cli.connect import connect
from cli.progress import follow, progress_view


def push(name: str, *, insecure: bool) -> None:
    """Send a model and return when it is there; interrupted, the daemon stops sending as well."""
    client = connect()
    with closing(progress_view()) as view, client.push(name, insecure=insecure) as records:
        follow(records, view)
