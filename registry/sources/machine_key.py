"""This machine's key: an ed25519 pair by which a registry knows an account without a password, as Ollama's does."""

from __future__ import annotations

import base64
import contextlib
import os
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from registry.errors import Unauthorized

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

KEY_FILE = "id_ed25519"
_COMMENT = "puna"
_MAX_KEY_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class MachineKey:
    """The pair in a file of OpenSSH's format, beside the configuration; made when it is first needed. Methods block."""

    path: Path

    @classmethod
    def beside(cls, config_file: Path) -> MachineKey:
        return cls(config_file.with_name(KEY_FILE))

    def public(self) -> str:
        """One line that is fit for a registry's page of keys. Raises Unauthorized when there can be no key."""
        return f"{_public_text(self._pair())} {_COMMENT}"

    def sign(self, text: str) -> str:
        """The public key and a signature, as one value of a header. Raises as `public`."""
        pair = self._pair()
        signature = base64.b64encode(pair.sign(text.encode())).decode("ascii")
        return f"{_public_text(pair).split()[1]}:{signature}"

    def _pair(self) -> Ed25519PrivateKey:
        try:
            content = self._read() or self._make()
        except OSError as error:
            raise Unauthorized(f"The key {self.path} cannot be used: {error.strerror}.") from None
        return _load(content, self.path)

    def _read(self) -> bytes | None:
        with contextlib.suppress(FileNotFoundError), self.path.open("rb") as file:
            return file.read(_MAX_KEY_BYTES)
        return None

    def _make(self) -> bytes:
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

        content = Ed25519PrivateKey.generate().private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
        )
        self.path.parent.mkdir(parents=True, exist_ok=True)
        written = self.path.with_name(f"{self.path.name}.{secrets.token_hex(4)}")
        try:
            with os.fdopen(os.open(written, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                file.write(content)
            # A whole key or none is there for others; of two that are made at once, the first one counts.
            os.link(written, self.path)
        except FileExistsError:
            return self.path.read_bytes()
        finally:
            written.unlink(missing_ok=True)
        return content


def _load(content: bytes, path: Path) -> Ed25519PrivateKey:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_ssh_private_key

    try:
        pair = load_ssh_private_key(content, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        pair = None
    if not isinstance(pair, Ed25519PrivateKey):
        raise Unauthorized(f"{path} is no ed25519 key in OpenSSH's format without a passphrase.")
    return pair


def _public_text(pair: Ed25519PrivateKey) -> str:
    from cryptography.hazmat.primitives import serialization

    public = pair.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    return public.decode("ascii")
