"""Names of files in a statement: the server would look for a relative one in its own folder, not in the guest's."""

from __future__ import annotations

import os
from collections.abc import Iterator

from sqlml_dialect.tokens import Token, scan, words

from sqlml.errors import NotSupportedError

_BEFORE = words("FROM JOIN")
_BEFORE_IN = {
    "COPY": words("TO"), "EXPORT": words("TO DATABASE"), "IMPORT": words("DATABASE"), "ATTACH": words("ATTACH DATABASE EXISTS")
}  # fmt: skip
"""Words after which a string names a file; in statements that begin with a word, more of them."""
_PLAIN = words("EXTRACT SUBSTRING TRIM OVERLAY POSITION")
"""Functions in whose brackets FROM comes before a plain text."""
_READERS = ("READ_", "PARQUET_", "SNIFF_", "GLOB")
"""How functions are called whose first strings name files."""


def check_paths(text: str, folder: str) -> None:
    """``NotSupportedError`` for a relative name of a file, unless the server's folder is this one."""
    here = os.getcwd()
    if os.path.realpath(folder) == os.path.realpath(here):
        return
    for token in _files(text):
        name = token.text[1:-1].replace("''", "'")
        if name and not os.path.isabs(name) and "://" not in name and not name.startswith("~"):
            raise NotSupportedError(
                f"{token.text} would be looked for in the folder of the server that has the database open, {folder}",
                source=text, span=(token.start, token.end), hint=f"write the whole path: '{os.path.join(here, name)}'",
            )  # fmt: skip


def _files(text: str) -> Iterator[Token]:
    """The strings of a text that name files."""
    open_: list[str] = []  # of each bracket, what stands before it
    first, last, before_last = "", "", ""
    for token in scan(text):
        if token.text in "([{":
            is_list = token.text == "[" and last == "(" and bool(open_)
            open_.append(f"{open_[-1]}[" if is_list else last if token.text == "(" else "")
        elif token.text in ")]}" and open_:
            open_.pop()
        elif token.text == ";" and not open_:
            first = last = before_last = ""
            continue
        elif token.text.startswith("'") and _names_file(first, before_last, last, open_[-1] if open_ else ""):
            yield token
        first = first or token.key
        before_last, last = last, token.key or token.text


def _names_file(first: str, before_last: str, last: str, inside: str) -> bool:
    """Whether a string is a file's name, by the statement's first word, the two tokens before it, and the bracket it is in."""
    if inside.startswith(_READERS):
        return last == "(" or (inside.endswith("[") and last in ("[", ","))
    if last in _BEFORE:
        return inside not in _PLAIN and before_last != "DISTINCT"
    return last in _BEFORE_IN.get(first, ())
