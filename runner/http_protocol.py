"""uvicorn's HTTP protocol, with a bound on what a client may send before its headers are complete."""

from __future__ import annotations

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

MAX_HEAD_BYTES = 64 << 10


class BoundedHttpToolsProtocol(HttpToolsProtocol):
    """Its parser collects a header for as long as it comes; this one hangs up."""

    _is_in_head = True
    _began_in_this_chunk = False
    _head_bytes = 0

    def on_message_begin(self) -> None:
        self._is_in_head = True
        self._began_in_this_chunk = True
        self._head_bytes = 0
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self._is_in_head = False
        super().on_headers_complete()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if not self._is_in_head:
            return
        if self._began_in_this_chunk:
            self._began_in_this_chunk = False  # the end of a body may be in it too
            return
        self._head_bytes += len(data)
        if self._head_bytes > MAX_HEAD_BYTES and not self.transport.is_closing():
            self.send_400_response("The request's headers are too large.")
