"""A program that answers as llama-server does, or prints what llama-batched-bench prints: which, its arguments tell."""

from __future__ import annotations

import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Handler(BaseHTTPRequestHandler):
    """Answers every chat with as many words as it may have."""

    def do_GET(self) -> None:
        self._send("application/json", b"{}")

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        count = body["max_tokens"]
        chunks: list[dict[str, Any]] = [{"choices": [{"index": 0, "delta": {"content": " word"}}]}] * count
        chunks.append({"choices": [], "usage": {"completion_tokens": count, "prompt_tokens": 10}})
        self._send("text/event-stream", b"".join(b"data: " + json.dumps(chunk).encode() + b"\n\n" for chunk in chunks))

    def _send(self, kind: str, payload: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(payload)))
        self.end_headers()
        self.wfile.write(payload)

    def log_message(self, format: str, *args: object) -> None:
        pass


def main(arguments: list[str]) -> None:
    if "--version" in arguments:
        print("version: 1.2.3 (build 7, commit 0123abc)")
    if "--port" in arguments:
        port = int(arguments[arguments.index("--port") + 1])
        ThreadingHTTPServer(("127.0.0.1", port), Handler).serve_forever()
    if "-npl" in arguments:
        for count in arguments[arguments.index("-npl") + 1].split(","):
            print(json.dumps({"pl": int(count), "speed_tg": 1e9 * int(count)}))


main(sys.argv[1:])
