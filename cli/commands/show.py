"""`puna show`: what is known of a model."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Iterator, Sequence

from cli.connect import connect
from cli.formats import format_size
from cli.output import terminal_width, without_controls, write_json, write_line
from cli.wire import Fit, Json, ShowReply

PARTS = ("license", "modelfile", "parameters", "system", "template")
"""What can be shown alone."""
_MAX_ITEMS = 8
_FIRST_LINES = 2
_NARROWEST = 12
_VERDICTS = {"tight": "Tight. "}


def show(name: str, part: str | None, *, verbose: bool, as_json: bool) -> None:
    """Print a model's description, or one of PARTS alone."""
    reply = connect().show(name, verbose=verbose)
    if as_json:
        write_json(reply if part is None else {part: _part(reply, part)})
    elif part is not None:
        text = _part(reply, part)
        if text:
            write_line(text.removesuffix("\n"))
    else:
        for line in describe(reply, verbose=verbose):
            write_line(line)


def describe(reply: ShowReply, *, verbose: bool = False) -> Iterator[str]:
    """The lines of a description, in indented sections."""
    info = reply.get("model_info") or {}
    yield from _section("Model", _model_rows(reply, info))
    yield from _section("Capabilities", [(one,) for one in reply.get("capabilities") or ()])
    yield from _section("Fit", _fit_rows(reply.get("fit") or {}))
    yield from _section("Parameters", [_split(line) for line in (reply.get("parameters") or "").splitlines()])
    if verbose:
        yield from _section("Metadata", [(key, _short(info[key])) for key in sorted(info)])
        tensors = reply.get("tensors") or ()
        yield from _section("Tensors", [(one["name"], one["type"], str(one["shape"])) for one in tensors])
    yield from _section("System", _beginning(reply.get("system")))
    yield from _section("License", _beginning(reply.get("license")))


def _part(reply: ShowReply, part: str) -> str:
    value: object = reply.get(part)
    return value if isinstance(value, str) else ""


def _model_rows(reply: ShowReply, info: Json) -> list[tuple[str, ...]]:
    details = reply.get("details") or {}
    architecture = str(info.get("general.architecture") or details.get("family") or "")
    rows = (
        ("architecture", architecture),
        ("parameters", details.get("parameter_size")),
        ("context length", info.get(f"{architecture}.context_length") or details.get("context_length")),
        ("embedding length", info.get(f"{architecture}.embedding_length") or details.get("embedding_length")),
        ("quantization", details.get("quantization_level")),
    )
    return [(name, str(value)) for name, value in rows if value]


def _fit_rows(fit: Fit) -> list[tuple[str, ...]]:
    if not fit:
        return []
    about = "" if fit.get("measured") else "about "
    window, per_1k = fit.get("context_length", 0), fit.get("kv_cache_per_1k_tokens", 0)
    largest = fit.get("largest_context_length", 0)
    grows = f", which can grow to {largest}" if largest > window else ""
    rows = (
        ("weights", format_size(fit.get("weights", 0))),
        ("kv cache", f"{about}{format_size(per_1k)} for 1k tokens" if per_1k else ""),
        ("compute buffers", f"{about}{format_size(fit.get('compute_buffers', 0))}"),
        ("in all", f"{about}{format_size(fit.get('needed', 0))} with a window of {window} tokens{grows}"),
        ("here", f"{_VERDICTS.get(fit.get('verdict', ''), '')}{fit.get('placement', '')}"),
        ("kernel", fit.get("kernel", "")),
    )
    return [row for row in rows if row[1]]


def _section(title: str, rows: Sequence[Sequence[str]]) -> Iterator[str]:
    if not rows:
        return
    rows = [[without_controls(cell) for cell in row] for row in rows]
    widths = [max((len(row[column]) for row in rows if column < len(row)), default=0) for column in range(3)]
    # A value that is very long would push the next column out of sight; on narrow terminals earlier.
    limit = max(12, terminal_width() // 2)
    yield f"  {title}"
    for row in rows:
        cells = [cell.ljust(min(width, limit)) for cell, width in zip(row, widths, strict=False)]
        yield from _folded("", *cells)
    yield ""


def _folded(*cells: str) -> list[str]:
    """The cells in a line; on a terminal too narrow for it, the last one goes on in the next lines of its column."""
    *first, last = cells
    beginning, last = "    ".join((*first, "")), last.rstrip()
    width = terminal_width()
    if not last or len(beginning) + len(last) <= width or not sys.stdout.isatty():
        return [f"{beginning}{last}".rstrip()]
    left = max(_NARROWEST, width - len(beginning))
    pieces = textwrap.wrap(last, left, break_long_words=False, break_on_hyphens=False)
    return [beginning + pieces[0], *(" " * len(beginning) + piece for piece in pieces[1:])]


def _split(line: str) -> tuple[str, ...]:
    name, _, value = line.strip().partition(" ")
    return name, value.strip()


def _beginning(text: str | None) -> list[tuple[str, ...]]:
    lines = [line.strip() for line in (text or "").splitlines() if line.strip()]
    return [(line,) for line in (*lines[:_FIRST_LINES], *(["..."] if len(lines) > _FIRST_LINES else []))]


def _short(value: object) -> str:
    if isinstance(value, list):
        shown = " ".join(" ".join(str(item).split()) for item in value[:_MAX_ITEMS])
        rest = len(value) - _MAX_ITEMS
        return f"[{shown} ...+{rest} more]" if rest > 0 else f"[{shown}]"
    text = " ".join(str(value).split())
    return text if len(text) <= 100 else f"{text[:97]}..."
