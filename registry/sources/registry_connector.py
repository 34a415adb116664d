"""Opens clients for repositories, by the rules and logins of this machine as they are at that moment."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
from collections.abc import AsyncGenerator, Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from registry.errors import InvalidName, InvalidRequest
from registry.name import ModelName
from registry.pull_options import PullOptions, http_options
from registry.registries import Registries, api_host, normal_host
from registry.sources.logins import Logins
from registry.sources.machine_key import MachineKey
from registry.sources.tokens import TokenCache

if TYPE_CHECKING:
    from registry.sources.registry_client import RegistryClient


class RegistryConnector:
    """Knows nothing of registries itself but the tokens they gave; one for all pulls and pushes of a daemon."""

    def __init__(
        self,
        load_registries: Callable[[], Registries],
        options: PullOptions,
        environ: Mapping[str, str],
        home: Path,
        key: MachineKey | None = None,
        *,
        document_seconds: float = 30.0,
    ) -> None:
        """`key` is for registries that know accounts by keys.

        `document_seconds` is for a whole manifest or token, however slowly it trickles.
        """
        self._load_registries = load_registries
        self._options = options
        self._environ = environ
        self._home = home
        self._key = key
        self._document_seconds = document_seconds
        self._tokens = TokenCache()

    async def registries(self, host: str, *, insecure: bool) -> Registries:
        """The table as it is now; `insecure` counts for a listed host only. Raises RegistryForbidden."""
        registries = await asyncio.to_thread(self._load_registries)
        return registries.with_insecure(host) if insecure else registries

    @contextlib.asynccontextmanager
    async def open(
        self, host: str, repository: str, actions: str, registries: Registries, *, also: tuple[str, ...] = ()
    ) -> AsyncGenerator[RegistryClient]:
        """A client for `repository` at a normal host; `also` names repositories that are read besides.

        Raises RegistryForbidden or SourceUnreachable.
        """
        # Only those who need a registry pay for loading the HTTP client, and they do it in a thread.
        await asyncio.to_thread(importlib.import_module, "registry.sources.registry_client")
        from registry.sources.registry_client import RegistryAccess, open_repository

        scopes = (f"repository:{repository}:{actions}", *(f"repository:{other}:pull" for other in also))
        logins = Logins(registries, self._environ, self._home, self._key)
        options = http_options(self._options)
        access = RegistryAccess(registries, logins, self._tokens, options, self._document_seconds)
        async with open_repository(host, repository, scopes, access) as client:
            yield client


def registry_host(name: ModelName) -> str:
    """The normal host that answers for a model's registry. Raises InvalidName."""
    try:
        return normal_host(api_host(name.host))
    except InvalidRequest as error:
        raise InvalidName(error.message) from None


def repository_of(name: ModelName) -> str:
    """As it is spelled: some registries tell cases apart, others refuse capitals themselves."""
    return f"{name.namespace}/{name.model}"
