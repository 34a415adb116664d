"""Requests and answers in the OpenAPI document, since handlers read and write them without FastAPI's help."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic.json_schema import models_json_schema

from runner.api.validation import Body

_REFERENCE = "#/components/schemas/{model}"
_FORM = "multipart/form-data"
_PLAIN_TEXT = ("/",)


def json_body(body_type: type[Body]) -> dict[str, Any]:
    """What a route's `openapi_extra` says of the JSON body it reads."""
    schema = {"$ref": _REFERENCE.format(model=body_type.__name__)}
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


def form_body(body_type: type[Body]) -> dict[str, Any]:
    """As `json_body`, for a multipart form."""
    schema = {"$ref": _REFERENCE.format(model=body_type.__name__)}
    return {"requestBody": {"required": True, "content": {_FORM: {"schema": schema}}}}


def raw_body() -> dict[str, Any]:
    """As `json_body`, for a body of any bytes."""
    schema = {"type": "string", "format": "binary"}
    return {"requestBody": {"required": True, "content": {"application/octet-stream": {"schema": schema}}}}


def query(**parameters: dict[str, Any]) -> dict[str, Any]:
    """What a route's `openapi_extra` says of the query parameters it reads, none of which is required."""
    return {"parameters": [{"name": name, "in": "query", "schema": schema} for name, schema in parameters.items()]}


def describe_bodies(app: FastAPI) -> None:
    """Make the app's OpenAPI document define every body that its routes refer to, and what they answer."""

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            document = get_openapi(title=app.title, version=app.version, routes=app.routes)
            bodies = sorted(_bodies(Body), key=lambda body_type: body_type.__name__)
            _, definitions = models_json_schema(
                [(body_type, "validation") for body_type in bodies], ref_template=_REFERENCE
            )
            document.setdefault("components", {}).setdefault("schemas", {}).update(definitions["$defs"])
            _describe_answers(document)
            app.openapi_schema = document
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]  # the documented way to extend it


def _describe_answers(document: dict[str, Any]) -> None:
    """Say in which form each path answers and tells its errors; FastAPI would speak of errors that are its own."""
    schemas = document["components"]["schemas"]
    for unused in ("HTTPValidationError", "ValidationError"):
        schemas.pop(unused, None)
    schemas |= {f"{dialect}Error": schema for dialect, schema in _ERRORS.items()}
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            operation["responses"] = {
                "200": _answer(path, method, operation, schemas),
                "default": _error(path),
            }


def _answer(path: str, method: str, operation: dict[str, Any], schemas: dict[str, Any]) -> dict[str, Any]:
    described: dict[str, Any] = {"description": "What was asked for."}
    if method == "head" or path in ("/api/copy", "/api/delete", "/api/blobs/{digest}"):
        return described
    if path in _PLAIN_TEXT:
        return described | {"content": {"text/plain": {"schema": {"type": "string"}}}}
    content: dict[str, Any] = {"application/json": {"schema": {"type": "object"}}}
    taken = operation.get("requestBody", {}).get("content", {})
    reference = taken.get("application/json", taken.get(_FORM, {})).get("schema", {})
    body = schemas.get(reference.get("$ref", "").rpartition("/")[2], {})
    if _FORM in taken:
        content["text/plain"] = {"schema": {"type": "string"}}
    if "stream" in body.get("properties", {}):
        form = "text/event-stream" if path.startswith("/v1/") else "application/x-ndjson"
        content[form] = {"schema": {"type": "string"}}
    return described | {"content": content}


def _error(path: str) -> dict[str, Any]:
    if path.startswith("/v1/models"):
        choices = [{"$ref": _REFERENCE.format(model=f"{dialect}Error")} for dialect in ("OpenAI", "Anthropic")]
        schema: dict[str, Any] = {"anyOf": choices}
    else:
        anthropic = path.startswith("/v1/messages")
        dialect = "Anthropic" if anthropic else "OpenAI" if path.startswith("/v1/") else "Puna"
        schema = {"$ref": _REFERENCE.format(model=f"{dialect}Error")}
    return {"description": "An error, with its code and facts.", "content": {"application/json": {"schema": schema}}}


_TEXT = {"type": "string"}
_ERRORS: dict[str, dict[str, Any]] = {
    "Puna": {
        "type": "object",
        "properties": {"error": _TEXT, "code": _TEXT, "request_id": _TEXT},
        "required": ["error", "code", "request_id"],
    },
    "OpenAI": {
        "type": "object",
        "properties": {
            "error": {
                "type": "object",
                "properties": {"message": _TEXT, "type": _TEXT, "code": _TEXT, "request_id": _TEXT},
                "required": ["message", "type", "param", "code", "request_id"],
            }
        },
        "required": ["error"],
    },
    "Anthropic": {
        "type": "object",
        "properties": {
            "type": {"const": "error"},
            "error": {
                "type": "object",
                "properties": {"type": _TEXT, "message": _TEXT, "code": _TEXT},
                "required": ["type", "message", "code"],
            },
            "request_id": _TEXT,
        },
        "required": ["type", "error", "request_id"],
    },
}


def _bodies(parent: type[Body]) -> Iterator[type[Body]]:
    for body_type in parent.__subclasses__():
        if body_type.__module__.startswith("runner.api.") and not body_type.__name__.startswith("_"):
            yield body_type
        yield from _bodies(body_type)
