"""Modelfiles: the grammar, its errors, and printing that reads back."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.errors import InvalidRequest, RegistryError, Unsupported
from registry.modelfile import ROLES, Modelfile, parse_modelfile
from registry.modelfile_text import decode_modelfile
from registry.template_language import is_go_template

EXAMPLES = sorted((Path(__file__).parents[2] / "Modelfile-examples").glob("*.Modelfile"))


def test_a_whole_recipe_is_read() -> None:
    modelfile = parse_modelfile(
        "# a comment\n"
        "  from ./my-model.gguf  \n"
        "PARAMETER temperature 0.3\n"
        "parameter num_ctx\t8192\n"
        'PARAMETER stop "<|end|>"\n'
        "PARAMETER stop two words\n"
        'SYSTEM """\n'
        'Answer in "one" short paragraph.\n'
        '"""\n'
        "MESSAGE user What are you?\n"
        'MESSAGE assistant "A small\nlocal assistant."\n'
        "LICENSE MIT\n"
        'LICENSE """second"""\n'
    )
    assert modelfile == Modelfile(
        from_="./my-model.gguf",
        parameters={"temperature": 0.3, "num_ctx": 8192, "stop": ["<|end|>", "two words"]},
        system='\nAnswer in "one" short paragraph.\n',
        messages=[("user", "What are you?"), ("assistant", "A small\nlocal assistant.")],
        licenses=["MIT", "second"],
    )


def test_the_last_of_a_single_instruction_wins() -> None:
    modelfile = parse_modelfile("FROM a\nSYSTEM one\nSYSTEM two\nPARAMETER seed 1\nPARAMETER seed 2\n")
    assert (modelfile.system, modelfile.parameters) == ("two", {"seed": 2})


def test_windows_line_ends_and_byte_order_marks_are_taken() -> None:
    text = 'FROM a\r\nSYSTEM "x\r\ny"\r\n'
    for content in (text.encode(), text.encode("utf-8-sig"), text.encode("utf-16")):
        modelfile = parse_modelfile(decode_modelfile(content))
        assert (modelfile.from_, modelfile.system) == ("a", "x\ny")
    with pytest.raises(InvalidRequest, match="not UTF-8"):
        decode_modelfile(b"FROM \xff")


def test_a_hash_after_a_value_is_part_of_it() -> None:
    assert parse_modelfile("FROM a\nSYSTEM x # y").system == "x # y"
    with pytest.raises(InvalidRequest, match=r"\(line 2\): num_ctx must be"):
        parse_modelfile("FROM a\nPARAMETER num_ctx 4096 # x")


def test_options_that_do_nothing_any_more_are_told_and_left_out() -> None:
    modelfile = parse_modelfile("FROM a\nPARAMETER f16_kv true")
    assert modelfile.parameters == {}
    assert modelfile.ignored == ["parameter f16_kv is deprecated and does nothing"]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "no FROM line"),
        ("SYSTEM x", "no FROM line"),
        ("FROM a\n\nFORM b", r"\(line 3\): command must be one of"),
        ("FROM", r"\(line 1\): command must be one of"),
        ('FROM ""', r"\(line 1\): FROM needs a value"),
        ("FROM a\nMESSAGE tool x", r"\(line 2\): message role must be one of"),
        ("FROM a\nMESSAGE User x", r"\(line 2\): message role must be one of"),
        ("FROM a\nMESSAGE user", r"\(line 2\): MESSAGE needs"),
        ("FROM a\nPARAMETER seed", r"\(line 2\): PARAMETER needs"),
        ("FROM a\nPARAMETER sead 1", r"\(line 2\): unknown parameter 'sead'"),
        ('FROM a\nSYSTEM "open\nstill', r"\(line 2\): unexpected EOF"),
        ('FROM a\nSYSTEM """open"', r"\(line 2\): unexpected EOF"),
    ],
)
def test_an_error_names_its_line(text: str, complaint: str) -> None:
    with pytest.raises(InvalidRequest, match=complaint):
        parse_modelfile(text)


