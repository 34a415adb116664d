"""`puna create`: make a model from a Modelfile, a GGUF file or another model."""

from __future__ import annotations

import hashlib
import os
import sys
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from cli.client import CHUNK_BYTES, DaemonClient
from cli.connect import connect
from cli.errors import WrongUsage
from cli.progress import ProgressView, follow, progress_view
from cli.wire import Json

DEFAULT_MODELFILE = "Modelfile"
GGUF_MAGIC = b"GGUF"


@dataclass(frozen=True, slots=True)
class Source:
    """What a model is made from: a file here, or the name of a model; and what else it is given."""

    file: Path | None
    model: str | None
    additions: Json = field(default_factory=dict)
    """Fields of the API's request: `system`, `template`, `parameters`, `messages`, `license`."""


def create(name: str, modelfile: str | None, origin: str | None) -> None:
    """Create model `name` from a Modelfile (`-` is standard input) or from `origin`, a file or a model's name."""
    if modelfile is not None and origin is not None:
        raise WrongUsage("--file and --from exclude each other: a Modelfile says itself what it starts from.")
    source = source_of(origin, Path.cwd()) if origin is not None else read_modelfile(modelfile or DEFAULT_MODELFILE)
    create_model(connect(), name, source)


def create_model(client: DaemonClient, name: str, source: Source) -> None:
    """Send what is needed and follow the creation to its end."""
    recipe: Json = {"model": name, **source.additions}
    with closing(progress_view()) as view:
        if source.file is not None:
            # A name need not be text; what the daemon is told of it is only for people.
            name_told = source.file.name.encode("utf-8", "replace").decode()
            recipe["files"] = {name_told: upload(client, source.file, view)}
        else:
            recipe["from"] = source.model
        with client.create(recipe) as records:
            follow(records, view)


def upload(client: DaemonClient, path: Path, view: ProgressView) -> str:
    """The digest of a file that the daemon has when this returns."""
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            if file.read(len(GGUF_MAGIC)) != GGUF_MAGIC:
                raise WrongUsage(f"{path} is no GGUF file.")
            file.seek(0)
            hasher = hashlib.sha256()
            hashed = 0
            while chunk := file.read(CHUNK_BYTES):
                hasher.update(chunk)
                hashed += len(chunk)
                view.show(f"hashing {path.name}", hashed, size)
            digest = f"sha256:{hasher.hexdigest()}"
            if not client.has_blob(digest):
                file.seek(0)
                sent = 0

                def tell(count: int) -> None:
                    nonlocal sent
                    sent += count
                    view.show(f"sending {path.name}", sent, size)

                client.upload_blob(digest, size, file, tell)
    except OSError as error:
        raise WrongUsage(f"{path} cannot be read ({error.strerror}).") from None
    return digest


def read_modelfile(place: str) -> Source:
    """Read a Modelfile; raises WrongUsage with its line when it is none."""
    from registry.errors import RegistryError
    from registry.modelfile import parse_modelfile

    if place == "-":
        text, folder, shown = _decode(sys.stdin.buffer.read(), "Standard input"), Path.cwd(), "standard input"
    else:
        path = Path(place).expanduser()
        if path.is_dir():
            path /= DEFAULT_MODELFILE
        try:
            text, folder, shown = _decode(path.read_bytes(), str(path)), path.parent, str(path)
        except OSError as error:
            hint = (
                " Name one with -f, or start from a file or a model with --from." if place == DEFAULT_MODELFILE else ""
            )
            raise WrongUsage(f"The Modelfile {path} cannot be read ({error.strerror}).{hint}") from None
    try:
        modelfile = parse_modelfile(text)
    except RegistryError as error:
        raise WrongUsage(f"{shown}: {error.message}") from None
    for instruction, is_there in (("from", modelfile.also_from), ("adapter", modelfile.adapters)):
        if is_there:
            line = modelfile.lines[instruction][-1]
            raise WrongUsage(f"{shown}: (line {line}): a second file of a model is not supported yet.")
    if modelfile.drafts:
        raise WrongUsage(f"{shown}: (line {modelfile.lines['draft'][0]}): DRAFT is not supported yet.")
    additions = {
        "template": modelfile.template,
        "parser": modelfile.parser,
        "requires": modelfile.requires,
        "system": modelfile.system,
        "parameters": dict(modelfile.parameters),
        "messages": [{"role": role, "content": content} for role, content in modelfile.messages],
        "license": list(modelfile.licenses),
    }
    try:
        source = source_of(modelfile.from_, folder)
    except WrongUsage as error:
        raise WrongUsage(f"{shown}: (line {modelfile.lines['from'][0]}): {error.message}") from None
    # Empty texts count: they take away what the base model has.
    kept = {name: value for name, value in additions.items() if value is not None and value not in ({}, [])}
    return Source(source.file, source.model, kept)


def source_of(text: str, folder: Path) -> Source:
    """A file when there is one of that name, relative to `folder`; else a model. Raises WrongUsage for neither."""
    if not text.strip():
        raise WrongUsage("--from takes the path of a GGUF file or the name of a model.")
    path = folder / Path(text).expanduser()
    if path.is_file():
        return Source(path, None)
    if path.is_dir():
        found = sorted(path.glob("*.gguf"))
        if len(found) == 1:
            return Source(found[0], None)
        what = "no GGUF file" if not found else "more than one GGUF file"
        raise WrongUsage(f"The folder {path} holds {what}; name the file itself.")
    if looks_like_path(text):
        raise WrongUsage(f"There is no file {path}.")
    return Source(None, text)


def looks_like_path(text: str) -> bool:
    """Whether somebody who writes this means a file and not a model."""
    return text.startswith((".", "/", "~")) or "\\" in text or text.lower().endswith(".gguf")


def _decode(content: bytes, what: str) -> str:
    encoding = "utf-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    try:
        return content.decode(encoding)
    except UnicodeDecodeError:
        raise WrongUsage(f"{what} is no UTF-8 text.") from None
