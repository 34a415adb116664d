"""Modelfiles: the grammar, its errors, and printing that reads back."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.errors import InvalidRequest, RegistryError, Unsupported
from registry.modelfile import ROLES, Modelfile, decode_modelfile, is_go_template, parse_modelfile

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


@pytest.mark.parametrize("name", ["ADAPTER", "DRAFT", "RENDERER", "PARSER", "REQUIRES"])
def test_instructions_that_are_not_built_are_refused_with_their_line(name: str) -> None:
    with pytest.raises(Unsupported, match=rf"^\(line 2\): {name} is not supported yet") as refused:
        parse_modelfile(f"FROM a\n{name} x")
    assert refused.value.facts["line"] == 2


def test_a_second_base_is_refused() -> None:
    with pytest.raises(Unsupported, match="second FROM"):
        parse_modelfile("FROM a\nFROM b")


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
    ],
)
def test_a_go_template_is_refused_in_words(template: str) -> None:
    assert is_go_template(template)
    with pytest.raises(Unsupported, match="Go's template language"):
        parse_modelfile(f"FROM a\nTEMPLATE {template}")


@pytest.mark.parametrize(
    "template",
    [
        "{% for message in messages %}{{ message['content'] }}{% endfor %}",
        "{{- messages[0].content -}}",
        "{{ bos_token }}{{ range(3) }}{{ json_args }}{{ endings }}",
        "{{ 'x' if y else 'z' }}",
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
    rendered = modelfile.render()
    if "is left out: a Modelfile cannot hold its text." in rendered or "\r" in rendered:
        return
    assert parse_modelfile(rendered) == modelfile


def test_a_text_that_the_grammar_cannot_hold_is_left_out_in_words() -> None:
    rendered = Modelfile("base", system='a docstring: """\nends').render()
    assert "# SYSTEM is left out" in rendered
    assert parse_modelfile(rendered).system is None
    assert parse_modelfile(Modelfile("base", system='ends """').render()).system == 'ends """'


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