def test_files_that_belong_to_a_model_are_kept_in_their_order() -> None:
    modelfile = parse_modelfile(
        "FROM a-00001-of-00002.gguf\nFROM a-00002-of-00002.gguf\nFROM mmproj.gguf\n"
        "ADAPTER one.gguf\n\nADAPTER two.gguf\n"
        "DRAFT ./small.gguf\nREQUIRES v0.1.0\nPARSER passthrough\n"
    )
    assert modelfile.from_ == "a-00001-of-00002.gguf"
    assert modelfile.also_from == ["a-00002-of-00002.gguf", "mmproj.gguf"]
    assert modelfile.adapters == ["one.gguf", "two.gguf"]
    assert modelfile.drafts == ["./small.gguf"]
    assert (modelfile.requires, modelfile.parser) == ("0.1.0", "passthrough")
    assert modelfile.lines["from"] == [1, 2, 3]
    assert modelfile.lines["adapter"] == [4, 6]


def test_a_draft_model_is_said_once() -> None:
    assert parse_modelfile("FROM a\nPARAMETER draft_model s:1b").parameters == {"draft_model": "s:1b"}
    assert parse_modelfile("FROM a\nDRAFT s:1b").drafts == ["s:1b"]
    with pytest.raises(InvalidRequest, match=r"^\(line 3\): DRAFT and PARAMETER draft_model both say") as refused:
        parse_modelfile("FROM a\nPARAMETER draft_model s:1b\nDRAFT ./small.gguf")
    assert refused.value.facts["line"] == 3


@pytest.mark.parametrize(
    ("instruction", "error", "complaint"),
    [
        ("RENDERER qwen3-coder", Unsupported, "RENDERER qwen3-coder is not built in"),
        ("RENDERER qwen", InvalidRequest, "RENDERER 'qwen' is unknown; known are .*qwen3-coder"),
        ("PARSER harmony", Unsupported, "PARSER harmony is not built in"),
        ("PARSER none", InvalidRequest, "PARSER 'none' is unknown"),
        ("REQUIRES soon", InvalidRequest, "requires must be a valid semver"),
        ("REQUIRES 1.2", InvalidRequest, "requires must be a valid semver"),
        ("DRAFT a", InvalidRequest, "DRAFT must not reference the same local path as FROM: a"),
        ('ADAPTER ""', InvalidRequest, "ADAPTER needs a value"),
        ('PARAMETER draft_model " "', InvalidRequest, "draft_model must be a text"),
    ],
)
def test_what_cannot_be_honoured_is_refused_with_its_line(
    instruction: str, error: type[RegistryError], complaint: str
) -> None:
    with pytest.raises(error, match=rf"^\(line 3\): {complaint}") as refused:
        parse_modelfile(f"FROM a\n# a comment\n{instruction}")
    assert refused.value.facts["line"] == 3


@pytest.mark.parametrize(
    "template",
    [
        "{{ .Prompt }}",
        "{{- if .System }}x{{ end }}",
        "{{ range $i, $m := .Messages }}{{ end }}",
        "{{- /* comment */ -}}",
        "{{ if or .System .Tools }}",
        "{{ json .Tools }}",
        "{{ $x }}",
        "{{- len (slice .Messages 1) }}",
        "{{ (index .Messages 0).Content }}",
        "{{`raw`}}",
        "x{{ end }}",
        "{{ currentDate }}",
        '{{ printf "%s" .System }}',
    ],
)
def test_a_go_template_is_known_by_its_actions(template: str) -> None:
    assert is_go_template(template)
    assert parse_modelfile(f"FROM a\nTEMPLATE {template}").template == template


@pytest.mark.parametrize(
    "template",
    [
        "{% for message in messages %}{{ message['content'] }}{% endfor %}",
        "{{- messages[0].content -}}",
        "{{ bos_token }}{{ range(3) }}{{ json_args }}{{ endings }}",
        "{{ 'x' if y else 'z' }}",
        "{{ index + 1 }}{{ (not done) }}{{ len(messages) }}{{ (messages[0]).content }}{{ not ready }}",
        "plain text",
    ],
)
def test_a_jinja_template_is_taken(template: str) -> None:
    assert not is_go_template(template)
    assert parse_modelfile(f"FROM a\nTEMPLATE {template}").template == template


