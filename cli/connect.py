"""A client of the daemon, which is started when none runs."""

from __future__ import annotations

from cli.address import daemon_address, daemon_key
from cli.client import DaemonClient, NotListening
from cli.errors import ApiError, DaemonUnreachable
from cli.output import note
from cli.version import VERSION


def connect(*, start: bool = True) -> DaemonClient:
    """A client whose daemon answers; one of another version is warned about.

    Raises NotListening when there is none and `start` is false, DaemonUnreachable when there is
    none on another machine, DaemonFailedToStart.
    """
    address = daemon_address()
    client = DaemonClient(address, daemon_key(address))
    try:
        version = client.version()
    except NotListening:
        if not client.address.is_local:
            raise DaemonUnreachable(
                f"No daemon answers at {client.address.url}, and one can only be started on this machine. "
                "Check PUNA_HOST."
            ) from None
        if not start:
            raise
        from cli.service import start_daemon

        start_daemon(client)
        return client
    except ApiError as error:
        if error.code:
            raise
        raise DaemonUnreachable(
            f"What answers at {client.address.url} is not Puna's daemon. Check PUNA_HOST."
        ) from None
    if version != VERSION:
        note(
            f"Warning: what answers at {client.address.url} has version {version}, this command line {VERSION}. "
            "End the other one (`puna stop --daemon`), or choose another address with PUNA_HOST."
        )
    return client
