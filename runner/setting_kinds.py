"""Kinds of settings: what people may write, in words, and how it is read."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runner.notation import Address, parse_duration, parse_host


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of value: what people may write, and how it is read. `read` raises ValueError."""

    allowed: str
    read: Callable[[object], Any]
    is_secret: bool = False
    """Its values are not shown."""


def _read_address(value: object) -> Address:
    return parse_host(_read_text(value))


def _read_keep_alive(value: object) -> float:
    if isinstance(value, str) and not re.fullmatch(r"-?[0-9]+", value.strip()):
        seconds = parse_duration(value)
    else:
        seconds = _read_number(value)
    return math.inf if seconds < 0 else seconds


def _read_number(value: object) -> float:
    if isinstance(value, str) and re.fullmatch(r"-?[0-9]+(\.[0-9]+)?", value.strip()):
        value = float(value)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError("that is no number")
    return float(value)


def _read_seconds(value: object) -> float:
    seconds = _read_number(value)
    if seconds < 0:
        raise ValueError("that is below 0")
    return seconds


def _read_count(value: object) -> int:
    if isinstance(value, str) and re.fullmatch(r"[0-9]{1,18}", value.strip()):
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError("that is no whole number above 0")
    return value


def _read_size(value: object) -> int:
    if isinstance(value, str):
        match = _SIZE.fullmatch(value.strip())
        if match is None:
            raise ValueError("that is no size")
        return int(float(match[1]) * _SIZE_UNITS[(match[2] or "b").lower()])
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ValueError("that is no size")
    return value


def _read_switch(value: object) -> bool:
    if isinstance(value, str):
        value = _SWITCHES.get(value.strip().lower())
    if not isinstance(value, bool):
        raise ValueError("that is neither true nor false")
    return value


def _read_texts(value: object) -> tuple[str, ...]:
    if isinstance(value, str):
        return tuple(part.strip() for part in value.split(",") if part.strip())
    if not isinstance(value, list | tuple):
        raise ValueError("that is no list")
    return tuple(_read_text(part) for part in value)


def _read_text(value: object) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ValueError("that is no text")
    return value.strip()


def _read_api_key(value: object) -> str:
    text = _read_text(value)
    if not re.fullmatch(r"[!-~]{1,1000}", text):
        raise ValueError("that is no key")
    return text


def choice(*values: str) -> Kind:
    """One of a few words."""

    def read(value: object) -> str:
        text = value.strip().lower() if isinstance(value, str) else value
        if text not in values:
            raise ValueError("that is none of them")
        return str(text)

    return Kind(f"{', '.join(values[:-1])} or {values[-1]}", read)


def _read_registry_host(value: object) -> str:
    host = _read_text(value).lower().removesuffix(":443")
    match = _REGISTRY_HOST.fullmatch(host)
    if match is None or (match[1] and not 0 < int(match[1]) < 65536):
        raise ValueError("that is no host")
    return host


def _read_credentials(value: object) -> str:
    text = _read_text(value)
    if ":" not in text and not re.fullmatch(r"\$(\{[A-Za-z_][A-Za-z0-9_]*\}|[A-Za-z_][A-Za-z0-9_]*)", text):
        raise ValueError("that is no login")
    return text


def _read_file(value: object) -> Path:
    path = Path(_read_text(value)).expanduser()
    if not path.is_file():
        raise ValueError("there is no such file")
    return path


def _read_folder(value: object) -> Path:
    path = Path(_read_text(value)).expanduser()
    if not path.is_absolute():
        raise ValueError("that is not absolute")
    return path


def _read_folders(value: object) -> tuple[Path, ...]:
    parts = value.split(os.pathsep) if isinstance(value, str) else value
    if not isinstance(parts, list | tuple):
        raise ValueError("that is no list")
    folders = tuple(Path(_read_text(part)).expanduser() for part in parts if part != "")
    # The daemon and the commands run in different folders.
    if not all(folder.is_absolute() for folder in folders):
        raise ValueError("a path there is not absolute")
    return folders


_SIZE = re.compile(r"([0-9]{1,18}(?:\.[0-9]{1,9})?)\s*([kmgt]?b|[kmgt]ib)?", re.IGNORECASE)
_SIZE_UNITS = {"b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12} | {
    "kib": 2**10, "mib": 2**20, "gib": 2**30, "tib": 2**40,
}  # fmt: skip
_REGISTRY_HOST = re.compile(r"(?:[a-z0-9_](?:[a-z0-9_.-]{0,252}[a-z0-9_])?|\[[0-9a-f:.]{2,45}\])(?::([0-9]{1,5}))?")
_SWITCHES = {"1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False, "off": False}

ADDRESS = Kind("host[:port], such as 127.0.0.1:11434", _read_address)
KEEP_ALIVE = Kind("a duration such as 5m, a number of seconds, 0 (not at all) or -1 (for ever)", _read_keep_alive)
SECONDS = Kind("a number of seconds, 0 or more", _read_seconds)
COUNT = Kind("a whole number above 0", _read_count)
SIZE = Kind("a number of bytes, or a size such as 64MiB", _read_size)
SWITCH = Kind("true or false", _read_switch)
TEXTS = Kind("a list of texts (separated by commas in the environment)", _read_texts)
TEXT = Kind("a text", _read_text)
CACHE_TYPE = choice("f16", "q8_0", "q4_0")
FLASH_ATTENTION = choice("auto", "on", "off")
REGISTRY_HOST = Kind("HOST[:PORT], such as registry.example.com or localhost:5000", _read_registry_host)
CREDENTIALS = Kind(
    '"user:password", or "$NAME" for an environment variable that holds it', _read_credentials, is_secret=True
)
API_KEY = Kind("a key that `puna key create` has printed", _read_api_key, is_secret=True)
FILE = Kind("the path of a file", _read_file)
FOLDER = Kind("the absolute path of a folder, which is made when it is needed", _read_folder)
FOLDERS = Kind(
    f"a list of absolute paths of folders (separated by {os.pathsep} in the environment)",
    _read_folders,
)
