"""python -P -m registry.convert FOLDER OUTPUT: convert a checkpoint, or an adapter for a model that is described with
--adapter-of, telling its progress as lines of JSON.

Ends when its standard input does, so that whoever started it need only go away.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import json
import os
import sys
import threading
from pathlib import Path

from registry.convert.adapter import convert_adapter
from registry.convert.convert import convert
from registry.errors import DiskFull, RegistryError

_STEPS = 200


def main() -> int:
    arguments = _parse(sys.argv[1:])
    if arguments.piped:
        threading.Thread(target=_end_with_input, daemon=True).start()
        with contextlib.suppress(OSError, AttributeError):  # Windows has no such call
            os.nice(10)  # running answers come first
    told = 0

    def tell(fraction: float) -> None:
        nonlocal told
        if int(fraction * _STEPS) > told:
            told = int(fraction * _STEPS)
            _say({"fraction": fraction})

    try:
        if arguments.adapter_of is not None:
            convert_adapter(
                arguments.folder, arguments.adapter_of, arguments.output, room=arguments.room, on_progress=tell
            )
        else:
            convert(arguments.folder, arguments.output, dtype=arguments.type, room=arguments.room, on_progress=tell)
    except RegistryError as error:
        _say({"error": error.message, "code": error.code, **error.facts})
        return 1
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        _say({"error": "The disk filled up while the model was converted.", "code": DiskFull.code})
        return 1
    _say({"fraction": 1.0})
    return 0


def _parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="registry.convert", description="Convert a checkpoint to GGUF.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--type", choices=("F32", "F16", "BF16"), help="for the matrices; by default they keep theirs")
    parser.add_argument(
        "--adapter-of", type=json.loads, metavar="JSON", help="it is an adapter for a model with this config.json"
    )
    parser.add_argument("--room", type=int, help="most bytes to be written")
    parser.add_argument("--piped", action="store_true", help="end with standard input")
    return parser.parse_args(arguments)


def _say(told: dict[str, object]) -> None:
    print(json.dumps(told), flush=True)


def _end_with_input() -> None:
    # Not through the stream object: a thread inside of it keeps the interpreter from ending in order.
    while os.read(sys.stdin.fileno(), 1 << 16):
        pass
    os._exit(0)


if __name__ == "__main__":
    sys.exit(main())
