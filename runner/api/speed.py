"""Puna's own path that measures how fast a model is here."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator

import msgspec
from fastapi import APIRouter, Request, Response

from registry.store import ModelStore
from registry.stored_model import StoredModel
from runner.api.bodies import read_body
from runner.api.context import request_id
from runner.api.documents import json_body
from runner.api.errors import report_of
from runner.api.ollama.records import error_record
from runner.api.streaming import NDJSON, JsonResponse, Opened, StreamResponse, while_connected
from runner.api.validation import Body
from runner.model_lookup import find_model
from runner.supervisor.speed import ModelSpeed, SpeedMeter
from runner.supervisor.supervisor import Supervisor

Json = dict[str, object]


class BenchBody(Body):
    model: str
    stream: bool | None = None


def create_router(store: ModelStore, supervisor: Supervisor, meter: SpeedMeter, max_body_bytes: int) -> APIRouter:
    router = APIRouter()

    @router.post("/api/bench", openapi_extra=json_body(BenchBody))
    async def bench(request: Request) -> Response:
        body = await read_body(request, BenchBody, max_body_bytes)
        model = await asyncio.to_thread(find_model, store, body.model)
        if body.stream is False:
            return JsonResponse(await while_connected(request.receive, _last(meter, supervisor, model)))
        opened = await while_connected(request.receive, _opened(_records(meter, supervisor, model)))
        return StreamResponse(
            opened,
            lambda record: msgspec.json.encode(record) + b"\n",
            lambda error: error_record(report_of(error, request_id(request))),
            NDJSON,
        )

    return router


async def _opened(records: AsyncGenerator[Json]) -> Opened[Json]:
    return await Opened.open(records)


async def _last(meter: SpeedMeter, supervisor: Supervisor, model: StoredModel) -> Json:
    found: Json = {}
    async with contextlib.aclosing(_records(meter, supervisor, model)) as records:
        async for record in records:
            if record["status"] == "measured":
                found = record
    return found


async def _records(meter: SpeedMeter, supervisor: Supervisor, model: StoredModel) -> AsyncGenerator[Json]:
    """How far it is, what was found, and `success`."""
    loaded = [status.spec.name for status in supervisor.status()]
    async with contextlib.aclosing(meter.speed(model)) as steps:
        async for step in steps:
            if isinstance(step, ModelSpeed):
                yield {"status": "measured", "model": model.name.short, **_body(step), "also_loaded": loaded}
            else:
                yield {"status": "measuring", "total": 100, "completed": round(100 * step)}
    yield {"status": "success"}


def _body(speed: ModelSpeed) -> Json:
    measured = speed.measured
    return {
        "type": speed.kind,
        "engine": measured.engine,
        "placement": measured.placement,
        "load_seconds": round(measured.load_seconds, 3),
        "speeds": [
            {"threads": one.threads, "prefill": round(one.prefill, 1), "decode": round(one.decode, 1)}
            for one in measured.speeds
        ],
        "best_threads": {"prefill": speed.best_prefill.threads, "decode": speed.best_decode.threads},
        "fast_kernel": speed.fast_kernel,
        "kernel": speed.kernel,
        "fast_types": list(speed.fast_files),
    }
