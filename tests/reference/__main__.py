"""``python -m tests.reference [page …]``: write the outputs of the examples into the pages, and the tables from the code."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from tests.reference.pages import INTRODUCTION, ROOT, copy_of, pages, rewritten, with_generated


def main(names: list[str]) -> None:
    """Rewrite the pages named, or all."""
    with tempfile.TemporaryDirectory() as scratch:
        prepared = Path(scratch) / "prepared"
        prepared.mkdir()
        introduction = with_generated(rewritten(INTRODUCTION, prepared))
        for number, page in enumerate(pages()):
            if names and not any(name in str(page.relative_to(ROOT)) for name in names):
                continue
            text = introduction
            if page != INTRODUCTION:
                text = with_generated(rewritten(page, copy_of(prepared, Path(scratch) / str(number))))
            if text != page.read_text(encoding="utf-8"):
                page.write_text(text, encoding="utf-8")
                print("written", page.relative_to(ROOT))


if __name__ == "__main__":
    main(sys.argv[1:])
