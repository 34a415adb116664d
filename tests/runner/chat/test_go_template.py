"""The interpreter of Go's template language, against what Go itself makes of templates."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runner.chat.budget import Budget
from runner.chat.go_template.errors import GoTemplateError
from runner.chat.go_template.functions import FUNCTIONS
from runner.chat.go_template.template import GoTemplate
from runner.chat.go_template.values import GoList, from_json

# The first line holds the data, the others a template each and what Go's text/template writes, null where it fails.
DATA, *RESULTS = map(json.loads, (Path(__file__).parent / "go_results.jsonl").read_text("utf-8").splitlines())


def run(template: str, data: Any = None, budget: Budget | None = None) -> str:
    return GoTemplate(template).execute(from_json(DATA) if data is None else data, budget or Budget(1000))


@pytest.mark.parametrize(("template", "result"), RESULTS, ids=[template[:40] for template, _ in RESULTS])
def test_a_template_makes_what_it_makes_in_go(template: str, result: str | None) -> None:
    if result is None:
        with pytest.raises(GoTemplateError, match=r"^line \d+: "):
            run(template)
    else:
        assert run(template) == result


def test_numbers_are_walked_as_newer_go_does() -> None:
    assert run("{{ range $i := 3 }}{{ $i }}{{ . }} {{ else }}none{{ end }}{{ range 0 }}x{{ else }}none{{ end }}") == (
        "00 11 22 none"
    )
    assert run("{{ with .e }}a{{ else with .s }}{{ . }}{{ else }}b{{ end }}") == "hello"


def test_dates_are_those_of_the_day() -> None:
    assert re.fullmatch(r"(\d{4}-\d\d-\d\d) (\d{4}-\d\d-\d\d)", run('{{ currentDate "x" }} {{ yesterdayDate }}'))


def test_a_list_that_was_never_made_is_null_in_json_and_false() -> None:
    data = {"l": GoList(is_nil=True)}
    assert run("{{ json .l }}{{ .l }}{{ len .l }}{{ if .l }}x{{ end }}{{ eq .l nil }}", data) == "null[]0true"


@pytest.mark.parametrize(
    ("template", "line", "complaint"),
    [
        ("a\n\n{{ .x", 3, "unclosed action"),
        ("{{ if .s }}\n{{ .a }}\n", 3, "unexpected EOF"),
        ("{{/* \n\n x */}}\n{{ nosuch }}", 4, "function 'nosuch' not defined"),
        ("{{ .a }}\n{{ end }}", 2, "unexpected {{end}}"),
        ("{{ .s\n\n.a.b | nosuch }}", 3, "function 'nosuch' not defined"),
        ("x\n{{ range .c }}\n{{ .k.l }}\n{{ end }}", 3, "can't evaluate field k"),
        ("{{ define 'x' }}", 1, "unexpected"),
        ('{{ define "x" }}\n{{ .s.q }}{{ end }}\n\n{{ template "x" . }}', 2, "can't evaluate field q"),
        ("\n{{ call .s }}", 2, "function 'call' not defined"),
        ("\n{{ .a }}{{ 1i }}", 2, "bad number syntax"),
        ("{{ `a\nb` | len | nosuch }}", 2, "function 'nosuch' not defined"),
    ],
)
def test_a_complaint_names_its_line(template: str, line: int, complaint: str) -> None:
    with pytest.raises(GoTemplateError) as caught:
        run(template)
    assert (caught.value.line, complaint in caught.value.message) == (line, True), caught.value


@pytest.mark.parametrize(
    ("template", "complaint"),
    [
        ("{{ range 100000000 }}{{ range 100000000 }}{{ end }}{{ end }}", "takes too long"),
        ('{{ define "x" }}{{ template "x" . }}{{ end }}{{ template "x" . }}', "nested"),
        ("{{ $x := .s }}{{ range 100 }}{{ $x = print $x $x }}{{ end }}", "too long a text"),
        ("{{ range 100000 }}{{ $.s | printf `%999999d` }}{{ printf `%999999d` 1 }}{{ end }}", "too long a text"),
        ("{{ range 100000000 }}aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa{{ end }}", "too long"),
        ("{{ $x := .b }}{{ range 100 }}{{ $x = html $x $x | js }}{{ end }}{{ $x }}", "too long a text"),
        (
            "{{ $x := .c }}{{ range 100000 }}{{ $y := printf `%v%v%v%v` $x $x $x $x | js | urlquery }}{{ end }}",
            "too long",
        ),
        ("{{ if .t }}" * 200 + "{{ end }}" * 200, "nested more than 100 deep"),
        ("{{ " + "(" * 5000 + ".s" + ")" * 5000 + " }}", "nested more than 100 deep"),
        ("{{ if .f }}" + "{{ else if .f }}" * 3000 + "{{ end }}", "nested more than 100 deep"),
    ],
)
def test_a_template_that_wants_too_much_is_stopped(template: str, complaint: str) -> None:
    seconds = 0.3 if "takes too long".endswith(complaint) else 60
    with pytest.raises(GoTemplateError, match=complaint):
        run(template, budget=Budget(0, seconds=seconds))


def test_characters_that_were_cut_meet_again() -> None:
    assert run("{{ slice .x 0 1 }}{{ slice .x 1 }}|{{ slice .x 0 1 }}", {"x": "é"}) == "é|\ufffd"


@pytest.mark.parametrize("nested", [{"a": 1}, [1]])
def test_values_nested_beyond_measure_are_refused(nested: Any) -> None:
    for _ in range(400):
        nested = [nested]
    with pytest.raises(GoTemplateError, match="nested"):
        run("{{ .x }}", {"x": nested})
    assert run("{{ json .x }}", {"x": nested}) == "", "as with all that has no JSON"


NAMES = ["a", "b", "c", "m", "t", "f", "e", "n", "l", "s", "x", "String", "k"]
OPERANDS = st.recursive(
    st.sampled_from([f".{name}" for name in NAMES])
    | st.sampled_from(["$", ".", "$v", "nil", "true", "1", "-2", "2.5", "'c'", '"%v"', '"%08.3f"', "`x`", "$.m.x"]),
    lambda inner: st.lists(inner, min_size=1, max_size=4).map(lambda parts: f"({' '.join(parts)})"),
    max_leaves=6,
)
CALLED = st.sampled_from(sorted(FUNCTIONS.keys() - {"currentDate", "yesterdayDate"}))
PIPES = st.lists(
    st.tuples(CALLED | st.just(""), st.lists(OPERANDS, max_size=3)).map(lambda one: " ".join([one[0], *one[1]])),
    min_size=1,
    max_size=3,
).map(" | ".join)
HEADS = st.sampled_from(
    ["", "if ", "else if ", "range ", "range $i, $v := ", "range $v = ", "with ", "with $v := ", "$v := ", "$v = "]
)
ACTIONS = st.tuples(st.sampled_from(["{{ ", "{{- "]), HEADS, PIPES, st.sampled_from([" }}", " -}}"])).map("".join)
PIECES = (
    ACTIONS
    | st.sampled_from(
        ["{{ end }}", "{{ else }}", "{{ break }}", '{{ define "d" }}', '{{ template "d" . }}', "{{", "}}"]
    )
    | st.sampled_from(["{{/* c */}}", "{{`}}", '{{ "', " \n ", "text"])
    | st.text(st.sampled_from("{}-.$|()\"'`/*:=, \nab1%\\"), max_size=12)
)


@settings(max_examples=400, deadline=None)
@given(st.lists(PIECES, max_size=12).map("".join) | st.text(max_size=30))
def test_whatever_a_template_says_it_makes_a_text_or_is_refused(template: str) -> None:
    try:
        made = run("{{ $v := .c }}" + template, budget=Budget(0, seconds=0.05))
    except GoTemplateError as error:
        assert error.line >= 1
    else:
        assert made.encode().decode() == made, "nothing that is no UTF-8 goes on to the tokenizer"


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=40).map(lambda text: text.replace("{{", "{ {")))
def test_text_without_actions_is_written_as_it_is(text: str) -> None:
    assert run(text) == text


JSON_VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=10,
)


@given(JSON_VALUES)
def test_json_of_any_value_reads_back_and_is_safe_inside_html(value: Any) -> None:
    text = run("{{ json .x }}", {"x": from_json(value)})
    assert json.loads(text, parse_int=float) == value
    assert not set("<>&\u2028\u2029") & set(text)


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_number_is_shown_with_digits_that_mean_it(value: float) -> None:
    assert float(run("{{ .x }}", {"x": value})) == value
