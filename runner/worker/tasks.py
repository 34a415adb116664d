"""Tasks besides answers, prepared beside the engine: tokens at once, and inputs for the loop."""

from __future__ import annotations

from runner.engine import EncodingInput, Engine
from runner.errors import ContextLengthExceeded, InvalidRequest, Unsupported
from runner.loaded_model import Encoding, Pooling
from runner.tasks import (
    Detokenized,
    DetokenizeTask,
    EmbedTask,
    RerankTask,
    ShortenedInput,
    Task,
    Tokenized,
    TokenizeTask,
)
from runner.worker.encoding import EncodingJob

LONGEST_CONTENT = 8 << 20
"""Bytes of text that are tokenized or put together in one request; the answer has to fit into one report."""


def prepare_task(request_id: str, task: Task, engine: Engine) -> EncodingJob | Tokenized | Detokenized:
    """What is to be computed, or what is known already. Raises RequestError."""
    match task:
        case EmbedTask():
            return _embedding_job(request_id, task, engine)
        case RerankTask():
            return _reranking_job(request_id, task, engine)
        case TokenizeTask():
            return _tokenized(task, engine)
        case DetokenizeTask():
            return _detokenized(task, engine)


def _embedding_job(request_id: str, task: EmbedTask, engine: Engine) -> EncodingJob:
    encoding = _encoding(engine)
    if encoding.pooling is Pooling.RANK:
        raise Unsupported("This model scores documents and makes no embeddings; use /api/rerank.", field="model")
    if task.dimensions is not None and task.dimensions > encoding.dimensions:
        raise InvalidRequest(
            f"dimensions is {task.dimensions}, and this model's embeddings have {encoding.dimensions}.", "dimensions"
        )
    window = _window(encoding, task.num_ctx)
    inputs, shortened = [], []
    for index, item in enumerate(task.inputs):
        tokens, original = _fitted(_input(item, index, engine), window, index=index, may_cut=task.truncate)
        inputs.append(tokens)
        if original is not None:
            shortened.append(ShortenedInput(index, original, len(tokens)))
    return EncodingJob(request_id, inputs, tuple(shortened), task.dimensions, task.normalize)


def _reranking_job(request_id: str, task: RerankTask, engine: Engine) -> EncodingJob:
    encoding = _encoding(engine)
    if encoding.pooling is not Pooling.RANK:
        raise Unsupported("This model has no head that scores documents; use a reranking model.", field="model")
    window = _window(encoding, task.num_ctx)
    inputs, shortened = [], []
    for index, document in enumerate(task.documents):
        whole = engine.tokenize_pair(task.query, document)
        tokens, original = _fitted(whole, window, index=index, may_cut=task.truncate)
        inputs.append(tokens)
        if original is not None:
            shortened.append(ShortenedInput(index, original, len(tokens)))
    return EncodingJob(request_id, inputs, tuple(shortened))


def _tokenized(task: TokenizeTask, engine: Engine) -> Tokenized:
    _check_length(len(task.content.encode()), "content")
    if task.add_special:
        return Tokenized(tuple(engine.tokenize_whole(task.content, parse_special=task.parse_special).tokens))
    return Tokenized(tuple(engine.tokenize(task.content, add_special=False, parse_special=task.parse_special)))


def _detokenized(task: DetokenizeTask, engine: Engine) -> Detokenized:
    check_tokens(task.tokens, "tokens", engine)
    _check_length(sum(len(engine.written(token)) for token in task.tokens), "tokens")
    return Detokenized(engine.detokenize(task.tokens))


def check_tokens(tokens: tuple[int, ...], field: str, engine: Engine) -> None:
    """Raises InvalidRequest for one that is not of the vocabulary; llama.cpp would end the process."""
    for place, token in enumerate(tokens):
        if not 0 <= token < engine.info.vocabulary:
            raise InvalidRequest(
                f"{field}[{place}] is {token}; this model's vocabulary has {engine.info.vocabulary} tokens.",
                f"{field}[{place}]",
            )


def _encoding(engine: Engine) -> Encoding:
    encoding = engine.info.encoding
    if encoding is None:
        raise Unsupported("This kind of model makes no embeddings: it reads a text as one state.", field="model")
    return encoding


def _window(encoding: Encoding, num_ctx: int | None) -> int:
    return encoding.window if num_ctx is None else min(num_ctx, encoding.window)


def _input(item: str | tuple[int, ...], index: int, engine: Engine) -> EncodingInput:
    if isinstance(item, str):
        whole = engine.tokenize_whole(item, parse_special=True)
    else:
        check_tokens(item, f"input[{index}]", engine)
        whole = EncodingInput(item)
    if not whole.tokens:
        raise InvalidRequest(f"input[{index}] is empty: this model has no token to begin it with.", f"input[{index}]")
    return whole


def _fitted(whole: EncodingInput, window: int, *, index: int, may_cut: bool) -> tuple[list[int], int | None]:
    """The tokens of an input, and how many there were when some had to go."""
    tokens = list(whole.tokens)
    if len(tokens) <= window:
        return tokens, None
    if not may_cut or whole.head + whole.tail >= window:
        raise InputTooLong(len(tokens), window, index)
    return tokens[: window - whole.tail] + tokens[len(tokens) - whole.tail :], len(tokens)


def _check_length(size: int, field: str) -> None:
    if size > LONGEST_CONTENT:
        raise InvalidRequest(f"{field} is {size} bytes of text; at most {LONGEST_CONTENT} are taken.", field)


class InputTooLong(ContextLengthExceeded):
    """An input is longer than what the model can make one vector of."""

    def __init__(self, tokens: int, window: int, index: int) -> None:
        super().__init__(tokens, window)
        self.message = (
            f"the input length exceeds the context length: input {index} has {tokens} tokens and {window} fit; "
            'shorten it, or pass "truncate": true'
        )
        self.args = (self.message,)
        self.facts = {**self.facts, "index": index}
