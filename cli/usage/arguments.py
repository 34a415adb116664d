"""Arguments and options that several commands take."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import typer

Action = Callable[[], int | None]
"""What a command line asks for; called when the parser has left the stage."""

Model = Annotated[str, typer.Argument(metavar="MODEL", help="Name of a model, such as smollm2:135m.")]
Models = Annotated[list[str] | None, typer.Argument(metavar="MODEL", help="Only these models.")]
Prefix = Annotated[str | None, typer.Argument(metavar="PREFIX", help="Only names that begin with this.")]
Host = Annotated[str, typer.Argument(metavar="HOST[:PORT]", help="A registry, as it stands in names of models.")]
Insecure = Annotated[
    bool,
    typer.Option("--insecure", help="Allow plain HTTP and any certificate, of a registry that is listed."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
