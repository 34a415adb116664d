"""What a new model is to be made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath, PureWindowsPath

from registry.adapter_files import adapter_checkpoints
from registry.digest import Digest
from registry.errors import InvalidName, InvalidRequest
from registry.file_types import check_has_matrix, check_quantizable_to
from registry.name import ModelName
from registry.parameters import DRAFT_PARAMETER, REMOVED, ParameterValue, check_parameter
from registry.prompt_formats import check_parser, check_renderer
from registry.requirement import check_requirement

MAX_FILES = 4096
CHECKPOINT_SUFFIX = ".safetensors"


@dataclass(frozen=True)
class Recipe:
    """A model to be made: one base, and what is said over it. None and empty leave the base's."""

    name: ModelName
    from_model: ModelName | None = None
    files: Mapping[str, Digest] = field(default_factory=dict)
    """Relative path of each file, and the digest under which it was uploaded.

    GGUF files (a model or all of its shards, and projectors), or a checkpoint: safetensors with
    their configuration and tokenizer. Beside `from_model` only projectors.
    """
    adapters: Mapping[str, Digest] = field(default_factory=dict)
    """LoRA files, as `files`; added to the base's."""
    draft_files: Mapping[str, Digest] = field(default_factory=dict)
    """A smaller model that guesses ahead, as `files`; replaces the base's, as naming one in `parameters` does."""
    quantize: str | None = None
    """The type that the weights are brought into, in any case."""
    draft_quantize: str | None = None
    """The same for the draft model."""
    imatrix: Digest | None = None
    """An uploaded importance matrix of llama.cpp's, for `quantize`."""
    calibration: Digest | None = None
    """An uploaded text that an importance matrix is computed from, instead of `imatrix`."""
    template: str | None = None
    """Replaces."""
    system: str | None = None
    """Replaces."""
    parameters: Mapping[str, object] = field(default_factory=dict)
    """Merged over the base's."""
    messages: Sequence[tuple[str, str]] = ()
    """Role and text; replace."""
    licenses: Sequence[str] = ()
    """Added."""
    renderer: str | None = None
    parser: str | None = None
    requires: str | None = None
    """The least version of Puna that can use the model."""

    @property
    def draft_model(self) -> ModelName | None:
        """The model that guesses ahead, when a parameter names it. Raises InvalidName."""
        name = self.parameters.get(DRAFT_PARAMETER)
        return ModelName.parse(name) if isinstance(name, str) and name.strip() else None

    @property
    def models(self) -> tuple[ModelName, ...]:
        """The models that have to be here for it, in the order of their need. Raises InvalidName."""
        return tuple(name for name in (self.from_model, self.draft_model) if name is not None)

    @property
    def is_checkpoint(self) -> bool:
        """Whether the files are to be converted."""
        return any(path.lower().endswith(CHECKPOINT_SUFFIX) for path in self.files)


def check_recipe(recipe: Recipe) -> None:
    """Raises InvalidRequest or Unsupported for what can be told without looking at the store."""
    if recipe.from_model is None and not recipe.files:
        raise InvalidRequest("neither 'from' or 'files' was specified")
    for name in ("files", "adapters", "draft_files"):
        _check_paths(getattr(recipe, name), name)
    if recipe.from_model is not None and recipe.is_checkpoint:
        raise InvalidRequest("A model is made from another model or from a checkpoint, not from both.", field="files")
    _check_draft(recipe)
    _check_quantization(recipe)
    adapter_checkpoints(recipe.adapters)
    if recipe.renderer:
        check_renderer(recipe.renderer)
    if recipe.parser:
        check_parser(recipe.parser)
    check_requirement(recipe.requires or "")
    checked_parameters(recipe.parameters)


def _check_draft(recipe: Recipe) -> None:
    try:
        named = recipe.draft_model
    except InvalidName as error:
        raise InvalidRequest(f"{DRAFT_PARAMETER}: {error.message}", field=f"parameters.{DRAFT_PARAMETER}") from None
    if named is None:
        return
    if recipe.draft_files:
        raise InvalidRequest(
            f"The draft model is given as files, and {DRAFT_PARAMETER} names {named.short}; say one of the two.",
            field="draft_files",
        )
    if recipe.draft_quantize:
        raise InvalidRequest(
            f"The draft model {named.short} is used as it is; only one that is given as files is quantized.",
            field="draft_quantize",
        )


def _check_quantization(recipe: Recipe) -> None:
    if recipe.imatrix is not None and recipe.calibration is not None:
        raise InvalidRequest("An importance matrix is given, or computed from a text; not both.", field="calibration")
    has_matrix = recipe.imatrix is not None or recipe.calibration is not None
    if recipe.quantize:
        name = check_quantizable_to(recipe.quantize)
        if not has_matrix:
            check_has_matrix(name)
    if recipe.draft_quantize:
        check_has_matrix(check_quantizable_to(recipe.draft_quantize, "draft_quantize"), "draft_quantize")
    if has_matrix and not recipe.quantize:
        field = "imatrix" if recipe.imatrix is not None else "calibration"
        raise InvalidRequest("An importance matrix is for quantizing: say `quantize` with it.", field=field)


def checked_parameters(parameters: Mapping[str, object]) -> dict[str, ParameterValue]:
    """The parameters that mean something, in their types. Raises InvalidRequest."""
    return {
        name: check_parameter(name, value)
        for name, value in parameters.items()
        if value is not None and name not in REMOVED
    }


def _check_paths(paths: Mapping[str, Digest], field: str) -> None:
    if len(paths) > MAX_FILES:
        raise InvalidRequest(f"A model is made of at most {MAX_FILES} files.", field=field)
    for path in paths:
        posix, windows = PurePosixPath(path), PureWindowsPath(path)
        is_anchored = posix.is_absolute() or windows.anchor
        if not path or "\0" in path or is_anchored or ".." in posix.parts or ".." in windows.parts:
            raise InvalidRequest("file path must be relative", field=field)
