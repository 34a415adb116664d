"""`puna create`: make a model from a Modelfile, from files or from another model."""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from cli.client import CHUNK_BYTES, DaemonClient
from cli.commands.model_files import adapter_files, is_checkpoint, model_files
from cli.commands.modelfile_place import ModelfilePlace
from cli.connect import connect
from cli.errors import ApiError, WrongUsage
from cli.output import note
from cli.progress import ProgressView, follow, progress_view
from cli.wire import Json

TYPE_CHECKING = False
if TYPE_CHECKING:
    from registry.modelfile import Modelfile

DEFAULT_MODELFILE = "Modelfile"
GGUF_MAGIC = b"GGUF"


@dataclass(frozen=True, slots=True)
class Source:
    """What a model is made from: files here, or the name of a model; and what else it is given."""

    model: str | None
    files: Mapping[str, Path] = field(default_factory=dict)
    """By the name that the daemon is told."""
    adapters: Mapping[str, Path] = field(default_factory=dict)
    drafts: Mapping[str, Path] = field(default_factory=dict)
    """A draft model's files; one that is named is among the parameters."""
    additions: Json = field(default_factory=dict)
    """Fields of the API's request: `system`, `template`, `parameters`, `messages`, `license`."""
    place: ModelfilePlace | None = None
    """Where all this stands, if in a Modelfile."""


@dataclass(frozen=True, slots=True)
class Quantization:
    """The types that weights are brought into, and what tells which of them matter most."""

    file_type: str | None
    imatrix: Path | None = None
    calibration: Path | None = None
    draft_type: str | None = None


def quantization_of(
    quantize: str | None, imatrix: str | None, calibrate: str | None, draft_quantize: str | None
) -> Quantization:
    """Raises WrongUsage for options that do not go together."""
    if imatrix is not None and calibrate is not None:
        raise WrongUsage("--imatrix and --calibrate exclude each other: a matrix is given, or computed from a text.")
    if quantize is None and (imatrix is not None or calibrate is not None):
        raise WrongUsage("--imatrix and --calibrate go with --quantize.")
    matrix, text = (Path(one).expanduser() if one is not None else None for one in (imatrix, calibrate))
    return Quantization(quantize, matrix, text, draft_quantize)


def create(name: str, modelfile: str | None, origin: str | None, quantization: Quantization | None = None) -> None:
    """Create model `name` from a Modelfile (`-` is standard input) or from `origin`, files or a model's name."""
    if modelfile is not None and origin is not None:
        raise WrongUsage("--file and --from exclude each other: a Modelfile says itself what it starts from.")
    source = source_of(origin, Path.cwd()) if origin is not None else read_modelfile(modelfile or DEFAULT_MODELFILE)
    try:
        create_model(connect(), name, source, quantization)
    except ApiError as error:
        raise (source.place.with_line(error) if source.place is not None else error) from None


def create_model(client: DaemonClient, name: str, source: Source, quantization: Quantization | None = None) -> None:
    """Send what is needed and follow the creation to its end."""
    recipe: Json = {"model": name, **source.additions}
    if source.model is not None:
        recipe["from"] = source.model
    groups = {"files": source.files, "adapters": source.adapters, "draft_files": source.drafts}
    with closing(progress_view()) as view:
        for group, files in groups.items():
            if files:
                is_gguf = not is_checkpoint(files)
                recipe[group] = {told: upload(client, file, view, is_gguf=is_gguf) for told, file in files.items()}
        if quantization is not None:
            types = {"quantize": quantization.file_type, "draft_quantize": quantization.draft_type}
            recipe |= {field: file_type for field, file_type in types.items() if file_type is not None}
            for field, path in (("imatrix", quantization.imatrix), ("calibration", quantization.calibration)):
                if path is not None:
                    recipe[field] = upload(client, path, view, is_gguf=False)
        with client.create(recipe) as records:
            follow(records, view)


