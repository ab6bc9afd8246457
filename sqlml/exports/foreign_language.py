"""Folders of causal language models as bundles: an ONNX graph, ``tokenizer.json``, and ``config.json`` where there is one."""

from __future__ import annotations

import json
import platform
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sqlml.algorithms.imported_onnx import open_session
from sqlml.bundles.manifest import MANIFEST, Manifest
from sqlml.errors import BindError, BundleError, NotSupportedError, listing
from sqlml.exports.blame import about
from sqlml.exports.bundle import Card
from sqlml.exports.foreign import Wishes, foreign_plan, library_versions
from sqlml.exports.foreign_onnx import check_graph
from sqlml.generation.generator import GRAPH, INPUT, OUTPUT, TOKENIZER, Language, open_tokenizer
from sqlml.generation.graph import Decoder
from sqlml.plan import InputColumn, TrainOutcome
from sqlml.registry import get_algorithm
from sqlml.types import Kind

if TYPE_CHECKING:
    from tokenizers import Tokenizer

FOLDER = "language"
ALGORITHM = "onnx_language_model"
_CONFIGS = ("generation_config.json", "config.json")
_CONTEXT = ("max_position_embeddings", "n_positions", "n_ctx", "max_sequence_length", "seq_length")
_ENDS = ("<|endoftext|>", "</s>", "<eos>", "[EOS]", "<|im_end|>", "<|eot_id|>", "<|end_of_text|>", "<end_of_turn>")
_STARTS = ("<s>", "<bos>", "[BOS]", "<|begin_of_text|>", "<|endoftext|>")
_CLOSE = 1e-3
"""How far the scores with a cache may be from those without: a part of the largest score."""


def is_language_model(path: Path) -> bool:
    """Whether a folder has a graph of ONNX, or a tokenizer, and is no bundle."""
    return path.is_dir() and not (path / MANIFEST).exists() and ((path / TOKENIZER).is_file() or bool(_graphs(path)))


def read_language_model(path: Path, folder: Path, wishes: Wishes) -> Card:
    """Write the bundle into ``folder``, which is made; its plan and its outcome.

    ``BundleError`` for what is missing or damaged, ``NotSupportedError`` for a graph that is no causal language model.
    """
    _check_wishes(wishes)
    graph, tokenizer_path = _graph(path), path / TOKENIZER
    if not tokenizer_path.is_file():
        raise BundleError(f"{path} has no {TOKENIZER}", hint=f"save the model's tokenizer beside {graph.name}")
    tokenizer = open_tokenizer(tokenizer_path)
    content = graph.read_bytes()
    check_graph(graph, content)
    decoder = Decoder.of(open_session(content))
    language = _language(path, tokenizer, wishes)
    _try(graph, decoder, tokenizer, language)
    own = folder / FOLDER
    own.mkdir(parents=True)
    (own / GRAPH).write_bytes(content)
    shutil.copyfile(tokenizer_path, own / TOKENIZER)
    return _card(path, folder, language)


def check_language_model(folder: Path) -> None:
    """Refuse a bundle whose graph reaches outside its file."""
    graph = folder / FOLDER / GRAPH
    check_graph(graph, graph.read_bytes())


def _check_wishes(wishes: Wishes) -> None:
    for name in ("inputs", "target", "classes", "task"):
        if getattr(wishes, name) is not None:
            raise about(name, BindError(f"a language model has no option {name}", hint="it has: ends, context"))


def _graphs(path: Path) -> list[Path]:
    return sorted([*path.glob("*.onnx"), *path.glob("onnx/*.onnx")])


def _graph(path: Path) -> Path:
    """The graph of a folder: the only one, or the one that is called as a decoder's is."""
    graphs = _graphs(path)
    for name in (GRAPH, "decoder_model_merged.onnx", "decoder_with_past_model.onnx", "decoder_model.onnx"):
        named = [graph for graph in graphs if graph.name == name]
        if named:
            return named[0]
    if len(graphs) == 1:
        return graphs[0]
    if not graphs:
        raise BundleError(f"{path} has no ONNX graph", hint=f"export the decoder as {GRAPH} beside {TOKENIZER}")
    raise BundleError(f"{path} has several graphs: {listing(g.name for g in graphs)}", hint=f"call the decoder {GRAPH}")


