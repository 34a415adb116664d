"""Computes an importance matrix: a model reads a text, and the inputs of its weights are squared and summed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import numpy.typing as npt
from llama_cpp import llama_cpp as lib

from runner.engine import EngineFault
from runner.errors import InsufficientMemory, InvalidRequest
from runner.jobs import Calibrate, Calibrated
from runner.llamacpp.devices import default_threads, list_devices, place
from runner.llamacpp.library import Library, LibraryLog
from runner.llamacpp.model import context_params, load_weights, measure
from runner.llamacpp.tensors import Tensor, Tensors
from runner.llamacpp.vocabulary import Vocabulary
from runner.loaded_model import LoadOptions

CHUNK = 512
"""Most tokens that are read together, each time from nothing; what llama.cpp's own tool reads."""
_LEAST_TOKENS = 64
_LEAST_ROWS = 16
"""A shorter rest of the text is left out."""


@dataclass
class _Sums:
    """What one tensor took in: sums of squares for each of its matrices, and how many rows that were."""

    squares: npt.NDArray[np.float64]
    counts: npt.NDArray[np.int64]


def calibrate(job: Calibrate, library: Library, on_progress: Callable[[float], None]) -> Calibrated:
    """Write `job.target`, as llama.cpp's own tool would; blocks for as long as the text takes to be read.

    Raises InvalidRequest for a text that is none or too short, ModelInvalid for a model that cannot be loaded, and
    InsufficientMemory.
    """
    files = [Path(file) for file in job.files]
    options = LoadOptions(CHUNK, max_sequences=1, num_batch=CHUNK)
    gpus = [device for device in list_devices() if device.kind in ("gpu", "igpu")]
    placement = place(gpus, None, lambda: measure(files, options, library.log))
    library.log.start_recording()
    model = load_weights(files, options, placement.gpu_layers, library.log, on_progress=None)
    try:
        # Positions beyond the window are more than some models have.
        window = min(CHUNK, int(lib.llama_model_n_ctx_train(model)))
        chunks = _chunks(_read_text(Path(job.text)), Vocabulary(model), window)
        collector = _Collector()
        _read_chunks(model, options, chunks, collector, library.log, on_progress)
    finally:
        lib.llama_model_free(model)
    _write(Path(job.target), collector.sums, len(chunks))
    return Calibrated(sum(map(len, chunks)))


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise InvalidRequest("What the matrix is to be computed from is not text in UTF-8.", "calibration") from None


def _chunks(text: str, vocabulary: Vocabulary, window: int) -> list[list[int]]:
    begin = vocabulary.tokenize("", add_special=True, parse_special=False)
    tokens = vocabulary.tokenize(text, add_special=False, parse_special=False)
    if len(tokens) < _LEAST_TOKENS:
        raise InvalidRequest(
            f"The text has {len(tokens)} tokens; an importance matrix needs {_LEAST_TOKENS} at least, and gets good "
            "with some tens of thousands.",
            "calibration",
        )
    step = window - len(begin)
    parts = [tokens[start : start + step] for start in range(0, len(tokens), step)]
    return [begin + part for part in parts if len(part) >= _LEAST_ROWS]


def _read_chunks(
    model: Any,
    options: LoadOptions,
    chunks: Sequence[list[int]],
    collector: _Collector,
    log: LibraryLog,
    on_progress: Callable[[float], None],
) -> None:
    context = _open(model, options, collector, log)
    batch = lib.llama_batch_init(CHUNK, 0, 1)
    try:
        for done, chunk in enumerate(chunks, start=1):
            _fill(batch, chunk)
            collector.begin()
            if memory := lib.llama_get_memory(context):
                lib.llama_memory_clear(memory, False)
            status: int = lib.llama_decode(context, batch)
            lib.llama_synchronize(context)
            if collector.failure is not None:
                raise collector.failure
            if status != 0:
                raise EngineFault(f"llama_decode returned {status}")
            on_progress(done / len(chunks))
    finally:
        lib.llama_batch_free(batch)
        lib.llama_free(context)


