"""From configuration text to statements, as keepalived 2.2.7 reads it."""

from __future__ import annotations

import pytest

from xlvs.keepalived import reader
from xlvs.keepalived.files import Memory, braces
from xlvs.keepalived.parse import parse
from xlvs.keepalived.reader import Reader
from xlvs.keepalived.words import Unmatched, pieces, split, split_escaped


def statements(text: str, config_id: str = "vm", **others: str) -> list[str]:
    files = Memory({"/etc/k/main.conf": text, **{f"/etc/k/{name}": body for name, body in others.items()}})
    messages: list[object] = []
    found = [s.text for s in Reader(files, config_id, messages.append).statements("/etc/k/main.conf")]
    return [*found, *(str(message) for message in messages)]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('aaa "b c" d', ["aaa", "b c", "d"]),
        ('"q1 q2"z foo', ["q1 q2", "z", "foo"]),
        ('q1" q2" foo', ["q1", " q2", "foo"]),
        (r"q1\ q2 foo", ["q1\\", "q2", "foo"]),
        ("'single q' x", ["'single", "q'", "x"]),
    ],
)
def test_words(text: str, words: list[str]) -> None:
    assert split(text) == words


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('abcd" efg h jkl "mnop', ["abcd efg h jkl mnop"]),
        ('abcd "efg h jkl" mnop', ["abcd", "efg h jkl", "mnop"]),
        (r"\x41\102\cA z\ y '\'' \n \"", ["AB\x01", "z y", "'", "\n", '"']),
        ("a '' b", ["a", "", "b"]),
    ],
)
def test_words_with_escapes(text: str, words: list[str]) -> None:
    assert split_escaped(text) == words


def test_an_open_quote_is_told() -> None:
    with pytest.raises(Unmatched) as caught:
        split('a b "c d')
    assert caught.value.words == ["a", "b"]


def test_braces_cut_a_line() -> None:
    assert pieces('w12 { inner2 "a { b" } x') == ["w12 {", 'inner2 "a { b"', "}", "x"]
    assert pieces("${UNDEF}f") == ["$ {", "UNDEF", "}", "f"]


def test_comments_end_where_the_line_does() -> None:
    assert statements('a!b\n "a # b" # c\n\n  # d') == ["a", '"a # b"']


def test_conditions() -> None:
    assert statements("@vm a\n@other b\n@^other c\n@^vm d\n@vm @^other e") == ["a", "c", "e"]


def test_parameters_are_replaced_when_they_are_used() -> None:
    text = "$A=10.${B}\n$B=0\n${A}.1\n$B=1\n${A}.1\n$A x\n${C}\n$C\nx$B"
    assert statements(text) == ["10.0.1", "10.1.1", "10.1 x", "$ {", "C", "}", "$C", "x1"]


def test_definitions_of_many_lines_nest() -> None:
    inner = "$R= \\\n r${V}.${N} \\\n# a comment\n@vm s \\\n@no t\n"
    outer = "$W= \\\n v${V} { \\\n $N=1 \\\n $R \\\n $N=2 \\\n $R \\\n}\n"
    assert statements(inner + outer + "$V=7\n$W\n") == [
        "v7 {",
        "r7.1",
        "s",
        "r7.2",
        "s",
        "}",
    ]


def test_sequences_and_lists() -> None:
    assert statements("~SEQ(A, 1, 3) s${A}") == ["s1", "s2", "s3"]
    assert statements("~SEQ(A,3,1) s$A\n~SEQ(B,-2) t${B}") == ["s3", "s2", "s1", "t-1", "t-2"]
    assert statements("~SEQx(B, 0x8, 0x2, 0x0c) t${B}") == ["t8", "ta", "tc"]
    assert statements("~LST({E,F}, {a,b},{c,d}) ~SEQ(G,1,2) v${E}-${F}${G}") == [
        "va-b1",
        "va-b2",
        "vc-d1",
        "vc-d2",
    ]
    assert "Invalid ~SEQ specification" in statements("~SEQ(1,2")[0]
    assert "Invalid ~LST specification" in statements("~LST(J) x")[0]


def test_includes_are_found_beside_the_including_file() -> None:
    found = statements(
        "a\ninclude sub/*.conf\ninclude {x,y}\nb",
        **{"sub/1.conf": "one\ninclude two\n${_PWD}", "sub/two": "two", "x": "x1", "y": "y1"},
    )
    assert found == ["a", "one", "two", "/etc/k/sub", "x1", "y1", "b"]


def test_braces_expand_as_csh_does() -> None:
    assert braces("{foo/{,cat,dog},bar}") == ["foo/", "foo/cat", "foo/dog", "bar"]
    assert braces("a{b") == ["a{b"]


def test_a_missing_include_is_told_and_read_over() -> None:
    outcome = parse("/m", Memory({"/m": "include nothing\n"}))
    assert outcome.config is not None
    assert outcome.status == 0
    assert ["nothing" in message.text for message in outcome.messages] == [True]


@pytest.mark.parametrize(
    "text",
    [
        "$A=${A}x\n${A}",
        "$A=${B}${B}${B}\n$B=${A}${A}${A}\n${A}",
        "include m",
        "$A= \\\n $A \\\n x\n$A",
        "~SEQ(A,1,999999999999) x",
        "~SEQ(A,1,999) ~SEQ(B,1,9999) ~SEQ(C,1,9999) ",
    ],
)
def test_what_multiplies_without_end_ends(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader, "MOST", 20_000)
    assert parse("/m", Memory({"/m": text})).messages


def test_a_file_that_is_not_there() -> None:
    outcome = parse("/nothing", Memory({}))
    assert outcome.config is None
    assert outcome.messages[0].fatal
