"""Texts from a graph: what torch would write, piece by piece, with and without a cache."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pyarrow as pa
import pytest
import torch

from sqlml.algorithms.imported_onnx import open_session
from sqlml.bundles.model import Model
from sqlml.errors import BindError, BundleError, DataError, NotSupportedError
from sqlml.exports.foreign import Wishes
from sqlml.exports.reading import read_model
from sqlml.generation.generator import Ending, Generator, Piece, Wish
from sqlml.generation.graph import Decoder
from sqlml.generation.sampling import Sampling
from sqlml.types import Task
from tests.generation.conftest import Made
from tests.generation.gpt import END, SENTENCES, greedy, make_gpt, write_folder

GeneratorOf = Callable[[Path], Generator]


def written(generator: Generator, wish: Wish) -> tuple[list[Piece], Ending]:
    *pieces, last = generator.generate(wish)
    assert isinstance(last, Ending)
    return [piece for piece in pieces if isinstance(piece, Piece)], last


@pytest.mark.parametrize("kind", ["cached", "plain"])
@pytest.mark.parametrize("prompt", ["the cat", "a dog", "moon", "Ü"])
def test_the_likeliest_tokens_are_those_of_torch(made: Made, generator_of: GeneratorOf, kind: str, prompt: str) -> None:
    generator = generator_of(getattr(made, kind))
    assert generator.cached == (kind == "cached")
    pieces, ending = written(generator, Wish(prompt, 25))
    expected = greedy(made.model, generator.tokens(prompt), 25)
    end = made.tokenizer.token_to_id(END)
    wanted = expected[: expected.index(end)] if end in expected else expected
    assert [piece.token for piece in pieces] == wanted
    assert ending.text == "".join(piece.text for piece in pieces) + ending.rest == made.tokenizer.decode(wanted)
    assert ending.reason == ("end" if end in expected else "length")


def test_scores_are_those_of_torch_token_by_token(made: Made) -> None:
    tokens = made.tokenizer.encode(SENTENCES[1]).ids
    reading = Decoder.of(open_session((made.cached / "model.onnx").read_bytes())).start()
    with torch.no_grad():
        expected = made.model(torch.tensor([tokens]))[0][0].numpy()
    found = [reading.read(tokens[:3]), *(reading.read([token]) for token in tokens[3:])]
    assert np.abs(np.stack(found) - expected[2:]).max() < 1e-3


def test_letters_come_whole_and_a_stop_word_is_never_told(made: Made, generator_of: GeneratorOf) -> None:
    generator = generator_of(made.cached)
    pieces, ending = written(generator, Wish("Ümläut and", 40))
    assert ending.text.startswith(" 日本語")
    assert all("\ufffd" not in piece.text for piece in pieces)
    assert "" in [piece.text for piece in pieces]  # half a letter
    pieces, ending = written(generator, Wish("the cat", 40, stop=("looked", "the moon")))
    assert (ending.reason, ending.text) == ("stop", " sat on the mat and ")
    assert "".join(piece.text for piece in pieces) + ending.rest == ending.text


def test_a_seed_repeats_and_the_figures_add_up(made: Made, generator_of: GeneratorOf) -> None:
    generator = generator_of(made.cached)
    wish = Wish("the", 12, Sampling(1.5, top_k=20, top_p=0.95), seed=4)
    (pieces, ending), (again, _) = written(generator, wish), written(generator, wish)
    assert pieces == again
    assert (ending.prompt_tokens, ending.new_tokens) == (len(generator.tokens("the")), len(pieces))
    assert ending.first_token_seconds is not None
    assert 0 < ending.first_token_seconds <= ending.seconds


def test_a_text_ends_where_the_model_can_read_no_more(made: Made, generator_of: GeneratorOf) -> None:
    generator = generator_of(made.cached)
    context = made.model.size.context
    prompt = "moon " * 9
    count = len(generator.tokens(prompt))
    assert count < context
    _, ending = written(generator, Wish(prompt, 1000, Sampling(3.0), seed=1))
    assert ending.new_tokens <= context - count
    with pytest.raises(DataError, match=rf"the prompt has \d+ tokens, and the model can read {context} in all"):
        generator.generate(Wish("moon " * 60))


def test_an_empty_prompt_begins_a_text(made: Made, generator_of: GeneratorOf) -> None:
    _, ending = written(generator_of(made.cached), Wish("", 5))
    assert (ending.prompt_tokens, ending.new_tokens) == (1, 5)


def test_who_goes_away_stops_it(made: Made, generator_of: GeneratorOf) -> None:
    asked = iter([False, False, True])
    *pieces, ending = generator_of(made.cached).generate(Wish("the cat", 40), lambda: next(asked))
    assert isinstance(ending, Ending)
    assert (len(pieces), ending.reason) == (2, "cancelled")


def test_the_model_predicts_texts(made: Made, tmp_path: Path) -> None:
    card = read_model(made.cached, tmp_path / "bundle", Wishes())
    model = Model.open(tmp_path / "bundle", card.outcome.bundle_sha256)
    assert (model.task, model.signature.result) == (Task.GENERATION, "VARCHAR")
    answers = model.predict({"prompt": pa.array(["the cat", None])}).to_pylist()
    assert answers == [" sat on the mat and looked at the moon.", None]
    assert model.full({"prompt": pa.array([], pa.string())}).num_rows == 0
    with pytest.raises(BindError, match="writes texts"):
        model.raw({"prompt": pa.array(["x"])})


# --- what cannot be read ------------------------------------------------------------------------------------------------


def spoilt(made: Made, folder: Path, change: Callable[[Any], None]) -> Path:
    """The folder with the graph changed."""
    folder.mkdir()
    graph = onnx.load(str(made.cached / "model.onnx"))
    change(graph)
    onnx.save(graph, str(folder / "model.onnx"))
    (folder / "tokenizer.json").write_bytes((made.cached / "tokenizer.json").read_bytes())
    return folder


def rename_input(graph: Any) -> None:
    for node in graph.graph.node:
        node.input[:] = ["tokens" if name == "input_ids" else name for name in node.input]
    next(i for i in graph.graph.input if i.name == "input_ids").name = "tokens"


def drop_present(graph: Any) -> None:
    del graph.graph.output[-1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (rename_input, "a language model takes input_ids"),
        (drop_present, "takes 4 parts of a cache and gives 3"),
    ],
)
def test_other_graphs_are_refused(made: Made, tmp_path: Path, change: Callable[[Any], None], message: str) -> None:
    with pytest.raises(NotSupportedError, match=message):
        read_model(spoilt(made, tmp_path / "lm", change), tmp_path / "bundle", Wishes())


def test_a_tokenizer_of_another_model_is_refused(made: Made, tmp_path: Path) -> None:
    from tokenizers import Tokenizer

    folder = spoilt(made, tmp_path / "lm", lambda graph: None)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.add_tokens([f"<{i}>" for i in range(50)])
    tokenizer.save(str(folder / "tokenizer.json"))
    with pytest.raises(NotSupportedError, match="gives 320 scores, and the tokenizer has 370 tokens"):
        read_model(folder, tmp_path / "bundle", Wishes())


def test_a_model_that_reads_ahead_is_refused(made: Made, tmp_path: Path) -> None:
    class Ahead(type(made.model)):  # type: ignore[misc]
        def forward(self, input_ids: Any, *past: Any) -> Any:
            logits, *present = super().forward(input_ids, *past)
            return logits + self.tokens(input_ids).sum((1, 2), keepdim=True) * torch.arange(logits.shape[2]), *present

    model = make_gpt(made.tokenizer, steps=0)
    model.__class__ = Ahead
    folder = write_folder(tmp_path / "lm", model, made.tokenizer, cached=True)
    with pytest.raises(NotSupportedError, match="other scores token by token than for the whole text"):
        read_model(folder, tmp_path / "bundle", Wishes())


def test_files_that_are_missing_or_damaged(made: Made, tmp_path: Path) -> None:
    folder = spoilt(made, tmp_path / "lm", lambda graph: None)
    (folder / "tokenizer.json").unlink()
    with pytest.raises(BundleError, match=r"has no tokenizer\.json"):
        read_model(folder, tmp_path / "b1", Wishes())
    (folder / "tokenizer.json").write_text("{}")
    with pytest.raises(BundleError, match="is no tokenizer"):
        read_model(folder, tmp_path / "b2", Wishes())
    (folder / "tokenizer.json").write_bytes((made.cached / "tokenizer.json").read_bytes())
    (folder / "config.json").write_text("{")
    with pytest.raises(BundleError, match="is not JSON"):
        read_model(folder, tmp_path / "b3", Wishes())
    (folder / "config.json").unlink()
    (folder / "model.onnx").write_bytes(b"\x08\x01 no graph")
    with pytest.raises(BundleError, match="no ONNX file, or"):
        read_model(folder, tmp_path / "b4", Wishes())
    (folder / "model.onnx").unlink()
    with pytest.raises(BundleError, match="has no ONNX graph"):
        read_model(folder, tmp_path / "b5", Wishes())


def test_what_a_person_says_wins(made: Made, tmp_path: Path) -> None:
    read_model(made.cached, tmp_path / "bundle", Wishes(ends=(".",), context=20))
    language = Model.open(tmp_path / "bundle").language
    assert language is not None
    assert (language.ends, language.context) == ((made.tokenizer.token_to_id("."),), 20)
    with pytest.raises(BindError, match="the tokenizer has no token <nothing>"):
        read_model(made.cached, tmp_path / "b2", Wishes(ends=("<nothing>",)))
    with pytest.raises(BindError, match="a language model has no option classes"):
        read_model(made.cached, tmp_path / "b3", Wishes(classes=("a", "b")))
    with pytest.raises(BindError, match="the option context is of language models"):
        read_model(made.cached / "model.onnx", tmp_path / "b4", Wishes(context=9))
