"""Reads the golden text files: cases are blocks, the expected lines begin with ``--> `` or stand below a line of dashes."""

from pathlib import Path

FIXTURES = Path(__file__).parent.parent / "fixtures"


def read_blocks(folder: str, pattern: str = "*.sql") -> list[tuple[str, str, list[str]]]:
    """Each case as (name, source, expected lines); a case ends with its last expected line."""
    cases = []
    for path in sorted((FIXTURES / folder).glob(pattern)):
        source: list[str] = []
        expected: list[str] = []
        for number, line in enumerate([*path.read_text(encoding="utf-8").splitlines(), ""], 1):
            if line.startswith("--> "):
                expected.append(line[4:])
            elif expected:
                cases.append((f"{path.stem}:{number}", "\n".join(source).strip("\n"), expected))
                source, expected = [line], []
            else:
                source.append(line)
    return cases


def read_messages(file: str) -> list[tuple[str, str]]:
    """Each case as (source, message): divided by a line of dashes, cases divided by a line of equals signs."""
    text = (FIXTURES / file).read_text(encoding="utf-8")
    pairs = (block.strip("\n").split("\n----\n") for block in text.split("\n====\n"))
    return [(source, message) for source, message in pairs]
