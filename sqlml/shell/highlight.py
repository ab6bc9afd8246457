"""Colours for what is typed, by the dialect's own scanner."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from prompt_toolkit.document import Document
from prompt_toolkit.formatted_text import StyleAndTextTuples
from prompt_toolkit.formatted_text.utils import split_lines
from prompt_toolkit.lexers import Lexer
from prompt_toolkit.styles import Style
from sqlml_dialect.tokens import Kind, Token, scan

from sqlml.shell.words import KEYWORDS, NUMBERS

STYLE = Style.from_dict(
    {
        "keyword": "ansiblue bold",
        "string": "ansigreen",
        "number": "ansicyan",
        "param": "ansimagenta",
        "comment": "ansibrightblack",
        "prompt": "ansibrightblack",
    }
)

_CLASSES = {
    Kind.STRING: "class:string",
    Kind.OPEN: "class:string",
    Kind.NUMBER: "class:number",
    Kind.PARAM: "class:param",
}


class SqlLexer(Lexer):
    """The lexer of the prompt."""

    def lex_document(self, document: Document) -> Callable[[int], StyleAndTextTuples]:
        """The coloured fragments of each line."""
        lines = [list(line) for line in split_lines(list(fragments(document.text)))]
        return lambda number: lines[number] if number < len(lines) else []


def fragments(text: str) -> Iterator[tuple[str, str]]:
    """The text in pieces of one style each; put together they are the text again."""
    position = 0
    for token in scan(text):
        if token.start > position:
            between = text[position : token.start]
            yield ("class:comment" if between.strip() else "", between)
        yield (_style(token), token.text)
        position = token.end
    rest = text[position:]
    if rest:
        yield ("class:comment" if rest.strip() else "", rest)


def _style(token: Token) -> str:
    if token.kind is Kind.OPEN and token.text.startswith("/*"):
        return "class:comment"
    if token.key in NUMBERS:
        return "class:number"
    return "class:keyword" if token.key in KEYWORDS else _CLASSES.get(token.kind, "")