def _open(model: Any, options: LoadOptions, collector: _Collector, log: LibraryLog) -> Any:
    params = context_params(options, default_threads())
    params.n_ctx = params.n_batch = params.n_ubatch = CHUNK
    params.n_seq_max = 1
    # Vectors of all tokens are asked for, so that the last layer computes all rows as well.
    params.embeddings = True
    params.pooling_type = lib.LLAMA_POOLING_TYPE_NONE
    params.cb_eval = collector.callback
    context = lib.llama_init_from_model(model, params)
    if not context:
        reason = "; ".join(log.errors) or "it gave no reason"
        raise InsufficientMemory(f"There is no memory to compute an importance matrix: {reason}.")
    return context


def _fill(batch: Any, tokens: Sequence[int]) -> None:
    batch.n_tokens = len(tokens)
    for row, token in enumerate(tokens):
        batch.token[row] = token
        batch.pos[row] = row
        batch.n_seq_id[row] = 1
        batch.seq_id[row][0] = 0
        batch.logits[row] = True


class _Collector:
    """Hears of every multiplication while it is computed, and sums up what the weights of the blocks take in."""

    def __init__(self) -> None:
        self.sums: dict[str, _Sums] = {}
        self.failure: Exception | None = None
        self.callback = lib.ggml_backend_sched_eval_callback(self._hear)
        self._tensors = Tensors()
        self._taken = 0
        """Multiplications of this chunk so far."""
        self._all = 0
        """Those of a whole chunk; 0 until one has been read."""

    def begin(self) -> None:
        """A chunk comes; each makes the same multiplications."""
        self._all, self._taken = max(self._all, self._taken), 0

    def _hear(self, address: int, asks: bool, _user_data: Any) -> bool:
        """Asked before a tensor is computed whether it is wanted, and told when it is there."""
        # An exception cannot pass through native code.
        try:
            tensor = self._tensors.at(address)
            if asks:
                return _is_wanted(tensor)
            self._take(tensor)
            self._taken += 1
        except Exception as error:
            self.failure = self.failure or error
            return False
        # What comes behind the last block, the head over the whole vocabulary, need not be computed.
        return self._taken != self._all

    def _take(self, tensor: Tensor) -> None:
        weights, inputs = tensor.operand(0), tensor.operand(1)
        stacks, matrices, _, columns = weights.shape
        sums = self.sums.get(weights.name)
        if sums is None:
            count = stacks * matrices
            sums = self.sums[weights.name] = _Sums(np.zeros((count, columns)), np.zeros(count, dtype=np.int64))
        squares = np.square(inputs.numbers(), dtype=np.float64)
        chosen = tensor.operand(2).numbers()[0, 0] if tensor.operation == "MUL_MAT_ID" else None
        for matrix, rows in inputs_of(squares, chosen, matrices, stacks):
            sums.squares[matrix] += rows.sum(axis=0)
            sums.counts[matrix] += len(rows)


def _is_wanted(tensor: Tensor) -> bool:
    operation = tensor.operation
    if operation not in ("MUL_MAT", "MUL_MAT_ID"):
        return False
    weights, inputs = tensor.operand(0), tensor.operand(1)
    return weights.name.startswith("blk.") and weights.name.endswith(".weight") and inputs.is_f32


def inputs_of(
    squares: npt.NDArray[np.float64], chosen: npt.NDArray[np.int32] | None, matrices: int, stacks: int
) -> Iterator[tuple[int, npt.NDArray[np.float64]]]:
    """The rows that each matrix of a tensor was multiplied with; `chosen` are the experts of each token."""
    if chosen is None:
        for stack, layer in enumerate(squares):
            for number, rows in enumerate(layer):
                yield (stack % stacks) * matrices + number % matrices, rows
        return
    # [token, one for each of its experts or one for all, column]
    inputs = squares[0]
    for expert in np.unique(chosen):
        token, place = np.nonzero(chosen == expert)
        yield int(expert), inputs[token, place % inputs.shape[1]]


def _write(path: Path, sums: dict[str, _Sums], chunks: int) -> None:
    writer = gguf.GGUFWriter(path, "imatrix")
    writer.add_type("imatrix")
    writer.add_array("imatrix.datasets", ["calibration text"])
    writer.add_uint32("imatrix.chunk_count", chunks)
    writer.add_uint32("imatrix.chunk_size", CHUNK)
    for name, one in sorted(sums.items()):
        writer.add_tensor(f"{name}.in_sum2", one.squares.astype(np.float32))
        writer.add_tensor(f"{name}.counts", one.counts.astype(np.float32)[:, np.newaxis])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
