"""Commands that make models of files that are here, and files of models."""

from __future__ import annotations

from functools import partial
from typing import Annotated

import typer

from cli.errors import WrongUsage
from cli.usage.arguments import Action, AsJson, Model


def create(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the new model.")],
    file: Annotated[
        str | None,
        typer.Option(
            "--file", "-f", metavar="MODELFILE", help="The Modelfile; - is standard input.", show_default="Modelfile"
        ),
    ] = None,
    origin: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="FILE|FOLDER|MODEL",
            help="A GGUF file, a folder with a model, or a model, instead of a Modelfile.",
        ),
    ] = None,
    quantize: Annotated[
        str | None,
        typer.Option(
            "--quantize", "-q", metavar="TYPE", help="Bring F16, BF16 or F32 weights into a type, such as q4_K_M."
        ),
    ] = None,
    imatrix: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="llama.cpp's importance matrix for --quantize; the smallest types need one."),
    ] = None,
    calibrate: Annotated[
        str | None, typer.Option(metavar="TEXT_FILE", help="Compute the matrix from what the model makes of a text.")
    ] = None,
    draft_quantize: Annotated[
        str | None, typer.Option("--draft-quantize", metavar="TYPE", help="The same as --quantize for the draft model.")
    ] = None,
) -> Action:
    """Make a model from a Modelfile, from files or from another model."""
    from cli.commands.create import create, quantization_of

    return partial(create, name, file, origin, quantization_of(quantize, imatrix, calibrate, draft_quantize))


def adopt(
    place: Annotated[
        str | None,
        typer.Argument(metavar="PATH", help="A folder or a GGUF file; none: the usual places of other programs."),
    ] = None,
    name: Annotated[str | None, typer.Option(metavar="NAME", help="What to call the one model that is there.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would be adopted.")] = False,
    copy: Annotated[bool, typer.Option("--copy", help="Copy the files instead of sharing them.")] = False,
    force: Annotated[bool, typer.Option("--force", "-f", help="Replace models that have the names.")] = False,
    status: Annotated[
        bool, typer.Option("--status", help="Show the files that are used where other programs keep them.")
    ] = False,
    as_json: AsJson = False,
) -> Action:
    """Use models of other programs without a second copy.

    Those of Ollama, LM Studio, the Hugging Face cache and of plain folders are found.
    """
    from cli.commands.adopt import AdoptRequest, adopt_models, list_adoptable, list_references

    if status:
        if place is not None or name is not None or dry_run or copy or force:
            raise WrongUsage("--status only shows what was adopted; it takes nothing but --json.")
        return partial(list_references, as_json=as_json)
    request = AdoptRequest(place, name, copy, force, as_json)
    return partial(list_adoptable if dry_run else adopt_models, request)


def export(
    model: Model,
    folder: Annotated[str, typer.Argument(metavar="DIR", help="Where to put the files; made if need be.")],
    force: Annotated[bool, typer.Option("--force", "-f", help="Replace files of the same names.")] = False,
) -> Action:
    """Write a model as plain GGUF files and a Modelfile."""
    from cli.commands.export import export

    return partial(export, model, folder, force=force)