# --- what there is to know --------------------------------------------------------------------------------------------


def _language(path: Path, tokenizer: Tokenizer, wishes: Wishes) -> Language:
    config = _config(path)
    return Language(
        FOLDER,
        tokenizer.get_vocab_size(with_added_tokens=True),
        _ends(tokenizer, config, wishes),
        _start(tokenizer, config),
        wishes.context or next((int(config[name]) for name in _CONTEXT if isinstance(config.get(name), int)), None),
    )


def _config(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name in reversed(_CONFIGS):
        if (path / name).is_file():
            try:
                document = json.loads((path / name).read_text(encoding="utf-8"))
            except (ValueError, RecursionError) as error:
                raise BundleError(f"{path / name} is not JSON: {error}", hint="export the model again") from error
            found |= document if isinstance(document, dict) else {}
    return found


def _ends(tokenizer: Tokenizer, config: Mapping[str, Any], wishes: Wishes) -> tuple[int, ...]:
    """The tokens that end a text: as told, else as the configuration has them, else by their usual names."""
    if wishes.ends is not None:
        numbers = [(word, tokenizer.token_to_id(word)) for word in wishes.ends]
        unknown = next((word for word, number in numbers if number is None), None)
        if unknown is not None:
            raise about("ends", BindError(f"the tokenizer has no token {unknown}", hint="tokenizer.json lists its added_tokens"))
        return tuple(number for _, number in numbers if number is not None)
    given = config.get("eos_token_id")
    if given is not None:
        return tuple(int(token) for token in (given if isinstance(given, list) else [given]) if isinstance(token, int))
    return tuple(number for word in _ENDS if (number := tokenizer.token_to_id(word)) is not None)


def _start(tokenizer: Tokenizer, config: Mapping[str, Any]) -> int | None:
    given = config.get("bos_token_id")
    if isinstance(given, int):
        return given
    return next((number for word in _STARTS if (number := tokenizer.token_to_id(word)) is not None), None)


# --- whether it works -------------------------------------------------------------------------------------------------


def _try(graph: Path, decoder: Decoder, tokenizer: Tokenizer, language: Language) -> None:
    """Read a few tokens whole and one by one: a causal model, and a cache that is right, give the same."""
    tokens = [int(t) for t in tokenizer.encode("the quick brown fox").ids][:4] or [0]
    tokens = (tokens * 3)[:3]
    whole = decoder.start().read(tokens)
    if whole.ndim != 1 or len(whole) < language.vocabulary:
        raise NotSupportedError(
            f"{graph} gives {whole.shape[-1]} scores, and the tokenizer has {language.vocabulary} tokens",
            hint="the graph and tokenizer.json are not of the same model",
        )
    if not np.isfinite(whole).any():
        raise BundleError(f"{graph} gives no finite score", hint="export the model again")
    steps = decoder.start()
    for token in tokens:
        found = steps.read([token])
    gap = np.nanmax(np.abs(found - whole)) / max(1.0, float(np.nanmax(np.abs(whole))))
    if not gap <= _CLOSE:
        raise NotSupportedError(
            f"{graph} gives other scores token by token than for the whole text ({gap:.2g} apart)",
            hint="it must be a causal decoder, and what it keeps in past… must be what it gives as present…",
        )


def _card(path: Path, folder: Path, language: Language) -> Card:
    inputs: Sequence[InputColumn] = (InputColumn(INPUT, "VARCHAR", Kind.TEXT),)
    sha256 = Manifest(tuple(inputs), (), {INPUT: "Once upon a time"}, language=language.to_json()).write(folder)
    outcome = TrainOutcome(
        algorithm=ALGORITHM,
        options={},
        rows=0,
        heldout_rows=0,
        fingerprint="",
        metrics={},
        curves=(),
        bundle_sha256=sha256,
        duration=0.0,
        peak_memory=0,
        libraries=library_versions(get_algorithm(ALGORITHM).libraries),
        host=platform.node(),
        encodings={INPUT: f"tokens, {language.vocabulary:,} of them"},
        feature_info=(),
        notes=(f"imported from {path.name}: what it was trained on is not known",),
    )
    plan = replace(foreign_plan(ALGORITHM, OUTPUT, inputs), targets=())
    return Card(path.name, datetime.now(UTC).isoformat(timespec="seconds"), plan, outcome)
