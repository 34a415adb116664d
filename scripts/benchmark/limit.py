"""What the inference library does without any server: llama-batched-bench."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

from benchmark.rows import Figures
from benchmark.versions import program_start

_PROMPT = 32
_SECONDS = 300


def raw_limit(program: str, model_file: Path, streams: tuple[int, ...], tokens: int) -> Figures:
    """Tokens a second that are written by one stream and by several, as `one_stream` and `streams_N`."""
    counts = (1, *streams)
    cells = max(512, (_PROMPT + tokens) * max(counts) * 2)
    command = [*program_start(program), "-m", str(model_file), "-c", str(cells)]
    command += ["-npp", str(_PROMPT), "-ntg", str(tokens), "-npl", ",".join(map(str, counts))]
    command += ["--output-format", "jsonl"]
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_SECONDS, check=False
    )
    figures = {}
    for line in done.stdout.splitlines():
        if line.startswith("{"):
            told = json.loads(line)
            figures["one_stream" if told["pl"] == 1 else f"streams_{told['pl']}"] = float(told["speed_tg"])
    if not figures:
        raise SystemExit(f"{program} told no figures:\n{(done.stderr or done.stdout)[-500:]}")
    return figures
