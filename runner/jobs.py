"""Jobs: what a short-lived worker is asked to do, and what it tells.

A job is one frame on the worker's standard input, as in `runner.messages`; what it tells are frames
on its standard output, the last of them a result or a `JobFailed`. The worker ends when its input
ends, so that whoever loses interest need only close it.
"""

from __future__ import annotations

import msgspec

from runner.errors import Fact
from runner.messages import FRAME_HEADER

QUANTIZE_FLAG = "--quantize"
CALIBRATE_FLAG = "--calibrate"
MEASURE_FLAG = "--measure"
BENCHMARK_FLAG = "--benchmark"


class TensorImportance(msgspec.Struct, frozen=True):
    """Where an importance matrix has its numbers for one tensor, all in F32."""

    name: str
    offset: int
    columns: int
    matrices: int
    counts_offset: int | None
    """Where the divisor of each matrix is; None: `calls` is that of all."""
    calls: int


class Importance(msgspec.Struct, frozen=True):
    """An importance matrix, whose places were checked against its file."""

    file: str
    tensors: tuple[TensorImportance, ...]


class Quantize(msgspec.Struct, frozen=True, tag="quantize"):
    """Write a model in another type. Answered by `JobProgress`, then `Quantized`."""

    files: tuple[str, ...]
    """Shards in order, under the names that llama.cpp gives to shards."""
    target: str
    file_type: int
    """llama.cpp's number of the type."""
    room: int
    """Most bytes that the result may have."""
    importance: Importance | None = None


class Calibrate(msgspec.Struct, frozen=True, tag="calibrate"):
    """Let a model read a text, and write which inputs count most. Answered by `JobProgress`, then `Calibrated`."""

    files: tuple[str, ...]
    """As those of `Quantize`."""
    text: str
    """A file in UTF-8."""
    target: str
    """A GGUF file, as llama.cpp's own tools write it."""


class Measure(msgspec.Struct, frozen=True, tag="measure"):
    """Find out what a model needs, without reading its weights. Answered by `Measured`."""

    files: tuple[str, ...]
    windows: tuple[int, ...]
    """Windows in tokens, for each of which the memory is told."""
    max_sequences: int
    num_batch: int = 512


class Benchmark(msgspec.Struct, frozen=True, tag="benchmark"):
    """Load a model and time it with several numbers of threads. Answered by `JobProgress`, then `Benchmarked`."""

    files: tuple[str, ...]
    seconds: float
    """How long the timing may take in all, loading aside."""


class JobProgress(msgspec.Struct, frozen=True, tag="progress"):
    fraction: float


class JobFailed(msgspec.Struct, frozen=True, tag="failed"):
    code: str
    message: str
    facts: dict[str, Fact] = {}


class Quantized(msgspec.Struct, frozen=True, tag="quantized"):
    size: int


class Calibrated(msgspec.Struct, frozen=True, tag="calibrated"):
    tokens: int
    """That were read."""


class WindowNeeds(msgspec.Struct, frozen=True):
    """Bytes that a context takes beside the weights."""

    window: int
    cache: int
    """KV cache and recurrent states."""
    compute: int


class DeviceFacts(msgspec.Struct, frozen=True):
    """A device as it is now; memory in bytes."""

    name: str
    kind: str
    description: str
    memory_free: int
    memory_total: int


class Measured(msgspec.Struct, frozen=True, tag="measured"):
    """What a model needs of the memory, and what there is."""

    layers: int
    """With the output layer."""
    needs: tuple[WindowNeeds, ...]
    devices: tuple[DeviceFacts, ...]
    features: tuple[str, ...]
    """What the engine's CPU code was built for and uses, in the engine's words: AVX2, NEON, REPACK, …"""


class Speed(msgspec.Struct, frozen=True):
    """How fast a model is with a number of threads, in tokens a second."""

    threads: int
    prefill: float
    decode: float


class Benchmarked(msgspec.Struct, frozen=True, tag="benchmarked"):
    """How fast a model is on this machine."""

    speeds: tuple[Speed, ...]
    """Fewest threads first."""
    load_seconds: float
    placement: str
    """One sentence: where the layers are and why."""
    engine: str
    features: tuple[str, ...]
    """As those of `Measured`."""


Job = Quantize | Calibrate | Measure | Benchmark
JobReport = JobProgress | JobFailed | Quantized | Calibrated | Measured | Benchmarked

_encoder = msgspec.msgpack.Encoder()
_job_decoder: msgspec.msgpack.Decoder[Job] = msgspec.msgpack.Decoder(Job)
_report_decoder: msgspec.msgpack.Decoder[JobReport] = msgspec.msgpack.Decoder(JobReport)


def encode_job_frame(message: Job | JobReport) -> bytes:
    """The message with its length in front."""
    payload = _encoder.encode(message)
    return FRAME_HEADER.pack(len(payload)) + payload


def decode_job(payload: bytes) -> Job:
    """Raises msgspec.DecodeError for anything that is not a job."""
    return _job_decoder.decode(payload)


def decode_job_report(payload: bytes) -> JobReport:
    """Raises msgspec.DecodeError for anything that is not a report."""
    return _report_decoder.decode(payload)
