"""Loads model files named on standard input, one after the other, and computes a few tokens and a vector with each.

Says `begin PATH` before and `end` after each, so that a reader knows which one ended this process.
"""

from __future__ import annotations

import sys
from pathlib import Path

from runner.engine import Chunk, EncodingChunk, EngineFault, SamplerPlan
from runner.errors import RunnerError
from runner.llamacpp.engine import LlamaEngine
from runner.llamacpp.library import Library
from runner.loaded_model import LoadOptions
from runner.sampling import SamplingParams


def main() -> None:
    library = Library()
    for line in sys.stdin:
        path = Path(line.rstrip("\n"))
        print(f"begin {path}", flush=True)
        try:
            use(library, path)
        except (RunnerError, EngineFault) as error:
            print(f"refused {' '.join(str(error).split())}", flush=True)
        print("end", flush=True)


def use(library: Library, path: Path) -> None:
    engine = LlamaEngine(library, path, LoadOptions(context_length=64, max_sequences=2, num_batch=32, num_thread=1))
    try:
        tokens = engine.tokenize("hi \u00e9\u4f60", add_special=True, parse_special=True)[:16] or [1]
        for token in tokens:
            engine.written(token)
        if engine.info.encoding is not None:
            engine.prepare_encoding(len(tokens))
            engine.encode([EncodingChunk(0, 0, tokens, is_last=True)])
        if not engine.info.generates:
            return
        sampler = engine.create_sampler(SamplerPlan(SamplingParams(temperature=0), 1), tokens)
        computed = 0
        for _ in range(3):
            step = engine.step([Chunk(0, computed, tokens[computed:], sampler)])
            computed = len(tokens)
            for token in step:
                engine.token_bytes(token)
                engine.ends_generation(token)
            tokens = [*tokens, *step]
        sampler.close()
    finally:
        engine.close()


if __name__ == "__main__":
    main()
