"""Images and sounds through mtmd: a model's projector, what it makes of media, and the vectors that stand for them."""

from __future__ import annotations

import ctypes
import secrets
import threading
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from llama_cpp import llama_cpp as lib
from llama_cpp import mtmd_cpp as mtmd

from runner.engine import EngineFault, MediaInput, MediaPiece, Picture
from runner.errors import InvalidRequest, ModelInvalid, RunnerError
from runner.llamacpp.library import LibraryLog
from runner.llamacpp.vocabulary import known

FUNCTIONS = (
    "mtmd_bitmap_free",
    "mtmd_bitmap_init",
    "mtmd_bitmap_set_id",
    "mtmd_context_params_default",
    "mtmd_decode_use_mrope",
    "mtmd_decode_use_non_causal",
    "mtmd_encode_chunk",
    "mtmd_free",
    "mtmd_get_output_embd",
    "mtmd_helper_bitmap_init_from_buf_wrapper",
    "mtmd_helper_image_get_decoder_pos",
    "mtmd_helper_init_opt_default",
    "mtmd_helper_log_set",
    "mtmd_init_from_file",
    "mtmd_input_chunk_get_id",
    "mtmd_input_chunk_get_n_pos",
    "mtmd_input_chunk_get_n_tokens",
    "mtmd_input_chunk_get_tokens_image",
    "mtmd_input_chunk_get_tokens_text",
    "mtmd_input_chunk_get_type",
    "mtmd_input_chunks_free",
    "mtmd_input_chunks_get",
    "mtmd_input_chunks_init",
    "mtmd_input_chunks_size",
    "mtmd_support_audio",
    "mtmd_support_vision",
    "mtmd_tokenize",
)
"""Every function this module calls, as in `library.FUNCTIONS`."""

Vectors = np.ndarray[Any, np.dtype[np.float32]]
Positions = np.ndarray[Any, np.dtype[np.int32]]
_DEBUG, _CONTINUATION = 1, 5
_NOT_READ = 2
_TIME_ROW_COLUMN = (0, 2, 1, 3)
"""The columns of mtmd's table of positions that a batch has in this order."""


class Projector:
    """A loaded projector beside its model.

    `tokenize` may be called from any thread, also while `encode` runs; that and `close` are the
    engine thread's. What mtmd says in detail holds the text of prompts and is not listened to.
    """

    def __init__(self, model: Any, file: Path, *, on_gpu: bool, threads: int, log: LibraryLog) -> None:
        """Blocks while the weights are read. Raises ModelInvalid for a file that does not belong to the model."""
        check_library()
        self._log = _MediaLog(log)
        mtmd.mtmd_helper_log_set(self._log.callback, ctypes.c_void_p(0))
        # A client that knew the marker could write it into a text; so every worker has its own.
        self.marker = f"<__media_{secrets.token_hex(16)}__>"
        params = mtmd.mtmd_context_params_default()
        params.use_gpu = on_gpu
        params.n_threads = threads
        params.print_timings = False
        params.media_marker = self.marker.encode()
        self._handle: Any = mtmd.mtmd_init_from_file(str(file).encode(), model, params)
        if not self._handle:
            raise ModelInvalid(f"llama.cpp cannot load the projector: {'; '.join(log.errors) or 'it gave no reason'}.")
        self._width = int(lib.llama_model_n_embd_inp(model))
        self._has_sections = bool(mtmd.mtmd_decode_use_mrope(self._handle))
        self.kinds = tuple(
            kind
            for kind, is_there in (
                ("image", mtmd.mtmd_support_vision(self._handle)),
                ("audio", mtmd.mtmd_support_audio(self._handle)),
            )
            if is_there
        )

    def tokenize(self, text: str, media: Sequence[MediaInput]) -> list[list[int] | MediaPiece]:
        """Tokens of the text, and in the place of each marker what the model wants around and instead of a medium.

        Decodes sounds and cuts images to size. Raises InvalidRequest for a medium that mtmd cannot read, and
        ModelInvalid for a text that the vocabulary has no tokens for.
        """
        chunks = _Chunks(mtmd.mtmd_input_chunks_init())
        encoded = text.encode()
        argument = mtmd.mtmd_input_text()
        argument.text, argument.text_len = encoded, len(encoded)
        argument.add_special, argument.parse_special = False, True
        with self._bitmaps(media) as bitmaps:
            array = (mtmd.mtmd_bitmap_p_ctypes * len(bitmaps))(*bitmaps)
            status: int = mtmd.mtmd_tokenize(self._handle, chunks.handle, ctypes.byref(argument), array, len(bitmaps))
        if status == _NOT_READ:
            raise InvalidRequest("The model's projector cannot read one of the images or sounds.")
        if status != 0:
            raise RunnerError(f"mtmd_tokenize returned {status}.")
        return [self._piece(chunks, index) for index in range(mtmd.mtmd_input_chunks_size(chunks.handle))]

    def encode(self, piece: MediaPiece) -> Vectors:
        """The vectors of a piece, one in each row. Blocks as long as the projector computes; raises EngineFault."""
        assert isinstance(piece.native, _Native)
        status: int = mtmd.mtmd_encode_chunk(self._handle, piece.native.chunk)
        if status != 0:
            raise EngineFault(f"mtmd_encode_chunk returned {status}")
        output = mtmd.mtmd_get_output_embd(self._handle)
        return np.ctypeslib.as_array(output, shape=(piece.count, self._width)).copy()

    def positions(self, piece: MediaPiece, start: int) -> Positions:
        """Where the places of a piece stand that begins at position `start`: for each of them a number, or four.

        Four in the order in which a batch has them: time, row, column, and one more.
        """
        assert isinstance(piece.native, _Native)
        return piece.native.positions(start) if self._has_sections else _in_a_row(start, piece.count)

    def close(self) -> None:
        if self._handle:
            mtmd.mtmd_free(self._handle)
            self._handle = None

    def _piece(self, chunks: _Chunks, index: int) -> list[int] | MediaPiece:
        chunk = mtmd.mtmd_input_chunks_get(chunks.handle, index)
        if mtmd.mtmd_input_chunk_get_type(chunk) == mtmd.MTMD_INPUT_CHUNK_TYPE_TEXT:
            count = ctypes.c_size_t()
            tokens = mtmd.mtmd_input_chunk_get_tokens_text(chunk, ctypes.byref(count))
            return known([int(token) for token in tokens[: count.value]])
        native = _Native(chunks, chunk)
        return MediaPiece(
            count=native.count,
            source=int(mtmd.mtmd_input_chunk_get_id(chunk)),
            is_whole=bool(mtmd.mtmd_decode_use_non_causal(self._handle, chunk)),
            native=native,
            is_grid=self._has_sections and not np.array_equal(native.positions(0)[0], _in_a_row(0, native.count)),
        )

    @contextmanager
    def _bitmaps(self, media: Sequence[MediaInput]) -> Iterator[list[Any]]:
        made: list[Any] = []
        try:
            for number, medium in enumerate(media):
                bitmap = self._bitmap(medium)
                if not bitmap:
                    raise InvalidRequest("One of the sounds cannot be read.")
                made.append(bitmap)
                mtmd.mtmd_bitmap_set_id(bitmap, str(number).encode())
            yield made
        finally:
            for bitmap in made:
                mtmd.mtmd_bitmap_free(bitmap)

    def _bitmap(self, medium: MediaInput) -> Any:
        if isinstance(medium, Picture):
            pixels = np.frombuffer(medium.pixels, dtype=np.uint8)
            return mtmd.mtmd_bitmap_init(medium.width, medium.height, _bytes_pointer(pixels))
        data = np.frombuffer(medium.data, dtype=np.uint8)
        options = mtmd.mtmd_helper_init_opt_default()
        return mtmd.mtmd_helper_bitmap_init_from_buf_wrapper(
            self._handle, _bytes_pointer(data), data.size, False, options
        ).bitmap


