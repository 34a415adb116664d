"""`puna export`: write a model as plain files, with the Modelfile that makes it again."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

from cli.formats import format_size
from cli.local_store import local_store, telling_errors
from cli.output import note, write_line
from cli.progress import progress_view


def export(name: str, folder: str, *, force: bool) -> None:
    """Write the GGUF files and the Modelfile of model `name` into `folder`; prints their paths."""
    from registry.export import export_model
    from registry.linking import Way
    from registry.name import ModelName

    store = local_store("export")
    with telling_errors(), closing(progress_view()) as view:
        model = store.find(ModelName.parse(name))
        done = export_model(model, Path(folder).expanduser().absolute(), view.show, force=force)
    for file in done.files:
        write_line(f"{file}  {format_size(file.stat().st_size)}")
    if done.way is Way.CLONE:
        note("The files share their blocks with the store until one of them is changed.")
    for one in done.left_out:
        note(f"Left out, because a Modelfile cannot tell it: {one}")
