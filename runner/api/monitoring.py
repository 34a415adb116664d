"""Health and version."""

from __future__ import annotations

from fastapi import APIRouter, Response
from starlette.responses import PlainTextResponse

from runner.api.streaming import JsonResponse


def create_router(version: str) -> APIRouter:
    router = APIRouter()

    @router.get("/")
    @router.head("/", include_in_schema=False)
    async def root() -> Response:
        # Clients look for exactly this text.
        return PlainTextResponse("Ollama is running")

    @router.get("/api/version")
    @router.head("/api/version", include_in_schema=False)
    async def told_version() -> Response:
        return JsonResponse({"version": version})

    @router.get("/api/status")
    async def status() -> Response:
        # Ollama's clients ask before they offer models that run elsewhere. There are none here, whatever is set.
        return JsonResponse({"cloud": {"disabled": True, "source": "none"}})

    @router.get("/healthz")
    async def health() -> Response:
        return JsonResponse({"status": "ok"})

    return router
