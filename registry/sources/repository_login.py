"""The login for one repository: answers a registry's challenge with a password or a short-lived token."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import math
import re
import secrets
import time
from collections.abc import Callable, Mapping
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

import httpx

from registry.errors import RegistryForbidden, SourceError, SourceUnreachable, Unauthorized
from registry.registries import DOCKER_HUB, KEYED_REGISTRY, Registries, host_of, is_same_registry, split_url
from registry.sources.challenge import Challenge, read_challenges
from registry.sources.credentials import Login, shown
from registry.sources.http import Dropped
from registry.sources.logins import IdentityToken, Logins, RegistryLogin
from registry.sources.machine_key import MachineKey
from registry.sources.registry_http import RegistryHttp
from registry.sources.tokens import Token, TokenCache, TokenKey

CLIENT_ID = "puna"
_KEY_PAGES = {KEYED_REGISTRY: ", at https://ollama.com/settings/keys"}
_EMPTY_BODY = base64.b64encode(hashlib.sha256(b"").hexdigest().encode()).decode()
"""Stands for the body in what is signed."""
_TokenRequest = tuple[str, str, dict[str, str], bytes | None]

_MAX_TOKEN_DOCUMENT = 256 * 1024
_TOKEN = re.compile(r"[\x21-\x7e]{1,65536}")
_DEFAULT_SECONDS = 60.0
_LONGEST_SECONDS = 3600.0
_RENEW_EARLY_SECONDS = 10.0
_ATTEMPTS = 3

_FRESH_SECONDS = 5.0
_MAX_STRAGGLERS = 32
"""Many connections are refused at once when a token ends; the first fetches the new one for all of them."""
_MAX_GRANTS = 3
_GRANTS_SECONDS = 30.0
"""A server that refuses this many new logins in that time will not take the next one."""


class RepositoryLogin:
    """An `Authorizer` for one repository of one registry. What it knows goes to that registry's own address only."""

    def __init__(
        self,
        base: str,
        scopes: tuple[str, ...],
        registries: Registries,
        logins: Logins,
        tokens: TokenCache,
        open_http: Callable[[], RegistryHttp],
    ) -> None:
        self._base = base
        self._host = host_of(split_url(base))
        self._scopes = scopes
        self._registries = registries
        self._logins = logins
        self._tokens = tokens
        self._open_http = open_http
        self._lock = asyncio.Lock()
        self._challenge: Challenge | None = None
        self._sent: str | None = None
        self._granted_at: list[float] = []
        self._handed_out = 0
        """How many requests have gone with what is sent now."""
        self._stragglers = 0
        """How many of those before may still come back refused."""
        self._found: dict[str, RegistryLogin | None] = {}
        self.has_login = False
        """Whether a login was found when one was asked for."""
        self.has_key = False
        """Whether that is this machine's key."""

    async def headers(self, url: str) -> Mapping[str, str]:
        """What to send to this address; nothing to any other than the registry's own."""
        if not self._is_own(url):
            return {}
        async with self._lock:
            answer = await self._answer(self._challenge) if self._challenge is not None else None
            if answer != self._sent:
                self._sent, self._handed_out = answer, 0
            self._handed_out += 1
        return {"Authorization": answer} if answer else {}

    async def refused(self, url: str, status: int, headers: Mapping[str, str]) -> bool:
        """Read what an answer 401 asks for; whether it can be given.

        Raises Unauthorized when the token server refuses, RegistryForbidden when it is at a host that is not the
        registry's and not listed, or SourceError.
        """
        if status != 401 or not self._is_own(url):
            return False
        async with self._lock:
            now = time.monotonic()
            self._granted_at = [at for at in self._granted_at if now - at < _GRANTS_SECONDS]
            is_fresh = bool(self._granted_at) and now - self._granted_at[-1] < _FRESH_SECONDS
            if is_fresh and self._stragglers > 0:
                self._stragglers -= 1
                return True
            if len(self._granted_at) >= _MAX_GRANTS:
                return False
            challenge = _choose(headers)
            if challenge is None:
                return False
            refused, self._challenge = self._sent, challenge
            if refused is not None:
                await self._forget(challenge)
            answer = await self._answer(challenge)
            if answer is None or answer == refused:
                return False
            self._granted_at.append(time.monotonic())
            self._stragglers = min(self._handed_out - 1, _MAX_STRAGGLERS)
            return True

    def _is_own(self, url: str) -> bool:
        own, asked = urlsplit(self._base), split_url(url)
        return asked.scheme == own.scheme and host_of(asked) == self._host

    async def _answer(self, challenge: Challenge) -> str | None:
        """The header that answers a challenge, or None when nothing here could."""
        if challenge.scheme == "basic":
            login = await self._login(self._host, urlsplit(self._base).scheme)
            self.has_login = login is not None
            return login.header if isinstance(login, Login) else None
        key = await self._token_key(challenge)
        self.has_login = key.login is not None
        self.has_key = isinstance(key.login, MachineKey)
        token = self._tokens.get(key)
        if token is None:
            token = await self._fetch(key)
            self._tokens.put(key, token)
        return f"Bearer {token.value}"

    async def _forget(self, challenge: Challenge) -> None:
        if challenge.scheme == "bearer":
            self._tokens.drop(await self._token_key(challenge))

    async def _token_key(self, challenge: Challenge) -> TokenKey:
        realm = challenge.parameters.get("realm", "")
        host = host_of(split_url(realm))
        is_own = is_same_registry(host, self._host)
        if not is_own and self._registries.find(host) is None:
            raise RegistryForbidden(
                f'realm host "{host}" does not match original host "{self._host}": logins are not sent there unless '
                f"it is listed with `puna registry add {host}`.",
                host=host,
            )
        login = await self._login(self._host if is_own else host, split_url(realm).scheme)
        scopes = self._scopes
        told = challenge.parameters.get("scope", "")
        if told and told.rpartition(":")[0] not in [scope.rpartition(":")[0] for scope in scopes]:
            scopes = (*scopes, told)
        return TokenKey(realm, challenge.parameters.get("service", ""), scopes, login)

    async def _login(self, host: str, scheme: str) -> RegistryLogin | None:
        """Looked for once: some are told by programs that take their time."""
        if host not in self._found:
            self._found[host] = await self._logins.find(host, scheme)
        return self._found[host]

    async def _fetch(self, key: TokenKey) -> Token:
        async with self._open_http() as http:
            for attempt in range(_ATTEMPTS):
                try:
                    return await _request_token(http, key, self._host)
                except Dropped as error:
                    last = error
                    await asyncio.sleep(0.2 * (attempt + 1))
        raise SourceUnreachable(last.message, **last.facts) from last


