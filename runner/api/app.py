"""create_app(): the routers of all dialects, and what stands in front of them."""

from __future__ import annotations

from dataclasses import dataclass

from fastapi import FastAPI, Request, Response
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

import runner.api.anthropic.routes
import runner.api.ollama.embeddings
import runner.api.ollama.models
import runner.api.ollama.push
import runner.api.ollama.rendering
import runner.api.ollama.routes
import runner.api.openai.conversations
import runner.api.openai.embeddings
import runner.api.openai.responses_routes
import runner.api.openai.routes
import runner.api.openai.transcription_routes
from registry.errors import RegistryError
from registry.store import ModelStore
from registry.workshop import Workshop
from runner.api import context, finding, model_lists, monitoring, reranking, speed, store_care, tokens
from runner.api.access import AccessPolicy, cors_headers, preflight_headers
from runner.api.anthropic.stream import error_body as anthropic_error_body
from runner.api.documents import describe_bodies
from runner.api.downloads import Downloads
from runner.api.errors import ErrorReport, report_of
from runner.api.keys import KeyCheck
from runner.api.ollama.records import error_body as ollama_error_body
from runner.api.openai.conversation_store import ConversationStore
from runner.api.openai.kept import wake_later
from runner.api.openai.responses_background import BackgroundResponses
from runner.api.openai.responses_routes import Kept
from runner.api.openai.responses_store import ResponseStore
from runner.api.openai.translate import error_body as openai_error_body
from runner.api.removal import Remover
from runner.api.streaming import ClientGone, JsonResponse
from runner.api_keys import KeyRing
from runner.config_file import SettingsError
from runner.errors import RunnerError
from runner.generate import Generator
from runner.model_tasks import ModelTasks
from runner.settings import Settings
from runner.sources import Sources
from runner.supervisor.fit import FitMeter
from runner.supervisor.speed import SpeedMeter
from runner.supervisor.supervisor import Supervisor


@dataclass(frozen=True, slots=True)
class AppParts:
    """What the routes work with."""

    settings: Settings
    store: ModelStore
    sources: Sources
    supervisor: Supervisor
    generator: Generator
    keys: KeyRing
    version: str
    workshop: Workshop | None = None
    """What quantizes and converts models that are created; without one both are refused."""
    fit_meter: FitMeter | None = None
    """What finds out how a model fits this machine; without one it is not told."""
    speed_meter: SpeedMeter | None = None
    """What measures how fast a model is here; without one there is no path for it."""


class App(FastAPI):
    """The daemon's HTTP side. It owns the downloads in progress and what is kept of OpenAI's responses."""

    def __init__(self, version: str, downloads: Downloads, background: BackgroundResponses) -> None:
        # The pages of docs would fetch their scripts from other hosts.
        super().__init__(title="Puna", version=version, docs_url=None, redoc_url=None, redirect_slashes=False)
        self._downloads = downloads
        self._background = background

    def stop(self) -> None:
        """The daemon stops: end what need not be waited for, and begin nothing of the kind any more."""
        self._downloads.stop()
        self._background.stop()


