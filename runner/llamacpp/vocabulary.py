"""A model's vocabulary: text to tokens, tokens to bytes."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from functools import cached_property
from typing import Any

from llama_cpp import llama_cpp as lib

from runner.engine import EncodingInput, InsertTokens
from runner.errors import ModelInvalid

_NULL_TOKEN = -1


class Vocabulary:
    """Reads the loaded model's vocabulary; every method may be called from any thread."""

    def __init__(self, model: Any) -> None:
        self.handle: Any = lib.llama_model_get_vocab(model)
        self.size: int = lib.llama_vocab_n_tokens(self.handle)
        self._pieces: dict[int, bytes] = {}
        self._written: dict[int, bytes] = {}
        self._ends: dict[int, bool] = {}
        self._begin_token: int = lib.llama_vocab_bos(self.handle)
        self._adds_begin = self._begin_token != _NULL_TOKEN and bool(lib.llama_vocab_get_add_bos(self.handle))
        self._begin_text = self._text_of(self._begin_token)
        self._end_token: int = lib.llama_vocab_eos(self.handle)
        self._separator: int = lib.llama_vocab_sep(self.handle)

    @property
    def special_texts(self) -> dict[str, str]:
        """Texts of the special tokens that exist, under the names chat templates use."""
        tokens = {
            "bos_token": self._begin_token,
            "eos_token": lib.llama_vocab_eos(self.handle),
            "pad_token": lib.llama_vocab_pad(self.handle),
            "sep_token": lib.llama_vocab_sep(self.handle),
        }
        return {name: self._text_of(token) for name, token in tokens.items() if token != _NULL_TOKEN}

    @cached_property
    def insert_tokens(self) -> InsertTokens | None:
        """The tokens that ask for text between two others, when the vocabulary has all three."""
        prefix, suffix, middle = (
            int(find(self.handle))
            for find in (lib.llama_vocab_fim_pre, lib.llama_vocab_fim_suf, lib.llama_vocab_fim_mid)
        )
        return None if _NULL_TOKEN in (prefix, suffix, middle) else InsertTokens(prefix, suffix, middle)

    def tokenize(self, text: str, *, add_special: bool, parse_special: bool) -> list[int]:
        """Token ids of `text`.

        With `add_special` the begin token stands in front where the model wants one, unless the
        text brings its own. A vocabulary must not be asked to add what it does not have:
        llama.cpp aborts the process. Raises ModelInvalid as `known`, as all that makes tokens of text does.
        """
        if not add_special or not self._adds_begin or (parse_special and self._brings_begin(text)):
            return self._tokenize(text, add=False, parse_special=parse_special)
        if self._may_add:
            return self._tokenize(text, add=True, parse_special=parse_special)
        return [self._begin_token, *self._tokenize(text, add=False, parse_special=parse_special)]

    def tokenize_whole(self, text: str, *, parse_special: bool) -> EncodingInput:
        """Token ids with all that the model wants in front and behind."""
        if not self._may_add:
            return EncodingInput(self.tokenize(text, add_special=True, parse_special=parse_special))
        tokens = self._tokenize(text, add=True, parse_special=parse_special)
        added = self._tokenize("", add=True, parse_special=False)
        head = int(bool(tokens) and tokens[:1] == added[:1] == [self._begin_token])
        tail = int(len(tokens) > head and len(added) > head and tokens[-1] == added[-1])
        return EncodingInput(tokens, head, tail)

    def tokenize_pair(self, query: str, document: str, template: str | None = None) -> EncodingInput:
        """A query and a document, in the model's template for them or with its separators around."""
        if template is not None:
            return self._fill_pair(template, query, document)
        begin = [self._begin_token] if self._adds_begin else []
        if lib.llama_vocab_type(self.handle) == lib.LLAMA_VOCAB_TYPE_WPM and self._may_add:
            first = self.tokenize_whole(query, parse_special=False).tokens
            second = self.tokenize_whole(document, parse_special=False).tokens[1:]
            return EncodingInput([*first, *second], len(first), 1)
        end = self._end_token if self._end_token != _NULL_TOKEN else self._separator
        ends = [end] if end != _NULL_TOKEN and lib.llama_vocab_get_add_eos(self.handle) else []
        between = (
            [self._separator] if self._separator != _NULL_TOKEN and lib.llama_vocab_get_add_sep(self.handle) else []
        )
        head = [*begin, *self.tokenize(query, add_special=False, parse_special=False), *ends, *between]
        body = self.tokenize(document, add_special=False, parse_special=False)
        return EncodingInput([*head, *body, *ends], len(head), len(ends))

    def detokenize(self, tokens: Sequence[int]) -> str:
        """The text of tokens of this vocabulary, control tokens written out."""
        ids = (ctypes.c_int32 * len(tokens))(*tokens)
        size = 8 * len(tokens) + 64
        while True:
            buffer = ctypes.create_string_buffer(size)
            count: int = lib.llama_detokenize(self.handle, ids, len(tokens), buffer, size, False, True)
            if count >= 0:
                return buffer.raw[:count].decode("utf-8", "replace")
            size = -count

    def _fill_pair(self, template: str, query: str, document: str) -> EncodingInput:
        before, _, behind = template.partition("{document}")
        before, behind = (part.replace("{query}", query) for part in (before, behind))
        tokens = self._tokenize(f"{before}{document}{behind}", add=False, parse_special=True)
        head, tail = (len(self._tokenize(part, add=False, parse_special=True)) for part in (before, behind))
        return EncodingInput(tokens, head, tail)

    @cached_property
    def _may_add(self) -> bool:
        """Whether llama.cpp has every token that it would add; it aborts the process where it has not."""
        has_begin, has_end, has_separator = (
            token != _NULL_TOKEN for token in (self._begin_token, self._end_token, self._separator)
        )
        if lib.llama_vocab_type(self.handle) == lib.LLAMA_VOCAB_TYPE_WPM:
            return has_begin and has_separator
        adds_begin, adds_end = lib.llama_vocab_get_add_bos(self.handle), lib.llama_vocab_get_add_eos(self.handle)
        return (has_begin or not adds_begin) and (has_end or not adds_end)

    def _tokenize(self, text: str, *, add: bool, parse_special: bool) -> list[int]:
        data = text.encode("utf-8")
        capacity = len(data) + 2
        while True:
            tokens = (ctypes.c_int32 * capacity)()
            count: int = lib.llama_tokenize(self.handle, data, len(data), tokens, capacity, add, parse_special)
            if count >= 0:
                return known(tokens[:count])
            capacity = -count

    @cached_property
    def longest_token(self) -> int:
        """Bytes of the longest token, control tokens written out; reads the whole vocabulary the first time."""
        return max(len(self._read_piece(token, special=True)) for token in range(self.size))

    def token_bytes(self, token: int) -> bytes:
        """The bytes of a token; empty for control tokens. `token` must be one of this vocabulary."""
        piece = self._pieces.get(token)
        if piece is None:
            piece = self._pieces[token] = self._read_piece(token, special=False)
        return piece

    def written(self, token: int) -> bytes:
        """As `token_bytes`, with control tokens written out."""
        piece = self._written.get(token)
        if piece is None:
            piece = self._written[token] = self._read_piece(token, special=True)
        return piece

    def is_special(self, token: int) -> bool:
        """Whether a token means something else than its text, as marks of roles, thoughts and calls do."""
        kind: int = lib.llama_vocab_get_attr(self.handle, token)
        if kind & lib.LLAMA_TOKEN_ATTR_CONTROL:
            return True
        written = self.written(token) if kind & lib.LLAMA_TOKEN_ATTR_USER_DEFINED else b""
        return written.startswith(b"<") and written.endswith(b">")

    def text(self, token: int) -> bytes:
        """A token as it stands in the model's file."""
        return lib.llama_vocab_get_text(self.handle, token) or b""

    def ends_generation(self, token: int) -> bool:
        ends = self._ends.get(token)
        if ends is None:
            ends = self._ends[token] = bool(lib.llama_vocab_is_eog(self.handle, token))
        return ends

    def _brings_begin(self, text: str) -> bool:
        return bool(self._begin_text) and text.startswith(self._begin_text)

    def _read_piece(self, token: int, *, special: bool) -> bytes:
        size = 64
        while True:
            buffer = ctypes.create_string_buffer(size)
            count: int = lib.llama_token_to_piece(self.handle, token, buffer, size, 0, special)
            if count >= 0:
                return buffer.raw[:count]
            size = -count

    def _text_of(self, token: int) -> str:
        if not 0 <= token < self.size:
            return ""
        return self.text(token).decode("utf-8", "replace")


def known(tokens: list[int]) -> list[int]:
    """These tokens. Raises ModelInvalid where llama.cpp put none: asked about that, it would end the process."""
    if _NULL_TOKEN in tokens:
        raise ModelInvalid("The model's vocabulary has no token for a part of the text, and none for what is unknown.")
    return tokens