class _Chunks:
    """A list of chunks that mtmd made; freed with the last piece that is out of it."""

    def __init__(self, handle: Any) -> None:
        self.handle = handle
        weakref.finalize(self, mtmd.mtmd_input_chunks_free, handle).atexit = False


class _Native:
    """A chunk of an image or a sound."""

    def __init__(self, chunks: _Chunks, chunk: Any) -> None:
        self._chunks = chunks
        """Kept, for the chunk is a part of them."""
        self.chunk = chunk
        self.count = int(mtmd.mtmd_input_chunk_get_n_tokens(chunk))
        self.length = int(mtmd.mtmd_input_chunk_get_n_pos(chunk))
        """In positions."""

    def positions(self, start: int) -> Positions:
        """As `Projector.positions`, always four."""
        if mtmd.mtmd_input_chunk_get_type(self.chunk) != mtmd.MTMD_INPUT_CHUNK_TYPE_IMAGE:
            return np.tile(_in_a_row(start, self.count), (4, 1))
        found = (mtmd.mtmd_decoder_pos * self.count)()
        mtmd.mtmd_helper_image_get_decoder_pos(mtmd.mtmd_input_chunk_get_tokens_image(self.chunk), start, found)
        table = np.frombuffer(found, dtype=np.int32).reshape(self.count, 4)
        return np.ascontiguousarray(table[:, _TIME_ROW_COLUMN].T)


class _MediaLog:
    """Passes on what mtmd says, one thread at a time, without the details."""

    _kept: list[_MediaLog] = []  # noqa: RUF012 - mtmd may call back until the process ends
    _lock = threading.Lock()

    def __init__(self, log: LibraryLog) -> None:
        self._is_detail = False
        self._target = log
        self.callback = lib.llama_log_callback(self._receive)
        self._kept.append(self)

    def _receive(self, level: int, text: bytes | None, user_data: Any) -> None:
        with self._lock:
            if level != _CONTINUATION:
                self._is_detail = level == _DEBUG
            if not self._is_detail:
                self._target.receive(level, text, user_data)


def check_library() -> None:
    """Raise RunnerError when mtmd is not what this module was written for; as `library.check_version`."""
    missing = [name for name in FUNCTIONS if not hasattr(mtmd, name)]
    params = None if missing else mtmd.mtmd_context_params_default()
    found = params and (
        params.use_gpu,
        params.n_threads,
        params.media_marker,
        params.warmup,
        params.image_min_tokens,
        params.image_max_tokens,
        params.batch_max_tokens,
    )
    if missing or found != (True, 4, b"<__media__>", True, -1, -1, 1024):
        raise RunnerError(f"The library mtmd is not the tested one: it lacks {missing}, and its defaults read {found}.")


def length_of(piece: MediaPiece) -> int:
    """How many positions later stands what follows a piece."""
    assert isinstance(piece.native, _Native)
    return piece.native.length


def _in_a_row(start: int, count: int) -> Positions:
    return np.arange(start, start + count, dtype=np.int32)


def _bytes_pointer(data: np.ndarray[Any, Any]) -> Any:
    return data.ctypes.data_as(ctypes.POINTER(ctypes.c_uint8))
