"""What the engine computes with a converted file: logits, embeddings and tokens."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from llama_cpp import llama_cpp as lib

from tests.registry.convert.checkpoints import Array

_F32 = 0


@contextmanager
def loaded(path: Path) -> Iterator[Any]:
    lib.llama_backend_init()
    model = lib.llama_model_load_from_file(str(path).encode(), lib.llama_model_default_params())
    assert model, "llama.cpp does not load the file"
    try:
        yield model
    finally:
        lib.llama_model_free(model)


def engine_logits(path: Path, tokens: Sequence[int], adapter: Path | None = None) -> Array:
    """After every token, with caches in full precision."""
    with loaded(path) as model, _context(model) as context:
        _apply(model, context, adapter)
        batch = lib.llama_batch_init(len(tokens), 0, 1)
        batch.n_tokens = len(tokens)
        for number, token in enumerate(tokens):
            batch.token[number], batch.pos[number] = token, number
            batch.n_seq_id[number], batch.seq_id[number][0], batch.logits[number] = 1, 0, 1
        assert lib.llama_decode(context, batch) == 0
        size = lib.llama_vocab_n_tokens(lib.llama_model_get_vocab(model))
        rows = [np.ctypeslib.as_array(lib.llama_get_logits_ith(context, n), (size,)).copy() for n in range(len(tokens))]
        lib.llama_batch_free(batch)
        return np.stack(rows)


def engine_embedding(path: Path, tokens: Sequence[int], adapter: Path | None = None) -> Array:
    """Of the whole text, pooled as the file says."""
    with loaded(path) as model, _context(model, embeddings=True) as context:
        _apply(model, context, adapter)
        ids = (ctypes.c_int32 * len(tokens))(*tokens)
        assert lib.llama_decode(context, lib.llama_batch_get_one(ids, len(tokens))) == 0
        return np.ctypeslib.as_array(lib.llama_get_embeddings_seq(context, 0), (lib.llama_model_n_embd(model),)).copy()


def engine_tokens(path: Path, text: str, *, add_special: bool = False) -> list[int]:
    with loaded(path) as model:
        content = text.encode()
        ids = (ctypes.c_int32 * (len(content) + 8))()
        vocabulary = lib.llama_model_get_vocab(model)
        count = lib.llama_tokenize(vocabulary, content, len(content), ids, len(ids), add_special, True)
        return list(ids[:count])


def _apply(model: Any, context: Any, adapter: Path | None) -> None:
    if adapter is not None:
        handle = lib.llama_adapter_lora_init(model, str(adapter).encode())
        assert handle, "llama.cpp does not take the adapter"
        handles = (lib.llama_adapter_lora_p_ctypes * 1)(handle)
        assert lib.llama_set_adapters_lora(context, handles, 1, (ctypes.c_float * 1)(1.0)) == 0


@contextmanager
def _context(model: Any, *, embeddings: bool = False) -> Iterator[Any]:
    params = lib.llama_context_default_params()
    params.n_ctx = 128
    params.n_batch = params.n_ubatch = 128
    params.n_threads = params.n_threads_batch = 1
    params.type_k = params.type_v = _F32
    params.flash_attn_type = 0
    params.embeddings = embeddings
    context = lib.llama_init_from_model(model, params)
    assert context
    try:
        yield context
    finally:
        lib.llama_free(context)
