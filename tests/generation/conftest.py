"""A small language model, made once: with torch, and as the folders that IMPORT MODEL takes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from tokenizers import Tokenizer

from sqlml.bundles.model import Model
from sqlml.exports.foreign import Wishes
from sqlml.exports.reading import read_model
from sqlml.generation.generator import Generator
from tests.generation.gpt import Gpt, make_gpt, make_tokenizer, write_folder


@dataclass(frozen=True)
class Made:
    """The model in torch, its tokenizer, and its folders with and without a cache."""

    model: Gpt
    tokenizer: Tokenizer
    cached: Path
    plain: Path


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    folder = tmp_path_factory.mktemp("gpt")
    tokenizer = make_tokenizer()
    model = make_gpt(tokenizer)
    cached = write_folder(folder / "cached", model, tokenizer, cached=True)
    return Made(model, tokenizer, cached, write_folder(folder / "plain", model, tokenizer, cached=False))


@pytest.fixture(scope="session")
def generator_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Path], Generator]:
    """A folder imported, and its generator; each folder once."""
    known: dict[Path, Generator] = {}

    def get(path: Path) -> Generator:
        if path not in known:
            bundle = tmp_path_factory.mktemp("bundle") / "bundle"
            read_model(path, bundle, Wishes())
            known[path] = Model.open(bundle).generator
        return known[path]

    return get
