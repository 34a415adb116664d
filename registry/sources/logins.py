"""Logins for registries: from the configuration, Docker's configuration and its helpers, and netrc."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import logging
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from registry.registries import DOCKER_HUB, Registries
from registry.sources.credentials import Credentials, Login
from registry.sources.machine_key import MachineKey

logger = logging.getLogger(__name__)

HELPER_SECONDS = 15.0
_MAX_CONFIG_BYTES = 1 << 20
_MAX_HELPER_BYTES = 1 << 20
_HELPER_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_VARIABLE = re.compile(r"\$(?:\{([A-Za-z_][A-Za-z0-9_]*)\}|([A-Za-z_][A-Za-z0-9_]*))")
_DOCKER_HUB_KEY = "https://index.docker.io/v1/"
_IDENTITY_USER = "<token>"
"""The user name under which a helper hands out an identity token."""


@dataclass(frozen=True, slots=True)
class IdentityToken:
    """Stands for a user at a token server, which exchanges it for short tokens."""

    token: str = field(repr=False)


RegistryLogin = Login | IdentityToken | MachineKey


class Logins:
    """Knows which login belongs to which registry; reads files and asks helpers when it is asked."""

    def __init__(
        self,
        registries: Registries,
        environ: Mapping[str, str],
        home: Path,
        key: MachineKey | None = None,
        *,
        helper_seconds: float = HELPER_SECONDS,
    ) -> None:
        self._registries = registries
        self._environ = environ
        self._home = home
        self._key = key
        self._helper_seconds = helper_seconds

    async def find(self, host: str, scheme: str = "https") -> RegistryLogin | None:
        """The login of a normal host: what is configured here, else Docker's, else netrc's, else this machine's key."""
        entry = self._registries.find(host)
        if entry is not None and entry.credentials is not None:
            return read_credentials(entry.credentials, self._environ, host)
        docker = await asyncio.to_thread(self._docker_config)
        found = await self._from_helper(docker, host) or _from_auths(docker, host)
        found = found or await asyncio.to_thread(self._from_netrc, f"{scheme}://{host}/")
        return found or (self._key if self._registries.knows_keys(host) else None)

    def _docker_config(self) -> Mapping[str, object]:
        folder = self._environ.get("DOCKER_CONFIG")
        path = (Path(folder) if folder else self._home / ".docker") / "config.json"
        try:
            with path.open("rb") as file:
                # One that is longer than it can be is cut, and then no JSON.
                document = json.loads(file.read(_MAX_CONFIG_BYTES))
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, RecursionError) as error:
            logger.warning(
                "Docker's config.json cannot be read, so its logins are not used (%s).", type(error).__name__
            )
            return {}
        return document if isinstance(document, dict) else {}

    async def _from_helper(self, docker: Mapping[str, object], host: str) -> RegistryLogin | None:
        helpers = docker.get("credHelpers")
        named = [helpers.get(key) for key in _keys(host)] if isinstance(helpers, dict) else []
        store = docker.get("credsStore")
        for helper in [*named, store]:
            if not isinstance(helper, str) or not _HELPER_NAME.fullmatch(helper):
                continue
            for key in _keys(host) if helper == store else _keys(host)[:1]:
                found = await self._ask_helper(helper, key)
                if found is not None:
                    return found
        return None

    async def _ask_helper(self, helper: str, key: str) -> RegistryLogin | None:
        program = shutil.which(f"docker-credential-{helper}", path=self._environ.get("PATH"))
        if program is None:
            logger.warning("docker-credential-%s, which Docker's config.json names, is not installed.", helper)
            return None
        process = await asyncio.create_subprocess_exec(
            program,
            "get",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            env=dict(self._environ),
        )
        try:
            async with asyncio.timeout(self._helper_seconds):
                output, _ = await process.communicate(key.encode())
        except TimeoutError:
            logger.warning("docker-credential-%s did not answer in %.0f seconds.", helper, self._helper_seconds)
            return None
        finally:
            if process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
                await process.wait()
        return _read_helper(output) if process.returncode == 0 and len(output) <= _MAX_HELPER_BYTES else None

    def _from_netrc(self, url: str) -> Login | None:
        return Credentials(self._environ, self._home).find(url)


def read_credentials(text: str, environ: Mapping[str, str], host: str) -> Login | None:
    """`user:password`, or the variable that holds it; None, with a logged warning, when there is no such variable."""
    variable = _VARIABLE.fullmatch(text)
    if variable is not None:
        name = variable[1] or variable[2]
        text = environ.get(name, "")
        if ":" not in text:
            logger.warning("The environment variable %s, for the login at %s, holds no user:password.", name, host)
            return None
    user, _, password = text.partition(":")
    return Login(user, password)


def _keys(host: str) -> tuple[str, ...]:
    """Under which names Docker keeps the login of a host."""
    if host in DOCKER_HUB:
        return (_DOCKER_HUB_KEY, host, *sorted(DOCKER_HUB - {host}))
    return (host, f"https://{host}", f"https://{host}/v1/", f"https://{host}/v2/")


def _from_auths(docker: Mapping[str, object], host: str) -> RegistryLogin | None:
    auths = docker.get("auths")
    if not isinstance(auths, dict):
        return None
    for key in _keys(host):
        entry = auths.get(key)
        found = _read_auth(entry) if isinstance(entry, dict) else None
        if found is not None:
            return found
    return None


def _read_auth(entry: Mapping[str, object]) -> RegistryLogin | None:
    identity, auth = entry.get("identitytoken"), entry.get("auth")
    user, password = entry.get("username"), entry.get("password")
    if isinstance(identity, str) and identity:
        return IdentityToken(identity)
    if isinstance(auth, str) and auth:
        try:
            user, _, password = base64.b64decode(auth).decode().rstrip("\0").partition(":")
        except ValueError:
            return None
    return Login(user, password) if isinstance(user, str) and isinstance(password, str) and user else None


def _read_helper(output: bytes) -> RegistryLogin | None:
    try:
        document = json.loads(output)
    except (ValueError, RecursionError):
        return None
    if not isinstance(document, dict):
        return None
    user, secret = document.get("Username"), document.get("Secret")
    if not isinstance(user, str) or not isinstance(secret, str) or not secret:
        return None
    return IdentityToken(secret) if user == _IDENTITY_USER else Login(user, secret)
