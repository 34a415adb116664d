"""Requests to one repository of one registry: logins, redirects and tries again."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from dataclasses import dataclass

import httpx

from registry.errors import RegistryError, SourceError, SourceUnreachable, Unauthorized
from registry.patience import pause_after
from registry.registries import Registries, host_of, split_url
from registry.sources.credentials import shown
from registry.sources.host_rules import HostRules
from registry.sources.http import MAX_REDIRECTS, Dropped, HttpOptions, redirected
from registry.sources.logins import Logins
from registry.sources.registry_http import RegistryHttp
from registry.sources.repository_login import RepositoryLogin, way_in
from registry.sources.tokens import TokenCache

_ATTEMPTS = 3
_LOGINS = 2
"""For one request: with a token that was kept, and with a new one."""


@dataclass(frozen=True, slots=True)
class RegistryAccess:
    """What is known here about registries, for one pull or push."""

    registries: Registries
    logins: Logins
    tokens: TokenCache
    options: HttpOptions
    document_seconds: float


Body = bytes | Callable[[], AsyncIterator[bytes]] | None
"""What is sent; a function where it may have to be sent again."""


@contextlib.asynccontextmanager
async def open_repository(
    host: str, repository: str, scopes: tuple[str, ...], access: RegistryAccess
) -> AsyncGenerator[RegistryClient]:
    """A client for `repository` at a `HOST[:PORT]`. Raises RegistryForbidden or SourceUnreachable."""
    rules = HostRules(access.registries)

    def open_http() -> RegistryHttp:
        return RegistryHttp(rules, access.options, document_seconds=access.document_seconds)

    async with open_http() as http:
        base = await _find_base(http, host, access.registries)
        login = RepositoryLogin(base, scopes, access.registries, access.logins, access.tokens, open_http)
        yield RegistryClient(http, rules, login, access.registries, base, repository)


class RegistryClient:
    """One repository, for one pull or push."""

    def __init__(
        self,
        http: RegistryHttp,
        rules: HostRules,
        login: RepositoryLogin,
        registries: Registries,
        base: str,
        repository: str,
    ) -> None:
        self.http = http
        self.rules = rules
        self.login = login
        self.host = host_of(split_url(base))
        self.repository = repository
        self._registries = registries
        self._base = base

    def url(self, path: str) -> str:
        """The address of something in the repository, such as `manifests/latest`."""
        return f"{self._base}/v2/{self.repository}/{path}"

    @contextlib.asynccontextmanager
    async def send(
        self, method: str, url: str, headers: Mapping[str, str] | None = None, body: Body = None
    ) -> AsyncIterator[httpx.Response]:
        """A response that is neither a redirect nor the first request for a login.

        Raises Unauthorized when there is no login that would do, RegistryForbidden, SourceError, or Dropped where
        another try may help.
        """
        logins = 0
        for _ in range(MAX_REDIRECTS + _LOGINS + 1):
            content = body() if callable(body) else body
            sent = {**(headers or {}), **await self.login.headers(url)}
            async with self.http.send(method, url, sent, content) as response:
                if response.status_code == 401 and logins < _LOGINS:
                    logins += 1
                    if await self.login.refused(url, 401, response.headers):
                        continue
                if response.status_code in (401, 403):
                    raise self._unauthorized(url, await self.http.problem(response))
                if not response.has_redirect_location:
                    yield response
                    return
                if method not in ("GET", "HEAD"):
                    raise SourceError(f"{shown(url)} redirects what is sent to it, which is not followed.")
                url = redirected(url, response.headers["Location"])
        raise SourceError(f"{shown(url)} redirects more than {MAX_REDIRECTS} times.")

    async def document(
        self, method: str, path: str, headers: Mapping[str, str], limit: int, body: bytes | None = None
    ) -> tuple[httpx.Response, bytes]:
        """A small answer with its body, after some tries. Raises as `send`, and SourceUnreachable."""
        url = self.url(path)
        for attempt in range(_ATTEMPTS):
            try:
                async with asyncio.timeout(self.http.document_seconds), self.send(method, url, headers, body) as answer:
                    if answer.status_code >= 500 or answer.status_code in (408, 425, 429):
                        raise await self.http.problem(answer)
                    return answer, b"" if method == "HEAD" else await self.http.read(answer, limit)
            except Dropped as error:
                last = error
                pause = pause_after(attempt + 1, error.asked_pause)
                if pause > self.http.document_seconds:
                    break
                await asyncio.sleep(pause)
            except TimeoutError:
                raise self.http.too_slow(url) from None
        raise SourceUnreachable(f"{last.message}{self._hint()}", **last.facts) from last

    def _hint(self) -> str:
        """A registry on one's own network is often one that speaks no TLS."""
        entry = self._registries.find(self.host)
        if entry is None or entry.insecure:
            return ""
        return f" If it speaks plain HTTP, `puna registry add {self.host} --insecure` allows that."

    def _unauthorized(self, url: str, problem: RegistryError) -> Unauthorized:
        asked = host_of(split_url(url))
        if asked != self.host:
            return Unauthorized(f"unauthorized: {problem.message}", host=asked)
        if self.login.has_key:
            sentence = (
                f"unauthorized: {self.host} does not allow this to this machine's key. {problem.message} "
                f"{way_in(self.host, by_key=True)}"
            )
        elif self.login.has_login:
            sentence = f"unauthorized: {self.host} does not allow this with the login for it. {problem.message}"
        else:
            sentence = (
                f"unauthorized: {self.host} wants a login for {self.repository}, or has no such repository. "
                f"{way_in(self.host)}"
            )
        return Unauthorized(sentence, host=self.host)


async def _find_base(http: RegistryHttp, host: str, registries: Registries) -> str:
    """The scheme and host of a registry; an insecure one is asked which scheme it speaks."""
    entry = registries.find(host)
    if entry is None or not entry.insecure:
        return f"https://{host}"
    has_port = host.rpartition(":")[2].isdecimal()
    problems = []
    for scheme in ("http", "https") if has_port else ("https", "http"):
        base = f"{scheme}://{host}"
        try:
            async with http.document("GET", f"{base}/v2/", {}) as response:
                if response.status_code != 400 and not response.has_redirect_location:
                    return base
        except SourceError as error:
            problems.append(error)
    raise SourceUnreachable(problems[0].message if problems else f"{host} does not answer as a registry.", host=host)
