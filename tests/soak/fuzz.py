"""Random statements, right and wrong: the dialect gives a tree or an error with a place in the text, fast, and nothing else.

Half of the inputs are written from a small grammar of all our statements, half are the golden files' own; then tokens are
deleted, doubled and swapped, the text is cut, characters are put in.  Every input goes through ``parse``, ``find_calls`` and
``format_sql``; what is valid comes back from ``to_sql`` as the same tree and from ``format_sql`` as the same script.
"""

from __future__ import annotations

import random
import re
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from sqlml_dialect import TABLE_FUNCTIONS, DialectError, find_calls, format_sql, parse, to_sql
from sqlml_dialect.tokens import scan

from tests.dialect.golden import FIXTURES, read_blocks, read_messages

MODELS = frozenset({"churn", "m", "sales.fraud"})
MAX_SECONDS = 1.0
MAX_SHOWN = 20

_HOLE = re.compile(r"\{([a-z]+)\}")
MAX_DEPTH = 14
ODD = (*"'\"$;()[]{}-/*@.,:=?\\\n\r\t#%|~é目\u00a0\u200b😀ſ\x00", "--", "/*", "*/", "$$", "E'", "::", ":=", " AS ", " MODEL ")


def read_grammar() -> dict[str, list[str]]:
    """The rules of ``grammar.txt``: a name, then an alternative on each line."""
    rules: dict[str, list[str]] = {"tablefunction": [name.upper() for name in sorted(TABLE_FUNCTIONS)]}
    alternatives: list[str] = []
    for line in (Path(__file__).parent / "grammar.txt").read_text(encoding="utf-8").splitlines():
        if line.startswith("|"):
            alternatives.append(line[2:].replace("\\n", "\n").replace("\\\\", "\\"))
        elif line and not line.startswith("#"):
            alternatives = rules.setdefault(line, [])
    return rules


RULES = read_grammar()


@dataclass
class Report:
    """What came of the inputs: how many of each outcome, the slowest, and every fault."""

    outcomes: Counter[str] = field(default_factory=Counter)
    slowest: float = 0.0
    slowest_text: str = ""
    faults: list[str] = field(default_factory=list)


def run(inputs: int, seed: int) -> int:
    """The number of faults; prints each, the counts and the rate."""
    report = Report()
    began = time.perf_counter()
    for text in texts(inputs, seed):
        check(text, report)
    seconds = time.perf_counter() - began
    for fault in report.faults[:MAX_SHOWN]:
        print(fault)
    counts = ", ".join(f"{count:,} {outcome}" for outcome, count in report.outcomes.most_common())
    print(f"fuzz: {inputs:,} inputs from seed {seed}: {counts}; {len(report.faults)} faults")
    print(
        f"fuzz: {inputs / seconds:,.0f} inputs/s, the slowest took {report.slowest * 1000:.0f} ms: {report.slowest_text[:80]!r}"
    )
    return len(report.faults)


def texts(inputs: int, seed: int) -> Iterator[str]:
    """The inputs; one in eight as it was written, the others mutated up to four times."""
    chance = random.Random(seed)
    golden = golden_texts()
    for _ in range(inputs):
        text = chance.choice(golden) if chance.random() < 0.5 else generate("script", chance)
        for _ in range(chance.choice((0, 1, 1, 1, 2, 2, 3, 4))):
            text = chance.choice(MUTATIONS)(text, chance)
        yield text


def golden_texts() -> list[str]:
    """The statements of all golden files."""
    blocks = [source for folder in ("parse", "calls") for _, source, _ in read_blocks(folder)]
    files = [*sorted(FIXTURES.glob("errors/*.txt")), *sorted(FIXTURES.glob("format/*.txt"))]
    return blocks + [source for path in files for source, _ in read_messages(str(path.relative_to(FIXTURES)))]


def generate(rule: str, chance: random.Random, depth: int = 0) -> str:
    """A text of a rule of the grammar; deep down the first alternative is taken that ends."""
    alternatives = RULES[rule]
    if depth > MAX_DEPTH:
        text = min(alternatives, key=lambda alternative: (alternative.count("{"), len(alternative)))
    else:
        text = chance.choice(alternatives)
    return _HOLE.sub(lambda hole: generate(hole[1], chance, depth + 1), text)


# --- mutations --------------------------------------------------------------------------------------------------------