async def _request_token(http: RegistryHttp, key: TokenKey, host: str) -> Token:
    async with http.document(*await _token_request(key)) as response:
        if response.status_code in (400, 401, 403):
            raise Unauthorized(f"unauthorized: the token server {shown(key.realm)} {_refusal(key, host)}", host=host)
        if response.status_code != 200:
            raise await http.problem(response)
        return read_token(await http.read(response, _MAX_TOKEN_DOCUMENT), shown(key.realm))


def _refusal(key: TokenKey, host: str) -> str:
    if isinstance(key.login, MachineKey):
        return f"does not know this machine's key for {host}. {way_in(host, by_key=True)}"
    has_login = "does not accept the login" if key.login else "gives no token without a login"
    return f"{has_login} for {host}. {way_in(host)}"


def way_in(host: str, *, by_key: bool = False) -> str:
    """Where a login for a host can be put, as a sentence."""
    if by_key:
        return f"Add the key that `puna registry key` prints to your account there{_KEY_PAGES.get(host, '')}."
    name = "docker.io" if host in DOCKER_HUB else host
    return (
        f'Put the login into [registries."{name}"] credentials = "user:password" of config.toml, or use '
        f"`docker login {name}` or the netrc file."
    )


def read_token(content: bytes, place: str) -> Token:
    """The token of a token server's document. Raises SourceError."""
    try:
        document = json.loads(content)
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict):
        raise SourceError(f"{place} does not answer as a token server.")
    value = document.get("token") or document.get("access_token")
    if not isinstance(value, str) or not _TOKEN.fullmatch(value):
        raise SourceError(f"{place} gives no usable token.")
    told = document.get("expires_in")
    seconds = _DEFAULT_SECONDS
    if isinstance(told, int | float) and not isinstance(told, bool) and 0 < told < math.inf:
        seconds = min(float(told), _LONGEST_SECONDS)
    return Token(value, time.monotonic() + max(seconds - _RENEW_EARLY_SECONDS, seconds / 2))


def _choose(headers: Mapping[str, str]) -> Challenge | None:
    """Of what a registry offers, the token before the password."""
    text = httpx.Headers(headers).get("WWW-Authenticate", "")
    offered = {challenge.scheme: challenge for challenge in reversed(read_challenges(text))}
    bearer = offered.get("bearer")
    return bearer if bearer is not None and bearer.parameters.get("realm") else offered.get("basic")


async def _token_request(key: TokenKey) -> _TokenRequest:
    if isinstance(key.login, IdentityToken):
        return _identity_request(key, key.login)
    if isinstance(key.login, MachineKey):
        return await _signed_request(key, key.login)
    headers = {"Authorization": key.login.header} if key.login is not None else {}
    return "GET", _token_url(key), headers, None


async def _signed_request(key: TokenKey, machine: MachineKey) -> _TokenRequest:
    """What is signed is the whole address, with a time and a number that come but once: nobody can send it again."""
    fresh = [("ts", str(int(time.time()))), ("nonce", secrets.token_urlsafe(16))]
    url = str(httpx.URL(_token_url(key, *fresh)))
    signature = await asyncio.to_thread(machine.sign, f"GET,{url},{_EMPTY_BODY}")
    return "GET", url, {"Authorization": signature}, None


def _token_url(key: TokenKey, *more: tuple[str, str]) -> str:
    asked = [("service", key.service)] if key.service else []
    asked += [("scope", scope) for scope in key.scopes]
    parts = urlsplit(key.realm)
    query = urlencode([*parse_qsl(parts.query), *asked, *more])
    return urlunsplit(parts._replace(query=query, fragment=""))


def _identity_request(key: TokenKey, identity: IdentityToken) -> _TokenRequest:
    form = {
        "grant_type": "refresh_token",
        "service": key.service,
        "client_id": CLIENT_ID,
        "scope": " ".join(key.scopes),
        "refresh_token": identity.token,
    }
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    return "POST", key.realm, headers, urlencode(form).encode()
