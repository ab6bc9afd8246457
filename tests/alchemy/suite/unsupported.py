"""What of the suite does not work over DuckDB is in ``unsupported.txt``, each group with its reason; a plugin of pytest.

Each of these tests must fail: one that begins to pass is to be taken off the list.
"""

import re
from pathlib import Path

import pytest


def read_list():
    """The reason of each test, by its name without the database."""
    found, reason = {}, ""
    for line in Path(__file__).with_suffix(".txt").read_text(encoding="utf-8").splitlines():
        if line.startswith("# "):
            reason = line[2:]
        else:
            found[line] = reason
    return found


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items):
    """After SQLAlchemy's own plugin has made its tests."""
    reasons = read_list()
    for item in items:
        name = re.sub(r"_sqlml\+sqlml_15_0", "", item.nodeid).removeprefix("suite.py::")
        if name in reasons:
            strict = not reasons[name].endswith("(all but the first of each class)")
            item.add_marker(pytest.mark.xfail(reason=reasons[name], strict=strict))
