"""What an API key must be good for, by method and path."""

from __future__ import annotations

from collections.abc import Mapping

from starlette.routing import compile_path

from runner.api_keys import KeyScope

PATHS: Mapping[KeyScope | None, tuple[str, ...]] = {
    None: (  # any key
        "GET /",
        "GET /api/status",
        "GET /api/version",
        "GET /healthz",
        "GET /openapi.json",
    ),
    KeyScope.INFER: (
        "POST /api/chat",
        "POST /api/detokenize",
        "POST /api/embed",
        "POST /api/embeddings",
        "POST /api/generate",
        "POST /api/render",
        "POST /api/rerank",
        "POST /api/tokenize",
        "POST /v1/audio/transcriptions",
        "POST /v1/audio/translations",
        "POST /v1/chat/completions",
        "POST /v1/completions",
        "POST /v1/conversations",
        "GET /v1/conversations/{conversation_id}",
        "POST /v1/conversations/{conversation_id}",
        "DELETE /v1/conversations/{conversation_id}",
        "GET /v1/conversations/{conversation_id}/items",
        "POST /v1/conversations/{conversation_id}/items",
        "GET /v1/conversations/{conversation_id}/items/{item_id}",
        "DELETE /v1/conversations/{conversation_id}/items/{item_id}",
        "POST /v1/embeddings",
        "POST /v1/messages",
        "POST /v1/messages/count_tokens",
        "POST /v1/rerank",
        "POST /v1/responses",
        "POST /v1/responses/input_tokens",
        "GET /v1/responses/{response_id}",
        "DELETE /v1/responses/{response_id}",
        "POST /v1/responses/{response_id}/cancel",
        "GET /v1/responses/{response_id}/input_items",
    ),
    KeyScope.READ: (
        "GET /api/outdated",
        "GET /api/partials",
        "GET /api/ps",
        "GET /api/search",
        "POST /api/show",
        "GET /api/tags",
        "GET /v1/models",
        "GET /v1/models/{model:path}",
    ),
    KeyScope.MANAGE: (
        "POST /api/bench",
        "HEAD /api/blobs/{digest}",
        "POST /api/blobs/{digest}",
        "POST /api/copy",
        "POST /api/create",
        "DELETE /api/delete",
        "POST /api/gc",
        "DELETE /api/partials",
        "POST /api/pull",
        "POST /api/push",
        "POST /api/repair",
        "POST /api/verify",
        "DELETE /v1/models/{model:path}",
    ),
}
"""Every path of the daemon, by what it needs."""


_PATTERNS = tuple(
    # Compiled as the routes are: what one of them takes is found here, however it is spelled.
    (line.partition(" ")[0], compile_path(line.partition(" ")[2])[0], scope)
    for scope, lines in PATHS.items()
    for line in lines
)


def scope_of(method: str, path: str) -> KeyScope | None:
    """The scope that a request needs; None where any key will do, as for paths that do not exist."""
    found = {its_method: scope for its_method, pattern, scope in _PATTERNS if pattern.match(path)}
    return found.get(method, found.get("GET") if method == "HEAD" else None)
