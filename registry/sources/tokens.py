"""Short-lived tokens that registries' token servers gave, kept for as long as they are good."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from registry.sources.logins import RegistryLogin


@dataclass(frozen=True, slots=True)
class Token:
    """What a token server gave, until when on the monotonic clock."""

    value: str = field(repr=False)
    expires_at: float

    def is_good(self, now: float) -> bool:
        return now < self.expires_at


@dataclass(frozen=True, slots=True)
class TokenKey:
    """For what, and for whom, a token was given."""

    realm: str
    service: str
    scopes: tuple[str, ...]
    login: RegistryLogin | None = field(repr=False)


class TokenCache:
    """Keeps tokens for as long as they are good; one for all pulls and pushes of a daemon."""

    def __init__(self) -> None:
        self._tokens: dict[TokenKey, Token] = {}

    def get(self, key: TokenKey) -> Token | None:
        now = time.monotonic()
        self._tokens = {one: token for one, token in self._tokens.items() if token.is_good(now)}
        return self._tokens.get(key)

    def put(self, key: TokenKey, token: Token) -> None:
        self._tokens[key] = token

    def drop(self, key: TokenKey) -> None:
        self._tokens.pop(key, None)
