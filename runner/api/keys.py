"""Who asks: the API key of a request, and whether it may be used for that."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass

from starlette.datastructures import Headers

from runner.api.key_scopes import scope_of
from runner.api_keys import ApiKey, KeyFileError, KeyRing
from runner.errors import Forbidden, RunnerError, Unauthorized

logger = logging.getLogger(__name__)

_MISSING = "An API key is needed here."
_UNKNOWN = "This API key is not known here; it may have been removed."
_HOW = (
    "It is sent as `Authorization: Bearer KEY` or `x-api-key: KEY`, by `puna` from PUNA_API_KEY; "
    "`puna key create NAME`, on the daemon's machine, makes one."
)


@dataclass(frozen=True, slots=True)
class Caller:
    """Whose request it is."""

    owner: str = ""
    """The id of a key that was checked; empty for everyone who shows none that is known."""
    is_background: bool = False


class KeyCheck:
    """Decides by the API key of a request.

    Where none is required, a text that is no key is nobody's, since clients have to send something; but a key that is
    known counts there as well, with what it may be used for.
    """

    def __init__(self, keys: KeyRing, *, is_required: bool) -> None:
        self._keys = keys
        self._is_required = is_required

    def check(self, method: str, path: str, headers: Headers) -> Caller:
        """Who asks; raises Unauthorized, Forbidden, and RunnerError when the keys cannot be read."""
        shown = list(_shown(headers))
        key = self._known(shown)
        if key is None:
            if not self._is_required:
                return Caller()
            raise Unauthorized(f"{_UNKNOWN if shown else _MISSING} {_HOW}")
        needed = scope_of(method, path)
        if needed is not None and needed not in key.scopes:
            has = ", ".join(key.scopes)
            raise Forbidden(f'This needs an API key with the scope "{needed}"; the one sent has {has}.', scope=needed)
        return Caller(key.id, key.is_background)

    def _known(self, shown: list[str]) -> ApiKey | None:
        try:
            return next((key for text in shown if (key := self._keys.find(text)) is not None), None)
        except KeyFileError as error:
            logger.error("%s", error)
            raise RunnerError("The API keys cannot be checked; the daemon's log tells why.") from None


def _shown(headers: Headers) -> Iterator[str]:
    """What a request gives as its key, under either name."""
    for value in headers.getlist("authorization"):
        scheme, _, text = value.strip().partition(" ")
        if scheme.lower() == "bearer":
            yield text.strip()
    for value in headers.getlist("x-api-key"):
        yield value.strip()
