"""Every example of the reference runs and gives what the page shows; every table is what the code says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from sqlml_dialect import KINDS
from sqlml_dialect.table_functions import TABLE_FUNCTIONS

from tests.reference.pages import INTRODUCTION, ROOT, copy_of, pages, prepare, rewritten, same, with_generated

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prepare(tmp_path_factory.mktemp("reference"))


@pytest.mark.parametrize("page", pages(), ids=lambda page: page.relative_to(ROOT).as_posix())
def test_a_page_is_true(page: Path, prepared: Path, tmp_path: Path) -> None:
    text = page.read_text(encoding="utf-8")
    folder = tmp_path if page == INTRODUCTION else copy_of(prepared, tmp_path)
    found = with_generated(rewritten(page, folder))
    assert same(text, found), f"{page.name}: run python -m tests.reference {page.name}\n{found}"


def test_everything_has_its_page() -> None:
    headings = {match for page in pages() for match in re.findall(r"^# (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)}
    statements = {kind.replace("_", " ").upper() for kind in KINDS.values()}
    known = {heading.upper() for heading in headings}
    wholes = {kind for kind in statements if kind.endswith((" ENDPOINT", " KEY"))}
    missing = [
        kind
        for kind in sorted(statements)
        if not any((kind if kind in wholes else kind.split()[0]) in heading for heading in known)
    ]
    missing += [name for name in sorted(TABLE_FUNCTIONS) if name.upper() not in known]
    assert missing == []
