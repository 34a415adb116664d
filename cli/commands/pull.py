"""`puna pull`: fetch a model, or take one in from files of this machine."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

from cli.client import DaemonClient
from cli.connect import connect
from cli.errors import WrongUsage
from cli.progress import follow, progress_view


def pull(source: str, given_name: str | None = None, *, insecure: bool = False) -> None:
    """Fetch a model by its name or the address of its file; files here become a model as they are."""
    path = local_path(source)
    if path is not None:
        _take_in(path, given_name)
    else:
        pull_model(connect(), source, given_name, insecure=insecure)


def pull_model(client: DaemonClient, source: str, given_name: str | None = None, *, insecure: bool = False) -> None:
    """Fetch a model and return when it is here; interrupted, the daemon stops fetching as well."""
    with closing(progress_view()) as view, client.pull(source, given_name, insecure=insecure) as records:
        follow(records, view)


def name_of(source: str) -> str:
    """What a model is called here that is run by its name, or by the address it is pulled from. Raises WrongUsage."""
    if local_path(source) is not None:
        raise WrongUsage(
            f"{source} is a file. `puna pull {source} --as NAME` makes a model of it, `puna run NAME` runs that."
        )
    if "://" not in source:
        return source
    from registry.errors import RegistryError
    from registry.sources.model_url import ModelUrl, parse_model_url

    try:
        found = parse_model_url(source)
    except RegistryError as error:
        raise WrongUsage(error.message) from None
    if found is None:
        return source
    return found.suggested_name.short if isinstance(found, ModelUrl) else found.short


def local_path(source: str) -> Path | None:
    """The file or folder that somebody means; None for names and addresses. Raises WrongUsage for a file that lacks."""
    if "://" in source:
        return None
    path = Path(source).expanduser()
    if source.startswith((".", "/", "~")) or "\\" in source:
        if not path.exists():
            raise WrongUsage(f"There is no file {path}.")
        return path
    # A name may end like a file's too: its tag can be the name of a file.
    return path if source.lower().endswith(".gguf") and path.is_file() else None


def _take_in(path: Path, given_name: str | None) -> None:
    from cli.commands.create import create_model, source_of
    from registry.file_naming import name_of_file

    # A link is called what people call it, and not like the file it leads to.
    own_name = path.resolve().name if path.name in ("", "..") else path.name
    name = given_name or name_of_file(own_name).short
    create_model(connect(), name, source_of(str(path), Path.cwd()))
