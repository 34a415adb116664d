"""Which methods of the official clients the end-to-end tests call, read from the tests' own source."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

CLIENTS = ("ollama", "openai", "anthropic")
_WRAPPERS = ("with_raw_response", "with_streaming_response")
FOLDER = Path(__file__).parents[1] / "end_to_end"


@dataclass(frozen=True, order=True)
class Call:
    """A call as it is written in a test: `await openai_client.models.list()`."""

    client: str
    path: str
    is_async: bool
    is_streamed: bool
    wrapper: str = ""


@cache
def calls_in_tests() -> frozenset[Call]:
    """All calls in the end-to-end tests on what is called `client`, or `NAME_client` where several are used."""
    sources = [path.read_text("utf-8") for path in sorted(FOLDER.glob("test_*.py"))]
    return frozenset(call for source in sources for call in _calls_in(ast.parse(source)))


def _calls_in(module: ast.Module) -> Iterator[Call]:
    used = [name for name in CLIENTS if name in _imported(module)]
    for function in ast.walk(module):
        if not isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        for node in ast.walk(function):
            if isinstance(node, ast.Call):
                yield from _read(node, used, is_async=isinstance(function, ast.AsyncFunctionDef))


def _imported(module: ast.Module) -> set[str]:
    return {alias.name for node in module.body if isinstance(node, ast.Import) for alias in node.names}


def _read(call: ast.Call, used: list[str], *, is_async: bool) -> Iterator[Call]:
    names: list[str] = []
    node: ast.expr = call.func
    while isinstance(node, ast.Attribute):
        names.insert(0, node.attr)
        node = node.value
    if not names or not isinstance(node, ast.Name) or not node.id.endswith("client"):
        return
    prefix = node.id.removesuffix("client").removesuffix("_")
    owner = prefix if prefix in used else used[0] if len(used) == 1 else None
    if owner is None:
        return
    wrapper = next((name for name in names if name in _WRAPPERS), "")
    streams = [keyword.value for keyword in call.keywords if keyword.arg == "stream"]
    is_streamed = any(isinstance(value, ast.Constant) and value.value is True for value in streams)
    path = ".".join(name for name in names if name != wrapper)
    yield Call(owner, path, is_async, is_streamed, wrapper)
