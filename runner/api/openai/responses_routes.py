"""The OpenAI dialect's paths of responses."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass

from fastapi import APIRouter, Request, Response

from runner.api.bodies import read_body
from runner.api.context import owner, request_id
from runner.api.documents import json_body, query
from runner.api.errors import report_of
from runner.api.openai.conversation_store import ConversationStore
from runner.api.openai.conversations import stored_conversation
from runner.api.openai.kept_items import item_finder
from runner.api.openai.queries import EVENTS, PAGE, ignored_queries, page_response, read_start
from runner.api.openai.responses_background import BackgroundResponse, BackgroundResponses, Ended
from runner.api.openai.responses_items import Item, Reading
from runner.api.openai.responses_object import ResponseFrame
from runner.api.openai.responses_schema import InputTokensBody, ResponseBody, ResponsePromptBody
from runner.api.openai.responses_store import ResponseStore, StoredResponse
from runner.api.openai.responses_stream import ResponseStream, whole_output
from runner.api.openai.responses_translate import (
    answer_call,
    custom_names,
    ignored_includes,
    prompt_call,
    read_input,
)
from runner.api.openai.translate import error_event
from runner.api.standing import vain_standing, with_standing
from runner.api.streaming import SERVER_SENT_EVENTS, JsonResponse, StreamResponse, ignored_header, while_connected
from runner.api.validation import ignored_fields
from runner.calls import Call
from runner.chat.types import Priority
from runner.errors import InvalidRequest, NotFound, Unsupported
from runner.generate import Generator


@dataclass(frozen=True, slots=True)
class Kept:
    """What stays between requests."""

    responses: ResponseStore
    conversations: ConversationStore
    background: BackgroundResponses


def create_router(generator: Generator, kept: Kept, max_body_bytes: int) -> APIRouter:
    router = APIRouter()

    @router.post("/v1/responses", openapi_extra=json_body(ResponseBody))
    async def create(request: Request) -> Response:
        body = await read_body(request, ResponseBody, max_body_bytes)
        reading = _reading(kept, request, body)
        call = with_standing(answer_call(body, request_id(request), reading.items), request, _usual_priority(body))
        answer = _begin if body.background else _answer
        return await answer(generator, kept, request, body, reading, call)

    @router.post("/v1/responses/input_tokens", openapi_extra=json_body(InputTokensBody))
    async def count(request: Request) -> Response:
        body = await read_body(request, InputTokensBody, max_body_bytes)
        call = prompt_call(body, request_id(request), _reading(kept, request, body).items)
        rendered, ignored = await while_connected(request.receive, generator.render(call))
        answer = {"object": "response.input_tokens", "input_tokens": len(rendered.tokens)}
        vain = [*ignored_fields(body), *ignored, *vain_standing(request)]
        return JsonResponse(answer, headers=ignored_header(vain))

    _add_stored_paths(router, kept)
    return router


def _add_stored_paths(router: APIRouter, kept: Kept) -> None:
    @router.get("/v1/responses/{response_id}", openapi_extra=query(**EVENTS))
    async def retrieve(request: Request, response_id: str) -> Response:
        after, ignored = read_start(request), ignored_header(ignored_queries(request))
        found = _found(kept, request, response_id)
        if after is None:
            return JsonResponse(found.response, headers=ignored)
        return _followed(_events(found, after), request_id(request), ignored)

    @router.delete("/v1/responses/{response_id}")
    async def delete(request: Request, response_id: str) -> Response:
        if (running := kept.background.find(owner(request), response_id)) is not None:
            await running.cancel()
        _stored(kept, request, response_id)
        kept.responses.forget(owner(request), response_id)
        return JsonResponse({"id": response_id, "object": "response", "deleted": True})

    @router.post("/v1/responses/{response_id}/cancel")
    async def cancel(request: Request, response_id: str) -> Response:
        if (running := kept.background.find(owner(request), response_id)) is not None:
            await running.cancel()
            return JsonResponse(running.response)
        found = _stored(kept, request, response_id).response
        if found["background"]:
            return JsonResponse(found)
        raise InvalidRequest(
            "This response was not made in the background. Such a one is cancelled by closing its connection.",
            "response_id",
        )

    @router.get("/v1/responses/{response_id}/input_items", openapi_extra=query(**PAGE))
    async def input_items(request: Request, response_id: str) -> Response:
        return page_response(request, _found(kept, request, response_id).read)


async def _answer(
    generator: Generator, kept: Kept, request: Request, body: ResponseBody, reading: Reading, call: Call
) -> Response:
    ignored = [*ignored_fields(body), *ignored_includes(body)]
    keep = _keeper(kept, request, body, reading)
    if not body.stream:
        answer = await while_connected(request.receive, generator.complete(call))
        output = whole_output(answer, custom_names(body))
        frame = ResponseFrame(body, call, answer.generation.request.sampling, answer.generation)
        response = frame.finished(answer.finished, output)
        keep(Ended(response, reading.items, output, ()))
        return JsonResponse(response, headers=ignored_header([*ignored, *answer.generation.ignored]))
    generation = await while_connected(request.receive, generator.open(call))
    frame = ResponseFrame(body, call, generation.request.sampling, generation)
    stream = ResponseStream(frame, call.request_id, lambda *ended: keep(Ended(ended[0], reading.items, ended[1], ())))
    return StreamResponse(
        generation,
        stream.encode,
        lambda error: stream.encode_error(report_of(error, call.request_id)),
        SERVER_SENT_EVENTS,
        ignored_header([*ignored, *generation.ignored]),
    )


async def _begin(
    generator: Generator, kept: Kept, request: Request, body: ResponseBody, reading: Reading, call: Call
) -> Response:
    """Have a response made in the background; what is wrong with the request itself is told at once."""
    if body.store is False:
        raise InvalidRequest("A response of the background has to be stored; leave out store.", "store")
    planned, in_vain = await while_connected(request.receive, generator.check(call))
    keep = _keeper(kept, request, body, reading)
    made = BackgroundResponse(ResponseFrame(body, call, planned.sampling), call.request_id, reading.items, keep)
    kept.background.start(owner(request), made, call)
    header = ignored_header([*ignored_fields(body), *ignored_includes(body), *in_vain])
    if body.stream:
        return _followed(made.follow(-1), call.request_id, header)
    return JsonResponse(made.response, headers=header)


def _followed(events: AsyncGenerator[bytes, None], request_id: str, headers: dict[str, str] | None = None) -> Response:
    return StreamResponse(
        events,
        lambda record: record,
        lambda error: error_event(report_of(error, request_id)),
        SERVER_SENT_EVENTS,
        headers,
    )


def _events(found: BackgroundResponse | StoredResponse, after: int) -> AsyncGenerator[bytes, None]:
    """The events behind the one with this number. Raises Unsupported where there are none."""
    if isinstance(found, BackgroundResponse) and found.can_be_followed:
        return found.follow(after)
    if isinstance(found, StoredResponse) and found.events:
        return _told_again(found.events[after + 1 :])
    raise Unsupported(
        "Only a response of the background can be streamed afterwards, and no very long one.", field="stream"
    )


async def _told_again(events: Sequence[bytes]) -> AsyncGenerator[bytes, None]:
    for event in events:
        yield event


def _usual_priority(body: ResponseBody) -> Priority:
    return Priority.BACKGROUND if body.background else Priority.INTERACTIVE


def _reading(kept: Kept, request: Request, body: ResponseBody | InputTokensBody) -> Reading:
    """All that the model is to read but the instructions, which are not taken over from an earlier response."""
    find = item_finder(owner(request), kept.responses, kept.conversations)
    return read_input(body.input, _earlier(kept, request, body), find)


def _earlier(kept: Kept, request: Request, body: ResponsePromptBody) -> tuple[Item, ...]:
    previous = body.previous_response_id
    if body.conversation is not None:
        if previous is not None:
            message = "previous_response_id and conversation exclude each other."
            raise InvalidRequest(message, "previous_response_id")
        return stored_conversation(kept.conversations, request, body.conversation.id, "conversation").items
    if previous is None:
        return ()
    if kept.background.find(owner(request), previous) is not None:
        raise InvalidRequest("The previous response is still being made.", "previous_response_id")
    found = kept.responses.find(owner(request), previous)
    if found is None:
        raise NotFound(
            f"Previous response with id {previous[:100]!a} not found; responses are kept for a day, in memory.",
            field="previous_response_id",
        )
    return found.items


def _keeper(kept: Kept, request: Request, body: ResponseBody, reading: Reading) -> Callable[[Ended], None]:
    """What becomes of the response in the end."""
    whose = owner(request)

    def keep(ended: Ended) -> None:
        if body.store is not False:
            kept.responses.keep(whose, ended.response, ended.read, ended.output, ended.events)
        if body.conversation is not None and ended.response["status"] in ("completed", "incomplete"):
            # What was in it before may have been taken out in the meantime, and stays out.
            kept.conversations.add(whose, body.conversation.id, [*reading.fresh, *ended.output])

    return keep


def _found(kept: Kept, request: Request, response_id: str) -> BackgroundResponse | StoredResponse:
    """A response that is being made or has ended. Raises NotFound."""
    return kept.background.find(owner(request), response_id) or _stored(kept, request, response_id)


def _stored(kept: Kept, request: Request, response_id: str) -> StoredResponse:
    found = kept.responses.find(owner(request), response_id)
    if found is None:
        raise NotFound(
            f"Response with id {response_id[:100]!a} not found; responses are kept for a day, in memory.",
            field="response_id",
        )
    return found
