"""Request bodies in the OpenAPI document, since handlers read them without FastAPI's help."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic.json_schema import models_json_schema

from runner.api.validation import Body

_REFERENCE = "#/components/schemas/{model}"


def json_body(body_type: type[Body]) -> dict[str, Any]:
    """What a route's `openapi_extra` says of the JSON body it reads."""
    schema = {"$ref": _REFERENCE.format(model=body_type.__name__)}
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


def describe_bodies(app: FastAPI) -> None:
    """Make the app's OpenAPI document define every body that its routes refer to."""

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            document = get_openapi(title=app.title, version=app.version, routes=app.routes)
            bodies = sorted(_bodies(Body), key=lambda body_type: body_type.__name__)
            _, definitions = models_json_schema(
                [(body_type, "validation") for body_type in bodies], ref_template=_REFERENCE
            )
            document.setdefault("components", {}).setdefault("schemas", {}).update(definitions["$defs"])
            app.openapi_schema = document
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]  # the documented way to extend it


def _bodies(parent: type[Body]) -> Iterator[type[Body]]:
    for body_type in parent.__subclasses__():
        if body_type.__module__.startswith("runner.api.") and not body_type.__name__.startswith("_"):
            yield body_type
        yield from _bodies(body_type)
