"""A language model that is ready: a prompt in, a text out, piece by piece.

    prompt → tokens → Decoder → scores → sampling → token → text, as far as it is certain → …

A bundle has the graph and the tokenizer in one folder, and what else there is to know in its manifest (``Language``).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sqlml.algorithms.imported_onnx import open_session
from sqlml.errors import BundleError, DataError, count_of
from sqlml.generation.graph import Decoder
from sqlml.generation.sampling import Sampling, next_token
from sqlml.registry import missing_extra

if TYPE_CHECKING:
    from tokenizers import Tokenizer

GRAPH, TOKENIZER = "model.onnx", "tokenizer.json"
INPUT, OUTPUT = "prompt", "generated_text"
DEFAULT_TOKENS = 64
MOST_TOKENS = 4096


@dataclass(frozen=True)
class Language:
    """What a manifest says of a language model.

    ``vocabulary``: how many tokens there are; ``ends``: those that end a text; ``start``: the one that begins a text without a
    prompt; ``context``: how many tokens the graph can read, None where nobody knows.
    """

    folder: str
    vocabulary: int
    ends: tuple[int, ...] = ()
    start: int | None = None
    context: int | None = None

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Language:
        return cls(**{**document, "ends": tuple(document["ends"])})


@dataclass(frozen=True)
class Wish:
    """What is asked of it; ``seed`` None: another text each time."""

    prompt: str
    max_new_tokens: int = DEFAULT_TOKENS
    sampling: Sampling = field(default_factory=lambda: Sampling(temperature=0.0))
    seed: int | None = None
    stop: tuple[str, ...] = ()


@dataclass(frozen=True)
class Piece:
    """One token, and the text that is certain with it: empty while a letter, or a word of ``stop``, is half there."""

    token: int
    text: str


@dataclass(frozen=True)
class Ending:
    """How a text ended: ``reason`` is length, end (the model's own end), stop or cancelled; ``rest`` is text not yet told."""

    reason: str
    text: str
    rest: str
    prompt_tokens: int
    new_tokens: int
    first_token_seconds: float | None
    seconds: float

    @property
    def tokens_per_second(self) -> float | None:
        """After the first one; None where there were fewer than two."""
        if self.new_tokens < 2 or self.first_token_seconds is None:
            return None
        return (self.new_tokens - 1) / max(self.seconds - self.first_token_seconds, 1e-9)


class Generator:
    """Loaded, immutable, safe to use from many threads at once."""

    def __init__(self, decoder: Decoder, tokenizer: Tokenizer, language: Language) -> None:
        self._decoder = decoder
        self._tokenizer = tokenizer
        self.language = language

    @classmethod
    def load(cls, folder: Path, language: Language) -> Generator:
        """Read a bundle's files.  ``MissingExtra`` where the package for tokenizers is not installed."""
        own = folder / language.folder
        decoder = Decoder.of(open_session((own / GRAPH).read_bytes()))
        return cls(decoder, open_tokenizer(own / TOKENIZER), language)

    @property
    def cached(self) -> bool:
        """Whether the graph keeps what it has read."""
        return self._decoder.cached

    def tokens(self, text: str) -> list[int]:
        """A text as the numbers of its tokens."""
        return [int(token) for token in self._tokenizer.encode(text).ids]

    def complete(self, prompt: str, max_new_tokens: int = DEFAULT_TOKENS) -> str:
        """The likeliest text behind a prompt."""
        *_, last = self.generate(Wish(prompt, max_new_tokens))
        return last.text

    def generate(self, wish: Wish, cancelled: Callable[[], bool] = lambda: False) -> Iterator[Piece | Ending]:
        """The pieces of a text as they come, and at last its ``Ending``.

        ``DataError`` for a prompt that has no token, or more than the model can read; before the first piece.
        """
        began = time.perf_counter()
        prompt = self._prompt(wish.prompt)
        most = wish.max_new_tokens
        if self.language.context is not None:
            most = min(most, self.language.context - len(prompt))
        return self._generate(wish, prompt, most, began, cancelled)

    def _prompt(self, text: str) -> list[int]:
        tokens = self.tokens(text)
        if not tokens and self.language.start is not None:
            tokens = [self.language.start]
        if not tokens:
            raise DataError("the prompt is empty, and the model knows no token that begins a text")
        context = self.language.context
        if context is not None and len(tokens) >= context:
            raise DataError(f"the prompt has {count_of(len(tokens), 'token')}, and the model can read {context} in all")
        return tokens

    def _generate(
        self, wish: Wish, prompt: Sequence[int], most: int, began: float, cancelled: Callable[[], bool]
    ) -> Iterator[Piece | Ending]:
        random = np.random.default_rng(wish.seed)
        reading, text = self._decoder.start(), _Text(self._tokenizer, wish.stop)
        first: float | None = None
        reason, new, count = "length", list(prompt), 0
        while count < most:
            if cancelled():
                reason = "cancelled"
                break
            token = next_token(reading.read(new)[: self.language.vocabulary], wish.sampling, random)
            first = time.perf_counter() - began if first is None else first
            if token in self.language.ends:
                reason = "end"
                break
            count, new = count + 1, [token]
            piece = Piece(token, text.add(token))
            if text.stopped:
                reason = "stop"
            yield piece
            if text.stopped:
                break
        rest = text.finish()
        yield Ending(reason, text.told, rest, len(prompt), count, first, time.perf_counter() - began)


class _Text:
    """The text of the tokens so far: what of it is certain, and what waits because it may become a word to stop at."""

    def __init__(self, tokenizer: Tokenizer, stop: Sequence[str]) -> None:
        from tokenizers.decoders import DecodeStream

        self._tokenizer = tokenizer
        self._stream = DecodeStream(skip_special_tokens=True)
        self._stop = stop
        self._waiting = ""
        self._tokens: list[int] = []
        self.told = ""
        self.stopped = False

    def add(self, token: int) -> str:
        """One more token; the text that is certain by now."""
        self._tokens.append(token)
        self._waiting += self._stream.step(self._tokenizer, token) or ""
        found = [at for word in self._stop if (at := self._waiting.find(word)) >= 0]
        if found:
            self.stopped = True
            self._waiting = self._waiting[: min(found)]
            return self._tell(len(self._waiting))
        return self._tell(len(self._waiting) - max((_overlap(self._waiting, word) for word in self._stop), default=0))

    def finish(self) -> str:
        """What was held back, at the end; with it the letters that never came to their end."""
        if not self.stopped:
            whole = self._tokenizer.decode(self._tokens, skip_special_tokens=True)
            known = self.told + self._waiting
            self._waiting += whole[len(known) :] if whole.startswith(known) else ""
        return self._tell(len(self._waiting))

    def _tell(self, length: int) -> str:
        text, self._waiting = self._waiting[:length], self._waiting[length:]
        self.told += text
        return text


def _overlap(text: str, word: str) -> int:
    """How many letters at the end of a text could be the beginning of a word."""
    return next((n for n in range(min(len(text), len(word) - 1), 0, -1) if text.endswith(word[:n])), 0)


def open_tokenizer(path: Path) -> Tokenizer:
    """A tokenizer's file.  ``BundleError`` where it is none, ``MissingExtra`` where the package is not installed."""
    try:
        from tokenizers import Tokenizer
    except ModuleNotFoundError as error:
        raise missing_extra(error) from error
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises plain Exceptions
        raise BundleError(f"{path} is no tokenizer: {str(error).splitlines()[0]}", hint="save the tokenizer again") from error
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer
