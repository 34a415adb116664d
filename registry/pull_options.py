"""How downloads behave, as whoever starts them decides."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from registry.sources.http import HttpClient, HttpOptions


@dataclass(frozen=True, slots=True)
class PullOptions:
    """How downloads behave."""

    parallel: int = 8
    """Connections for one file."""
    idle_timeout_seconds: float = 120.0
    """Give up when nothing has come for so long."""
    piece_bytes: int = 1 << 20
    """Written down at once; so much of each connection a kill may take."""
    keep_free_bytes: int = 1 << 30
    """Room that a download leaves on the disk."""
    proxy: str | None = field(default=None, repr=False)
    ca_bundle: Path | None = None


OpenHttp = Callable[[], contextlib.AbstractAsyncContextManager["HttpClient"]]
"""The one client of all downloads, for as long as the body runs."""


def http_options(options: PullOptions) -> HttpOptions:
    """What of the options concerns HTTP."""
    # Only pulls pay for loading the HTTP client.
    from registry.sources.http import HttpOptions

    return HttpOptions(options.idle_timeout_seconds, options.proxy, options.ca_bundle)
