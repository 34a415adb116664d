"""The Modelfile of an installed model makes the same model again."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import cast

from hypothesis import given, settings
from hypothesis import strategies as st

from registry.digest import Digest
from registry.manifest import (
    CONFIG_TYPE,
    DRAFT_LAYER,
    LICENSE_LAYER,
    MESSAGES_LAYER,
    MODEL_LAYER,
    PARAMS_LAYER,
    PROJECTOR_LAYER,
    SYSTEM_LAYER,
    TEMPLATE_LAYER,
    Layer,
    Manifest,
    ModelConfig,
)
from registry.modelfile import parse_modelfile
from registry.modelfile_of import modelfile_of
from registry.name import ModelName
from registry.store import ModelStore
from registry.stored_model import StoredModel

NAME = ModelName.parse("m")
FILES = {MODEL_LAYER: ["./m.gguf"], PROJECTOR_LAYER: ["./mmproj.gguf"]}
TEXTS = st.text(st.sampled_from('ab" \n\r\t#{}<E'), max_size=14) | st.text(max_size=20)


class Shelf:
    """A store, as far as the small files of one model are read from it."""

    def __init__(self) -> None:
        self._contents: dict[Digest, bytes] = {}

    def add(self, media_type: str, content: bytes) -> Layer:
        digest = Digest.of(content)
        self._contents[digest] = content
        return Layer(media_type, digest, len(content))

    def read_blob(self, digest: Digest) -> bytes:
        return self._contents[digest]


def installed(config: ModelConfig, *texts: tuple[str, str]) -> StoredModel:
    """A model of that config and these layers."""
    shelf = Shelf()
    layers = [shelf.add(media_type, text.encode()) for media_type, text in ((MODEL_LAYER, "weights"), *texts)]
    manifest = Manifest(shelf.add(CONFIG_TYPE, config.to_bytes()), tuple(layers))
    return StoredModel(cast("ModelStore", shelf), NAME, "ab" * 32, datetime.now(UTC), manifest)


@settings(max_examples=60, deadline=None)
@given(
    TEXTS,
    TEXTS,
    st.lists(TEXTS, max_size=2),
    st.lists(st.tuples(st.sampled_from(["user", "system"]), TEXTS), max_size=2),
)
def test_whatever_texts_a_model_has_are_read_back(
    system: str, template: str, licenses: list[str], turns: list[tuple[str, str]]
) -> None:
    messages = json.dumps([{"role": role, "content": content} for role, content in turns])
    model = installed(
        ModelConfig(requires="0.1.0", requires_program="puna"),
        (SYSTEM_LAYER, system),
        (TEMPLATE_LAYER, template),
        (MESSAGES_LAYER, messages),
        *((LICENSE_LAYER, text) for text in licenses),
    )
    modelfile, left_out = modelfile_of(model, FILES)
    assert left_out == ()
    read = parse_modelfile(modelfile.render())
    assert read == modelfile
    assert (read.system, read.template, read.licenses, read.messages) == (system, template, licenses, turns)
    assert (read.from_, read.also_from, read.requires) == ("./m.gguf", ["./mmproj.gguf"], "0.1.0")


def test_what_a_modelfile_here_cannot_tell_is_left_out_in_words() -> None:
    model = installed(
        ModelConfig(renderer="qwen3-coder", parser="qwen3-coder", requires="0.14.0"),
        (TEMPLATE_LAYER, "{{ .Prompt }}"),
        (PARAMS_LAYER, '{"top_p": 0.5, "vendor": 1, "draft_model": "small", "stop": "x"}'),
        (MESSAGES_LAYER, '[{"role": "tool", "content": "1"}, {"role": "user", "content": "2"}]'),
    )
    modelfile, left_out = modelfile_of(model, {MODEL_LAYER: ["a.gguf"]})
    assert (modelfile.template, modelfile.renderer, modelfile.parser, modelfile.requires) == (None, None, None, None)
    assert modelfile.parameters == {"top_p": 0.5, "stop": ["x"]} and modelfile.drafts == ["small"]
    assert modelfile.messages == [("user", "2")]
    assert left_out == (
        "the parameter vendor 1",
        "messages of other roles than system, user and assistant",
        "the renderer 'qwen3-coder', and the template that stands in for it",
        "the parser 'qwen3-coder'",
    )
    assert parse_modelfile(modelfile.render()) == modelfile


def test_a_draft_model_is_told_as_its_files_or_by_its_name() -> None:
    files = {MODEL_LAYER: ["m.gguf"], DRAFT_LAYER: ["a.gguf", "b.gguf"]}
    modelfile, left_out = modelfile_of(installed(ModelConfig()), files)
    assert (modelfile.drafts, left_out) == (["a.gguf", "b.gguf"], ())
    modelfile, left_out = modelfile_of(installed(ModelConfig(), (PARAMS_LAYER, '{"draft_model": "s:1b"}')), files)
    assert left_out == ("the draft model in its files, in the place of which 's:1b' is used",)
    assert modelfile.render() == "FROM m.gguf\nDRAFT s:1b\n"
    assert parse_modelfile(modelfile.render()) == modelfile