def create_app(parts: AppParts) -> App:
    """All routes, and what stands in front of them."""
    limit = parts.settings.server.max_body_bytes
    downloads = Downloads(parts.sources.puller, parts.sources.finder)
    responses, conversations = ResponseStore(wake=wake_later), ConversationStore(wake=wake_later)
    kept = Kept(responses, conversations, BackgroundResponses(parts.generator))
    app = App(parts.version, downloads, kept.background)
    remover = Remover(parts.store, parts.supervisor, downloads)
    app.include_router(monitoring.create_router(parts.version))
    app.include_router(runner.api.ollama.routes.create_router(parts.generator, limit))
    app.include_router(
        runner.api.ollama.models.create_router(
            parts.store, parts.supervisor, downloads, remover, parts.workshop, parts.fit_meter, limit
        )
    )
    app.include_router(runner.api.ollama.push.create_router(parts.sources.pusher, limit))
    app.include_router(store_care.create_router(parts.store, parts.sources.puller, parts.sources.finder, limit))
    app.include_router(finding.create_router(parts.store, parts.supervisor, parts.sources.finder))
    app.include_router(runner.api.openai.conversations.create_router(conversations, responses, limit))
    app.include_router(runner.api.openai.responses_routes.create_router(parts.generator, kept, limit))
    app.include_router(runner.api.openai.routes.create_router(parts.generator, limit))
    app.include_router(runner.api.openai.transcription_routes.create_router(parts.generator, limit))
    app.include_router(model_lists.create_router(parts.store, remover))
    tasks = ModelTasks(parts.store, parts.supervisor, parts.settings)
    for room in (runner.api.ollama.embeddings, runner.api.openai.embeddings, reranking, tokens):
        app.include_router(room.create_router(tasks, limit))
    app.include_router(runner.api.ollama.rendering.create_router(parts.generator, limit))
    app.include_router(runner.api.anthropic.routes.create_router(parts.generator, limit))
    if parts.speed_meter is not None:
        app.include_router(speed.create_router(parts.store, parts.supervisor, parts.speed_meter, limit))
    for expected in (RunnerError, RegistryError, SettingsError, HTTPException):
        app.add_exception_handler(expected, _answer_error)
    app.add_exception_handler(ClientGone, _answer_nobody)
    app.add_middleware(
        _Door,
        policy=AccessPolicy(parts.settings.server.host, parts.settings.access.origins),
        keys=KeyCheck(parts.keys, is_required=parts.settings.needs_keys),
    )
    describe_bodies(app)
    return app


class _Door:
    """Gives every request its id, turns strangers away, and answers for what nobody else caught."""

    def __init__(self, app: ASGIApp, policy: AccessPolicy, keys: KeyCheck) -> None:
        self._app = app
        self._policy = policy
        self._keys = keys

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        request_id = context.begin(scope, headers)
        added = {"X-Request-Id": request_id}
        if _speaks_anthropic(scope["path"], headers):
            added["request-id"] = request_id  # the name under which that dialect's clients look for it
        has_started = False

        async def send_with_headers(message: Message) -> None:
            nonlocal has_started
            if message["type"] == "http.response.start":
                has_started = True
                MutableHeaders(scope=message).update(added)
            await send(message)

        try:
            origin = self._policy.check(headers)
            if origin is not None:
                added |= cors_headers(origin)
            if scope["method"] == "OPTIONS":
                answer = Response(status_code=204, headers=preflight_headers(headers))
                await answer(scope, receive, send_with_headers)
            else:
                context.note_caller(scope, self._keys.check(scope["method"], scope["path"], headers))
                await self._app(scope, receive, send_with_headers)
        except Exception as error:
            report = report_of(error, request_id)
            if has_started:
                raise
            await _error_response(scope["path"], headers, report)(scope, receive, send_with_headers)


async def _answer_error(request: Request, error: Exception) -> Response:
    return _error_response(request.scope["path"], request.headers, report_of(error, context.request_id(request)))


async def _answer_nobody(request: Request, error: Exception) -> Response:
    return Response(status_code=499)


def _error_response(path: str, headers: Headers, report: ErrorReport) -> Response:
    """An error in the shape of the dialect whose path was asked for."""
    if _speaks_anthropic(path, headers):
        body = anthropic_error_body(report)
    elif path.startswith("/v1/"):
        body = openai_error_body(report)
    else:
        body = ollama_error_body(report)
    return JsonResponse(body, report.status, report.headers)


def _speaks_anthropic(path: str, headers: Headers) -> bool:
    is_shared = path == "/v1/models" or path.startswith("/v1/models/")
    return path.startswith("/v1/messages") or (is_shared and model_lists.speaks_anthropic(headers))
