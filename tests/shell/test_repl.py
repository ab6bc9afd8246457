"""The interactive shell on a real terminal, typed at by pexpect."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pexpect
import pytest

ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b[=>]|\r")
CTRL_C, CTRL_D, TAB = "\x03", "\x04", "\t"


class Terminal:
    """A person before the shell."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
            "XDG_STATE_HOME": str(folder / "state"),
            "TERM": "xterm-256color",
            "NO_COLOR": "1",
            "PROMPT_TOOLKIT_NO_CPR": "1",
        }
        self.child = pexpect.spawn(
            sys.executable, ["-m", "sqlml.shell.main", *arguments], cwd=str(folder), env=environment, encoding="utf-8",
            dimensions=(50, 100), timeout=20,
        )  # fmt: skip

    def type(self, text: str) -> None:
        self.child.send(text)

    def enter(self, text: str) -> None:
        self.child.send(text + "\r")

    def see(self, pattern: str) -> str:
        """Wait for a pattern; what was printed up to and with it."""
        self.child.expect(pattern)
        return ESCAPES.sub("", f"{self.child.before}{self.child.after}")

    def leave(self) -> int:
        self.enter("\\q")
        self.child.expect(pexpect.EOF)
        self.child.close()
        return int(self.child.exitstatus)


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Terminal]:
    opened = Terminal(tmp_path, "bank.duckdb")
    opened.see(r"bank> ")
    yield opened
    opened.child.close(force=True)


def test_a_conversation(terminal: Terminal) -> None:
    terminal.enter("CREATE TABLE t AS SELECT range AS a FROM range(12);")
    terminal.see(r"12 rows  \d+")
    terminal.enter("SELECT count(*) AS n,")
    terminal.enter("max(a) AS m")
    terminal.enter("FROM t;")
    assert "│ 12 │ 11 │" in terminal.see(r"1 row  \d+")
    terminal.enter("SELEC 1;")
    assert "error: " in terminal.see(r"error: [^\n]*\n")
    terminal.enter("\\f json")
    terminal.see("format json")
    terminal.enter("SELECT 1 AS one; SELECT 2 AS two;")
    terminal.see(r'\{"two": 2\}')
    terminal.enter("\\nonsense")
    terminal.see(r"unknown command \\nonsense")
    terminal.enter("\\d")
    terminal.see('"table": "t"')
    assert terminal.leave() == 0


@pytest.mark.slow
def test_the_banner_says_where_one_is(tmp_path: Path) -> None:
    opened = Terminal(tmp_path, "bank.duckdb")
    assert re.search(r"sqlml \d+\.\d+ · bank\.duckdb \(new\) · models in bank\.sqlml · \\\? for help", opened.see(r"for help"))
    opened.see("bank> ")
    assert opened.leave() == 0
    again = Terminal(tmp_path, "bank.duckdb")
    assert "(new)" not in again.see(r"for help")
    again.see("bank> ")
    again.type(CTRL_D)
    again.child.expect(pexpect.EOF)


@pytest.mark.slow
def test_ctrl_c_cancels_the_statement_and_not_the_shell(terminal: Terminal) -> None:
    terminal.enter("SELECT count(*) FROM range(100000000000);")
    with pytest.raises(pexpect.TIMEOUT):
        terminal.child.expect("rows? ", timeout=1)
    terminal.type(CTRL_C)
    terminal.see("cancelled")
    terminal.see("bank> ")
    terminal.enter("SELECT 6 * 7 AS answer;")
    assert "42" in terminal.see(r"1 row  \d+")
    assert terminal.leave() == 0


@pytest.mark.slow
def test_training_shows_a_bar_and_ctrl_c_cancels_it(terminal: Terminal) -> None:
    terminal.enter("CREATE TABLE t AS SELECT random() AS a, random() AS b, random() < 0.5 AS y FROM range(20000);")
    terminal.see(r"20,000 rows  \d+")
    terminal.enter("TRAIN MODEL slow USING xgboost_classifier TARGET y WITH (n_estimators = 9000) AS SELECT * FROM t;")
    terminal.see(r"training.*━.* [1-9][\d,]*/9,000 .*logloss")
    terminal.type(CTRL_C)
    terminal.see("cancelled")
    terminal.see("bank> ")
    terminal.enter("SHOW MODELS;")
    terminal.see(r"0 rows  \d+")
    assert terminal.leave() == 0


def test_ctrl_c_at_the_prompt_clears_the_line(terminal: Terminal) -> None:
    terminal.type("SELECT nonsense")
    terminal.see("nonsense")
    terminal.type(CTRL_C)
    terminal.see("bank> ")
    terminal.enter("SELECT 1 AS one;")
    assert "│   1 │" in terminal.see(r"1 row  \d+")
    assert terminal.leave() == 0


def test_tab_completes_and_history_is_kept(terminal: Terminal, tmp_path: Path) -> None:
    terminal.enter("CREATE TABLE customers AS SELECT 5 AS age;")
    terminal.see(r"1 row  \d+")
    terminal.see("bank> ")
    terminal.type("SELECT * FROM custo" + TAB)
    terminal.see("mers")
    terminal.enter(";")
    assert "│   5 │" in terminal.see(r"1 row  \d+")
    assert terminal.leave() == 0
    history = tmp_path / "state" / "sqlml" / "history"
    assert "SELECT * FROM customers;" in history.read_text()
    assert history.stat().st_mode & 0o077 == 0