def _on_tokens(change: Callable[[list[str], random.Random], None]) -> Callable[[str, random.Random], str]:
    """A mutation of the list of tokens, blanks in front kept."""

    def mutate(text: str, chance: random.Random) -> str:
        parts, end = [], 0
        for token in scan(text):
            parts.append(text[end : token.end])
            end = token.end
        if parts:
            change(parts, chance)
        return "".join(parts) + text[end:]

    return mutate


def _delete(parts: list[str], chance: random.Random) -> None:
    first = chance.randrange(len(parts))
    del parts[first : first + chance.choice((1, 1, 1, 3))]


def _double(parts: list[str], chance: random.Random) -> None:
    at = chance.randrange(len(parts))
    parts[at:at] = [parts[at]] * chance.choice((1, 1, 2))


def _swap(parts: list[str], chance: random.Random) -> None:
    left, right = chance.randrange(len(parts)), chance.randrange(len(parts))
    parts[left], parts[right] = parts[right], parts[left]


def _misspell(parts: list[str], chance: random.Random) -> None:
    at = chance.randrange(len(parts))
    word = parts[at]
    place = chance.randrange(len(word) + 1)
    parts[at] = chance.choice(
        (word[:place] + word[place + 1 :], word[:place] + word[place : place + 2][::-1] + word[place + 2 :])
    )


def _cut(text: str, chance: random.Random) -> str:
    place = chance.randrange(len(text) + 1)
    return chance.choice((text[:place], text[:place], text[place:]))


def _insert(text: str, chance: random.Random) -> str:
    for _ in range(chance.choice((1, 1, 2, 5))):
        place = chance.randrange(len(text) + 1)
        text = text[:place] + chance.choice(ODD) + text[place:]
    return text


def _replace(text: str, chance: random.Random) -> str:
    place = chance.randrange(len(text) + 1)
    return text[:place] + chr(chance.choice((chance.randrange(128), chance.randrange(0x3000)))) + text[place + 1 :]


MUTATIONS = (*map(_on_tokens, (_delete, _double, _swap, _misspell)), _cut, _insert, _replace)


# --- checks -------------------------------------------------------------------------------------------------------------


def check(text: str, report: Report) -> None:
    """Put one input through everything and note what came of it."""
    began = time.process_time()  # of this process alone: the machine may be busy
    try:
        outcome = _read(text)
    except Exception:
        outcome = "faults"
        report.faults.append(f"{text!r}\n{traceback.format_exc(limit=-4)}")
    seconds = time.process_time() - began
    report.outcomes[outcome] += 1
    if seconds > MAX_SECONDS:
        report.faults.append(f"{seconds:.1f} s: {text!r}")
    if seconds > report.slowest:
        report.slowest, report.slowest_text = seconds, text


def _read(text: str) -> str:
    """What an input is; anything but a tree or a DialectError in its place is an exception."""
    refusals = [_error_of(lambda: find_calls(text, MODELS)), _error_of(lambda: find_calls(text, MODELS, 7))]
    assert refusals[0] == refusals[1], "an error of find_calls depends on the start"
    try:
        statements = parse(text)
    except DialectError as error:
        _check_place(error, text)
        _check_same(str(error), _error_of(lambda: format_sql(text)), "format_sql fails otherwise than parse")
        return "refused"
    for statement in statements:
        assert text[slice(*statement.span)] == statement.text
        if statement.node is not None:
            (again,) = parse(to_sql(statement.node))
            assert again.node == statement.node, "to_sql gives another tree"
    written = format_sql(text)
    assert format_sql(written) == written, "format_sql changes its own text"
    assert [one.node or one.text for one in parse(written)] == [one.node or one.text for one in statements], "other trees"
    if any(statement.node for statement in statements):
        return "ours"
    return "calls refused" if refusals[0] else "the database's"


def _error_of(read: Callable[[], object]) -> str | None:
    """The text of the DialectError that a function raises; its place is checked."""
    try:
        read()
    except DialectError as error:
        _check_place(error, error.text)
        return str(error)
    return None


def _check_same(left: object, right: object, message: str) -> None:
    assert left == right, message


def _check_place(error: DialectError, text: str) -> None:
    """An error points into the text and can be shown."""
    start, end = error.span
    assert 0 <= start <= end <= len(text), f"the place {error.span} is outside of the text"
    assert error.text == text
    assert error.message
    assert error.line >= 1
    assert error.column >= 1
    assert str(error)
