"""GBNF as Lark: the same language."""

from __future__ import annotations

import re

import pytest

from runner.llamacpp.gbnf import GbnfError, to_lark


def rules(source: str) -> list[str]:
    return to_lark(source).splitlines()[1:]


def test_every_character_is_a_lexeme_of_its_own() -> None:
    assert rules('root ::= "ab" [a-z]+') == ["start: r0", "r0: (/a/ /b/) (/[a-z]/)+"]


def test_rules_keep_apart_whatever_their_names_are_like() -> None:
    assert rules('root ::= a-b A_B\na-b ::= "x"\nA_B ::= "y"') == [
        "start: r0",
        "r0: r1 r2",
        "r1: (/x/)",
        "r2: (/y/)",
    ]


@pytest.mark.parametrize(
    ("written", "lark"),
    [
        (r'"\n"', r"(/\x{a}/)"), (r'"\""', r"(/\x{22}/)"), (r'"\x41"', "(/A/)"), (r'"é"', r"(/\x{e9}/)"),
        (r'"\U0001F600"', r"(/\x{1f600}/)"), ('""', '("")'), (r"[^\]\n]", r"/[^\x{5d}\x{a}]/"),
        ("[a-]", r"/[a\x{2d}]/"),
        ("[-a]", r"/[\x{2d}a]/"), (r"[\x30-9]", "/[0-9]/"), ("[/]", r"/[\x{2f}]/"), ("a{2}", "(r1){2}"),
        ("a{2,}", "(r1){2,}"),
        ("a{2,5}", "(r1){2,5}"), ("a?", "(r1)?"), ("(a | a)*", "((r1 | r1))*"), ("a | ", 'r1 | ""'),
    ],
)  # fmt: skip
def test_notation(written: str, lark: str) -> None:
    assert rules(f'root ::= {written}\na ::= "a"')[1] == f"r0: {lark}"


def test_comments_and_lines_within_parentheses_are_passed_over() -> None:
    source = '# all\nroot ::= ( # one\n  "a"\n  | "b"\n)  # end\n\nws ::= [ \\t]*\n'
    assert rules(source)[1] == "r0: ((/a/) | (/b/))"


@pytest.mark.parametrize(
    ("source", "complaint"),
    [
        ("", "no rule named root"), ('a ::= "x"', "no rule named root"), ("root ::= b", "b is used and not defined"),
        ('root ::= "x"\nroot ::= "y"', "line 2: .*defined twice"), ('root ::= ("x"', r"a \) is missing"),
        ('root ::= "x', "line 1: .*not understood"), (r'root ::= "\q"', r"the escape '\\\\q' is not known"),
        (r'root ::= "\ud800"', "is no character"), ("root ::= []", "class is empty"),
        ("root ::= *", "is expected here"),
        ("root ::= <think>", "not understood"), ("root ::= " + "(" * 70 + '"x"' + ")" * 70, "nested deeper"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_told_with_its_line(source: str, complaint: str) -> None:
    with pytest.raises(GbnfError, match=re.compile(complaint)):
        to_lark(source)
