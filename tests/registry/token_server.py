"""A token server in front of a registry: gives signed tokens for what its user may do, and notes who asks."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import textwrap
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

SERVICE, ISSUER = "registry", "tokens"

# A key pair for these tests and nothing else.
_CERTIFICATE = (
    "MIIC0jCCAbqgAwIBAgIBATANBgkqhkiG9w0BAQsFADAhMR8wHQYDVQQDDBZwdW5hIHRlc3QgdG9rZW4gc2VydmVyMCAXDTAwMDEw"
    "MTAwMDAwMFoYDzIxOTkwMTAxMDAwMDAwWjAhMR8wHQYDVQQDDBZwdW5hIHRlc3QgdG9rZW4gc2VydmVyMIIBIjANBgkqhkiG9w0B"
    "AQEFAAOCAQ8AMIIBCgKCAQEAsN383NqO/s3aJ46yTQRMEylNJQUPpwV5D003Guf+XBvVw/jYWf9+T2htPENVnWB4Pur/yrl/ojm7"
    "lsvvepUnmZvwF0f1iAgu3lxTq58D4pc8vT23YI+cayEKWdg9NoPs+WNLd/G50+rPiS6WmdI3hzj7sinheFYFO6wAGs1fOnsQOT81"
    "0PZi0TGmOIDJ3eC8rd8UwI0uw6KJkuGm3VbjvpWQimEDzbFPjQ8FJUSHWCCH+E++xsOUNSdZ0Ag/ZJNAN1nYu0XxDDy/3VzOTpN4"
    "aXNRhn49wldg1L3PJn3uFALuI+9rialomLuaJ7Da3lsUi3hvelQehFqIaH1px424PQIDAQABoxMwETAPBgNVHRMBAf8EBTADAQH/"
    "MA0GCSqGSIb3DQEBCwUAA4IBAQA1dY/fu/Sti4yqG9b4c4sMC+PTorqe9uUF05HsE96jWuEtm8vtIboEL/6qLU3CWbHTMdln4oXO"
    "blW1fOn0E7TTRyC8LugZK4ByN3wOX+cB3vrA1KTk54bx8966k8oY/b+eX1lE0Okhyqfi+ymmQi7N8Pv38sTNpphFwIT6oTD1xb4/"
    "//hI1fJhj/iMaTrMHkygSyhby2yYpwQBvsq07xIefWXSwjnxHJUIUtAF9kporaTQJl6t0nnBrTIMwHa+tTw3kevvE5/7H1FU8sQA"
    "U+OtQ3Q/IzrisfkldJR67TlfmxeOfcUx6XkpR6Da+ChbS+HW2Zq+ltxDz8w/KP4WtH98"
)
_MODULUS = (
    "b0ddfcdcda8efecdda278eb24d044c13294d25050fa705790f4d371ae7fe5c1bd5c3f8d859ff7e4f686d3c43559d60783eea"
    "ffcab97fa239bb96cbef7a9527999bf01747f588082ede5c53ab9f03e2973cbd3db7608f9c6b210a59d83d3683ecf9634b77"
    "f1b9d3eacf892e9699d2378738fbb229e17856053bac001acd5f3a7b10393f35d0f662d131a63880c9dde0bcaddf14c08d2e"
    "c3a28992e1a6dd56e3be95908a6103cdb14f8d0f05254487582087f84fbec6c394352759d0083f6493403759d8bb45f10c3c"
    "bfdd5cce4e9378697351867e3dc25760d4bdcf267dee1402ee23ef6b89a96898bb9a27b0dade5b148b786f7a541e845a8868"
    "7d69c78db83d"
)
_EXPONENT = (
    "6ff9db61a82de83c43e5cf7e2b2c914d80548b1f8d2d5d55abce6318f1d02458ab1a0bae4e2c67b7b6919219bf5688011934"
    "8705be33846db0ca640b163ce0796c34b148a9b69a17b24819e10a27d78990b6ef1fee4e7de585619c483f5908653bef1594"
    "b6c1c3dd61cfa4634cb7bed829c790a0db52e8831fa861d89635b83baa3cfc7a6013d0fca9a2800d9e5c7a9de9e49be2bc2a"
    "213e9c11ae5dab09437a057db4cf631a2937ff18299ebb0bb88d897519e7eeee03abe415b453827d5ccd630a86a0f93ae235"
    "c7a97c10e44fbd326b07027a4117b2f0b34696bf323593d8100f1a89f7caada3c1891ed5a77851fbc9162d33d996cbf3145d"
    "6d3f8d2bbd1"
)

CERTIFICATE_PEM = f"-----BEGIN CERTIFICATE-----\n{textwrap.fill(_CERTIFICATE, 64)}\n-----END CERTIFICATE-----\n"
_SHA256_PREFIX = bytes.fromhex("3031300d060960864801650304020105000420")


@dataclass
class TokenServer:
    """`users` by name and password; nobody gets a token without one of them unless `is_open`."""

    users: dict[str, str] = field(default_factory=dict)
    is_open: bool = False
    seconds: int = 300
    asked: list[tuple[str | None, tuple[str, ...]]] = field(default_factory=list)
    """Who asked, and for which scopes."""
    host: str = ""

    @property
    def realm(self) -> str:
        return f"http://{self.host}/token"

    @contextlib.contextmanager
    def running(self) -> Iterator[TokenServer]:
        server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        self.host = f"127.0.0.1:{server.server_address[1]}"
        thread.start()
        try:
            yield self
        finally:
            server.shutdown()
            thread.join()
            server.server_close()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        tokens = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                user = tokens._user(self.headers.get("Authorization"))
                scopes = tuple(parse_qs(urlsplit(self.path).query).get("scope", ()))
                tokens.asked.append((user, scopes))
                is_welcome = user is not None or (tokens.is_open and "Authorization" not in self.headers)
                body = json.dumps(
                    {"token": sign(user or "", scopes, tokens.seconds), "expires_in": tokens.seconds}
                    if is_welcome
                    else {"errors": [{"code": "UNAUTHORIZED", "message": "who are you?"}]}
                ).encode()
                self.send_response(200 if is_welcome else 401)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:
                pass

        return Handler

    def _user(self, header: str | None) -> str | None:
        if header is None or not header.startswith("Basic "):
            return None
        user, _, password = base64.b64decode(header.removeprefix("Basic ")).decode().partition(":")
        return user if self.users.get(user) == password else None


def sign(user: str, scopes: tuple[str, ...], seconds: int) -> str:
    """A token as registries check it: the scopes as claims, signed by the key of the certificate."""
    now = int(time.time())
    access = [
        {"type": kind, "name": name, "actions": actions.split(",")}
        for kind, name, actions in (scope.split(":", 2) for scope in scopes)
    ]
    claims = {"iss": ISSUER, "sub": user, "aud": SERVICE, "iat": now, "nbf": now - 60, "exp": now + seconds + 60}
    head = _encode(json.dumps({"typ": "JWT", "alg": "RS256", "x5c": [_CERTIFICATE]}).encode())
    signed = f"{head}.{_encode(json.dumps({**claims, 'access': access}).encode())}"
    modulus, exponent = int(_MODULUS, 16), int(_EXPONENT, 16)
    size = (modulus.bit_length() + 7) // 8
    digest = _SHA256_PREFIX + hashlib.sha256(signed.encode()).digest()
    padded = b"\x00\x01" + b"\xff" * (size - len(digest) - 3) + b"\x00" + digest
    signature = pow(int.from_bytes(padded, "big"), exponent, modulus).to_bytes(size, "big")
    return f"{signed}.{_encode(signature)}"


def _encode(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).decode().rstrip("=")