def upload(client: DaemonClient, path: Path, view: ProgressView, *, is_gguf: bool = True) -> str:
    """The digest of a file that the daemon has when this returns."""
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            if is_gguf and file.read(len(GGUF_MAGIC)) != GGUF_MAGIC:
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
    from registry.modelfile_text import decode_modelfile

    if place == "-":
        content, folder, shown = sys.stdin.buffer.read(), Path.cwd(), "standard input"
    else:
        path = Path(place).expanduser()
        if path.is_dir():
            path /= DEFAULT_MODELFILE
        try:
            content, folder, shown = path.read_bytes(), path.parent, str(path)
        except OSError as error:
            hint = (
                " Name one with -f, or start from a file or a model with --from." if place == DEFAULT_MODELFILE else ""
            )
            raise WrongUsage(f"The Modelfile {path} cannot be read ({error.strerror}).{hint}") from None
    try:
        modelfile = parse_modelfile(decode_modelfile(content))
    except RegistryError as error:
        raise WrongUsage(f"{shown}: {error.message}") from None
    for told in modelfile.ignored:
        note(f"{shown}: {told}")
    try:
        return _source_of_modelfile(modelfile, folder, shown)
    except WrongUsage as error:
        raise WrongUsage(f"{shown}: {error}") from None


def source_of(text: str, folder: Path) -> Source:
    """Files when there is something of that name, relative to `folder`; else a model. Raises WrongUsage for neither."""
    if not text.strip():
        raise WrongUsage("--from takes the path of a file or folder, or the name of a model.")
    path = folder / Path(text).expanduser()
    if path.exists():
        return Source(None, _told(model_files(path)))
    if looks_like_path(text):
        raise WrongUsage(f"There is no file {path}.")
    return Source(text)


def looks_like_path(text: str) -> bool:
    """Whether somebody who writes this means a file and not a model."""
    # The tag of a model's name may be the name of a file.
    is_file_name = text.lower().endswith((".gguf", ".safetensors")) and ":" not in text
    return text.startswith((".", "/", "~")) or "\\" in text or is_file_name


def _source_of_modelfile(modelfile: Modelfile, folder: Path, shown: str) -> Source:
    place = _Place(modelfile.lines, folder)
    with place.line("from", 0):
        first = source_of(modelfile.from_, folder)
    named_draft, drafts = place.draft(modelfile.drafts)
    additions = {
        "template": modelfile.template,
        "parser": modelfile.parser,
        "requires": modelfile.requires,
        "system": modelfile.system,
        "parameters": {**modelfile.parameters, **named_draft},
        "messages": [{"role": role, "content": content} for role, content in modelfile.messages],
        "license": list(modelfile.licenses),
    }
    return Source(
        first.model,
        {**first.files, **place.files("from", modelfile.also_from, start=1, known=first.files)},
        place.files("adapter", modelfile.adapters, find=adapter_files),
        drafts,
        # Empty texts count: they take away what the base model has.
        {name: value for name, value in additions.items() if value is not None and value not in ({}, [])},
        ModelfilePlace(shown, modelfile.lines, modelfile.template_line),
    )


class _Place:
    """Where a Modelfile's instructions stand, and its folder."""

    def __init__(self, lines: Mapping[str, Sequence[int]], folder: Path) -> None:
        self._lines = lines
        self._folder = folder

    def files(
        self,
        instruction: str,
        texts: Sequence[str],
        *,
        start: int = 0,
        known: Mapping[str, Path] | None = None,
        find: Callable[[Path], dict[str, Path]] = model_files,
    ) -> dict[str, Path]:
        """The files that the lines of an instruction name, under names that differ from one another."""
        found: dict[str, Path] = {}
        for number, text in enumerate(texts, start=start):
            with self.line(instruction, number):
                files = _told(find(self._folder / Path(text).expanduser()))
                # The files of one adapter belong together by their folder.
                is_taken = any(name in found or name in (known or {}) for name in files)
                found |= {f"{number}/{name}" if is_taken else name: file for name, file in files.items()}
        return found

    def draft(self, texts: Sequence[str]) -> tuple[dict[str, str], dict[str, Path]]:
        """The parameter that names the model meant by DRAFT; or, when that means files, those."""
        if len(texts) == 1:
            with self.line("draft", 0):
                model = source_of(texts[0], self._folder).model
            if model is not None:
                return {"draft_model": model}, {}
        return {}, self.files("draft", texts)

    @contextmanager
    def line(self, instruction: str, number: int) -> Iterator[None]:
        """Complaints name the line."""
        try:
            yield
        except WrongUsage as error:
            raise WrongUsage(f"(line {self._lines[instruction][number]}): {error}") from None


def _told(files: Mapping[str, Path]) -> dict[str, Path]:
    # A name need not be text; what the daemon is told of it is only for people.
    return {name.encode("utf-8", "replace").decode(): file for name, file in files.items()}
