"""`puna pull`: fetch a model."""

from __future__ import annotations

from contextlib import closing

from cli.client import DaemonClient
from cli.connect import connect
from cli.progress import follow, progress_view


def pull(name: str) -> None:
    pull_model(connect(), name)


def pull_model(client: DaemonClient, name: str) -> None:
    """Fetch a model and return when it is here; interrupted, the daemon stops fetching as well."""
    with closing(progress_view()) as view, client.pull(name) as records:
        follow(records, view)
