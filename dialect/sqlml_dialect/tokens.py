"""Text to tokens, and a script to statements.

The scanner is our own and small, on purpose.  sqlglot's tokenizer cannot be used for text that must reach the database byte
for byte: it fuses words into one token, refuses texts that DuckDB takes, and changes between releases.  This one follows
DuckDB's lexer (strings, E'' escapes, dollar quotes, backticks, nested comments, names of any script, Unicode spaces) and
accepts every text: what it cannot end, such as an unclosed string, becomes a token of kind OPEN that runs to the end.

Two regular expressions do the work.  ``scan`` yields every token of a statement that may be ours; ``split_statements`` runs
over boring text in large steps and only finds where statements end, so that a plain script costs little.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from enum import Enum
from functools import cache
from typing import NamedTuple

SPACES = "\t\n\v\f\r \u00a0\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u200b\u202f\u205f\u2060\u3000\ufeff"
"""What DuckDB takes as white space."""

_HIGH = r"\x80-\x9f\xa1-\u1fff\u200c-\u202e\u2030-\u205e\u2061-\u2fff\u3001-\ufefe\uff00-\U0010ffff"
_NUMBER = r"0[xX][0-9a-fA-F_]++|0[bB][01_]++|(?:[0-9][0-9_]*+(?:\.(?!\.)[0-9_]*+)?|\.[0-9][0-9_]*+)(?:[eE][+-]?[0-9][0-9_]*+)?"
_STRING = r"[eE]'(?:[^'\\]|\\.|'')*+'|'(?:[^']|'')*+'"
_QUOTED = r'"(?:[^"]|"")*+"|`(?:[^`]|``)*+`'


class _Patterns:
    """The two expressions; ``high`` are the characters beyond ASCII that names may have, costly to compile for nothing."""

    def __init__(self, spaces: str, high: str) -> None:
        blank = f"[{re.escape(spaces)}]"
        word = rf"[A-Za-z_{high}][A-Za-z0-9_${high}]*+"
        tag = rf"(?:[A-Za-z_{high}][A-Za-z0-9_{high}]*+)?"
        self.token = re.compile(
            rf"""
            (?:{blank}++|--[^\r\n]*+)*+
            (?: (?P<word>(?![eE]'){word})
              | (?P<number>{_NUMBER})
              | (?P<string>{_STRING}|\$(?P<tag>{tag})\$.*?\$(?P=tag)\$)
              | (?P<quoted>{_QUOTED})
              | (?P<comment>/\*)
              | (?P<open>[eE]?'.*+|["`].*+|\${tag}\$.*+)
              | (?P<param>\?[0-9]*+|\$[0-9]++|\${word})
              | (?P<symbol>::|:=|=>|->>|->|<=|>=|<>|!=|==|\|\||\*\*|//(?!\*)|.)
              | (?P<end>\Z)
            )
            """,
            re.DOTALL | re.VERBOSE,
        )
        self.step = re.compile(
            rf"""
              (?P<boring>(?:(?![eE]'){word}|[^'"`$;?()/\-A-Za-z_{high}]++|-(?!-)|/(?!\*))++)
            | (?P<blank>--[^\r\n]*+)
            | (?P<solid>{_STRING}|{_QUOTED}|\$(?P<tag>{tag})\$.*?\$(?P=tag)\$)
            | (?P<comment>/\*)
            | (?P<open>[eE]?'.*+|["`].*+|\${tag}\$.*+)
            | (?P<param>\?[0-9]*+)
            | (?P<symbol>.)
            """,
            re.DOTALL | re.VERBOSE,
        )


@cache
def _patterns(is_ascii: bool) -> _Patterns:
    """The expressions for texts of ASCII only, or for any."""
    return _Patterns("".join(filter(str.isascii, SPACES)), "") if is_ascii else _Patterns(SPACES, _HIGH)


_COMMENT_EDGE = re.compile(r"/\*|\*/")


class Kind(Enum):
    """What a token is; OPEN is a string, name or comment that is never closed, END stands after the last token."""

    WORD = "word"
    QUOTED = "quoted"
    STRING = "string"
    NUMBER = "number"
    PARAM = "param"
    SYMBOL = "symbol"
    OPEN = "open"
    END = "end"


_KINDS = {kind.value: kind for kind in Kind}


class Token(NamedTuple):
    """One token; ``key`` is what grammar compares: an unquoted word in capitals, a symbol itself, else empty.

    Capitals of ASCII letters only: ``ſet`` is no ``SET``.
    """

    kind: Kind
    text: str
    start: int
    end: int
    key: str = ""


class Piece(NamedTuple):
    """One statement of a script: its place without blanks, comments and the semicolon around it, and its count of ``?``."""

    start: int
    end: int
    params: int


def words(text: str) -> frozenset[str]:
    """The words of a text as a set: how this package writes its lists of keywords."""
    return frozenset(text.split())


def scan(text: str, start: int = 0, end: int | None = None) -> Iterator[Token]:
    """The tokens of a part of a text, without blanks and comments; never fails."""
    stop = len(text) if end is None else end
    match_at = _patterns(text.isascii()).token.match
    while match := match_at(text, start, stop):
        name = match.lastgroup or ""
        if name == "end":
            return
        begin, start = match.span(name)
        written = text[begin:start]
        if name == "comment":
            start, closed = comment_end(text, start, stop)
            if not closed:
                yield Token(Kind.OPEN, text[begin:stop], begin, stop)
        elif name == "word":
            yield Token(Kind.WORD, written, begin, start, written.upper() if written.isascii() else written)
        elif name == "symbol":
            yield Token(Kind.SYMBOL, written, begin, start, written)
        else:
            yield Token(_KINDS[name], written, begin, start)


def split_statements(text: str) -> list[Piece]:
    """The statements of a script: cut at each ``;`` outside strings, comments and parentheses, empty ones left out."""
    pieces: list[Piece] = []
    position, depth, params = 0, 0, 0
    first, last = -1, -1
    match_at = _patterns(text.isascii()).step.match
    while position < len(text):
        match = match_at(text, position)
        assert match is not None
        name, begin, position = match.lastgroup, position, match.end()
        if name == "blank":
            continue
        if name == "comment":
            position, closed = comment_end(text, position, len(text))
            if closed:
                continue
        elif name == "symbol":
            symbol = text[begin]
            if symbol == ";" and not depth:
                if first >= 0:
                    pieces.append(Piece(first, last, params))
                first, params = -1, 0
                continue
            depth = max(depth + (symbol == "(") - (symbol == ")"), 0)
        elif name == "param":
            params += position - begin == 1
        elif name == "boring":
            shown = match.group().strip(SPACES)
            if not shown:
                continue
            begin = text.index(shown, begin)
            last = begin + len(shown)
            first = begin if first < 0 else first
            continue
        first = begin if first < 0 else first
        last = position
    if first >= 0:
        pieces.append(Piece(first, last, params))
    return pieces


def comment_end(text: str, position: int, stop: int) -> tuple[int, bool]:
    """Where the block comment that was opened before ``position`` ends, inner ones counted, and whether it does."""
    depth = 1
    while depth:
        edge = _COMMENT_EDGE.search(text, position, stop)
        if edge is None:
            return stop, False
        depth += 1 if edge.group() == "/*" else -1
        position = edge.end()
    return position, True


def string_value(token_text: str) -> str:
    """The text that a string literal means, whichever way it is quoted."""
    if token_text.startswith("$"):
        mark = token_text.index("$", 1) + 1
        return token_text[mark:-mark]
    if token_text.startswith("'"):
        return token_text[1:-1].replace("''", "'")
    return _ESCAPE.sub(_unescape, token_text[2:-1])


def name_value(token: Token) -> str:
    """The name that a word or a quoted name means."""
    if token.kind is not Kind.QUOTED:
        return token.text
    mark = token.text[0]
    return token.text[1:-1].replace(mark * 2, mark)


_ESCAPE = re.compile(r"''|\\(?:x[0-9a-fA-F]{1,2}|u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8}|[0-7]{1,3}|.)", re.DOTALL)
_ESCAPED = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}


def _unescape(match: re.Match[str]) -> str:
    """One escape of an E'' string."""
    code = match.group()[1:]
    if code[0] in "xuU" and len(code) > 1:
        number = int(code[1:], 16)
        return chr(number) if number < 0x110000 else match.group()
    if code[0] in "01234567":
        return chr(int(code, 8))
    return _ESCAPED.get(code, code)