TEXTS = st.text(st.sampled_from('ab" \n\t#{}\\'), max_size=14) | st.text(max_size=20)
PARAMETERS = st.fixed_dictionaries(
    {},
    optional={
        "temperature": st.floats(0, 1e6),
        "seed": st.integers(-1, 2**32 - 2),
        "use_mmap": st.booleans(),
        "stop": st.lists(TEXTS.filter(bool), min_size=1, max_size=3),
    },
)


@given(
    st.none() | TEXTS,
    PARAMETERS,
    st.lists(st.tuples(st.sampled_from(ROLES), TEXTS), max_size=3),
    st.lists(TEXTS, max_size=2),
)
def test_a_printed_recipe_reads_back_as_itself(
    system: str | None, parameters: dict[str, object], messages: list[tuple[str, str]], licenses: list[str]
) -> None:
    modelfile = Modelfile("base", parameters, None, system, messages, licenses)  # type: ignore[arg-type]
    assert parse_modelfile(modelfile.render()) == modelfile


@given(
    TEXTS.filter(str.strip),
    st.lists(TEXTS.filter(str.strip), max_size=2),
    st.lists(TEXTS.filter(str.strip), max_size=2),
    st.none() | TEXTS,
    st.sampled_from([None, "0.1.0", "1.2.3-rc.1+x"]),
)
def test_every_instruction_reads_back_as_it_was_printed(
    base: str, more: list[str], adapters: list[str], template: str | None, requires: str | None
) -> None:
    modelfile = Modelfile(
        base, template=template, also_from=more, adapters=adapters, parser="passthrough", requires=requires
    )
    assert parse_modelfile(modelfile.render()) == modelfile


@pytest.mark.parametrize(
    "text", ['a docstring: """\nends', '"""\nEND\nx', "a\r\nb", "\r", '"""\n END \t\nEND_\n', 'ends """', '"', '""\n"']
)
def test_a_text_that_fits_between_no_quotes_is_printed_as_a_block(text: str) -> None:
    modelfile = Modelfile(text, {"stop": [text]}, text, text, [("user", text)], [text])
    if not text.strip():
        modelfile.from_ = "base"
    assert parse_modelfile(modelfile.render()) == modelfile


def test_the_line_where_a_template_begins_is_known() -> None:
    for text, line in (('"""one\ntwo"""', 2), ("one", 2), ('"\none"', 2)):
        assert parse_modelfile(f"FROM a\nTEMPLATE {text}").template_line == line
    assert parse_modelfile("FROM a\nTEMPLATE<<END\none\nEND").template_line == 3


def test_a_block_is_read_to_the_line_that_ends_it() -> None:
    modelfile = parse_modelfile("FROM a\nsystem<<END\n  one\n\nEND of it\n  END\nMESSAGE<<x_ user\nhi\nx_\n")
    assert modelfile.system == "  one\n\nEND of it"
    assert modelfile.messages == [("user", "hi")]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("SYSTEM<<END\nx", "the block has no END on a line of its own"),
        ("SYSTEM<<END x\nEND", "begins on the line after its END"),
        ("MESSAGE<<END\nx\nEND", "MESSAGE needs a role and a text"),
        ("SISTEM<<END\nx\nEND", "command must be one of"),
        ("SYSTEM<<\nx\n", "command must be one of"),
    ],
)
def test_a_wrong_block_is_refused_with_its_line(text: str, complaint: str) -> None:
    with pytest.raises(InvalidRequest, match=rf"\(line 2\): .*{complaint}"):
        parse_modelfile(f"FROM a\n{text}")


@given(st.text(max_size=60) | st.text(st.sampled_from('FROM SYTEPAR"\n\t#'), max_size=40))
def test_any_text_is_a_recipe_or_refused(text: str) -> None:
    try:
        parse_modelfile(text)
    except RegistryError as error:
        assert error.code in ("invalid_request", "unsupported")


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_the_examples_are_recipes_over_the_small_model(path: Path) -> None:
    modelfile = parse_modelfile(decode_modelfile(path.read_bytes()))
    assert modelfile.from_ == "smollm2:135m"
    assert modelfile.ignored == []
    assert path.read_text("utf-8").startswith("# ")


def test_there_are_examples() -> None:
    assert len(EXAMPLES) >= 3
