"""`puna search`: models that can be had, and whether they would run here."""

from __future__ import annotations

from collections.abc import Sequence

from cli.connect import connect
from cli.formats import format_size
from cli.output import note, write_json, write_line, write_table

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cli.wire import FoundModel

_FITS = {"gpu": "GPU", "memory": "yes", "tight": "barely", "no": "no"}
_SHOWN_QUANTIZATIONS = 4


def search(words: Sequence[str], *, limit: int, offline: bool, as_json: bool) -> None:
    """Print what the catalog and, unless `offline`, the Hugging Face hub have that matches the words."""
    reply = connect().search(" ".join(words), limit=limit, hub=not offline)
    if as_json:
        write_json(reply)
        return
    models = reply["models"]
    if models:
        write_table(("NAME", "SIZE", "QUANTIZATION", "FITS", "LICENSE", "HERE"), [_row(model) for model in models])
    else:
        write_line("Nothing was found.")
    if any(model.get("size_is_estimate") for model in models):
        note("~ is reckoned from the number of parameters. A name with :QUANTIZATION takes another one.")
    hub = reply["hub"]
    if hub["asked"] and not hub.get("reached"):
        note(f"Only the catalog was searched: {hub.get('error', 'the hub cannot be reached.')}")


def _row(model: FoundModel) -> tuple[str, ...]:
    size = model.get("size")
    return (
        model["name"],
        f"{'~' if model.get('size_is_estimate') else ''}{format_size(size)}" if size else "-",
        _quantizations(model),
        _FITS.get(model.get("fit", ""), "-"),
        model.get("license", "-") + (" (gated)" if model.get("gated") else ""),
        "yes" if model.get("installed") else "",
    )


def _quantizations(model: FoundModel) -> str:
    """The one that the name alone means first, and some of the others."""
    known = model.get("quantizations") or []
    rest = len(known) - _SHOWN_QUANTIZATIONS
    return " ".join(known[:_SHOWN_QUANTIZATIONS]) + (f" +{rest}" if rest > 0 else "") or "-"
