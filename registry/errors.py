"""Everything that can go wrong with models on disk and on their way there.

RegistryError
├─ InvalidRequest             the caller can change something
│  └─ InvalidName             a model name that cannot be one
├─ Unsupported                understood, and not built
├─ ModelNotFound
├─ ModelInvalid               a file or manifest that is hostile, damaged or not a model
├─ ModelCorrupt               a file differs from what was verified
├─ DigestMismatch             bytes that came from outside are not the ones asked for
├─ DiskFull, StoreReadOnly
├─ ModelInUse                 it is loaded, answering or being downloaded
├─ RegistryForbidden          a host that has to be listed first
├─ Unauthorized               a source wants a login, or refuses the one it got
└─ SourceError                a source answered, but not with what was asked for
   └─ SourceUnreachable       a source did not answer
"""

from __future__ import annotations

from collections.abc import Mapping

Fact = str | int | float | bool | None


class RegistryError(Exception):
    """An error with a stable `code`, one sentence for people, and its facts as values."""

    code = "internal"

    def __init__(self, message: str, **facts: Fact) -> None:
        super().__init__(message)
        self.message = message
        self.facts: Mapping[str, Fact] = facts


class InvalidRequest(RegistryError):
    code = "invalid_request"


class InvalidName(InvalidRequest):
    """A model name that breaks the rules of `registry.name`."""


class Unsupported(RegistryError):
    """Something that is understood and not built."""

    code = "unsupported"


class ModelNotFound(RegistryError):
    code = "model_not_found"


class ModelInvalid(RegistryError):
    """A file or manifest that is hostile, damaged beyond reading, or not a model."""

    code = "model_invalid"


class ModelCorrupt(RegistryError):
    """A file of the store differs from what was verified, or is gone."""

    code = "model_corrupt"


class DigestMismatch(RegistryError):
    """Bytes that were fetched or uploaded are not the ones their digest names."""

    code = "digest_mismatch"

    def __init__(self, expected: str, actual: str) -> None:
        super().__init__(f'digest mismatch, expected "{expected}", got "{actual}"', expected=expected, actual=actual)


class DiskFull(RegistryError):
    code = "disk_full"


class StoreReadOnly(RegistryError):
    code = "store_read_only"


class ModelInUse(RegistryError):
    code = "model_in_use"


class RegistryForbidden(RegistryError):
    """A host that may only be asked when it is listed; the message names the command that lists it."""

    code = "registry_forbidden"


class Unauthorized(RegistryError):
    """A source wants a login, or does not accept the one it got; the message says where to put it."""

    code = "unauthorized"


class SourceError(RegistryError):
    """A source answered, but not with what was asked for."""

    code = "registry_error"


class SourceUnreachable(SourceError):
    """A source did not answer, or stopped in the middle for too long."""

    code = "registry_unreachable"
