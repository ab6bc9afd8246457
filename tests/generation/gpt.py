"""A small GPT made here: a tokenizer trained on a few sentences, a torch model trained on them, and its graphs of ONNX."""

from __future__ import annotations

import json
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import nn

SENTENCES = (
    "the cat sat on the mat and looked at the moon.",
    "a dog ran over the hill to see the sea.",
    "the moon is bright tonight, said the cat to the dog.",
    "Ümläut and 日本語 are words of other letters.",
)
END = "<|endoftext|>"


@dataclass(frozen=True)
class Size:
    vocabulary: int
    layers: int = 2
    heads: int = 2
    width: int = 32
    context: int = 48


class Block(nn.Module):
    def __init__(self, size: Size) -> None:
        super().__init__()
        self.heads, self.own = size.heads, size.width // size.heads
        self.first, self.second = nn.LayerNorm(size.width), nn.LayerNorm(size.width)
        self.qkv, self.out = nn.Linear(size.width, 3 * size.width), nn.Linear(size.width, size.width)
        self.mlp = nn.Sequential(nn.Linear(size.width, 4 * size.width), nn.GELU(), nn.Linear(4 * size.width, size.width))

    def forward(self, x: Any, past: tuple[Any, Any], mask: Any) -> tuple[Any, Any, Any]:
        q, k, v = (part.unflatten(2, (self.heads, self.own)).transpose(1, 2) for part in self.qkv(self.first(x)).chunk(3, 2))
        k, v = torch.cat([past[0], k], 2), torch.cat([past[1], v], 2)
        scores = (q @ k.transpose(2, 3)) / self.own**0.5 + mask
        x = x + self.out((scores.softmax(-1) @ v).transpose(1, 2).flatten(2))
        return x + self.mlp(self.second(x)), k, v


class Gpt(nn.Module):
    def __init__(self, size: Size) -> None:
        super().__init__()
        self.size = size
        self.tokens = nn.Embedding(size.vocabulary, size.width)
        self.places = nn.Embedding(size.context, size.width)
        self.blocks = nn.ModuleList(Block(size) for _ in range(size.layers))
        self.norm = nn.LayerNorm(size.width)

    def forward(self, input_ids: Any, *past: Any) -> tuple[Any, ...]:
        """(batch, new tokens) and the cache → logits, and the cache with the new tokens."""
        before = past[0].shape[2] if past else 0
        places = torch.arange(input_ids.shape[1]) + before
        x = self.tokens(input_ids) + self.places(places)
        known = torch.arange(input_ids.shape[1] + before)
        mask = torch.where(known[None, :] <= places[:, None], 0.0, float("-inf"))
        empty = torch.zeros(input_ids.shape[0], self.size.heads, 0, self.size.width // self.size.heads)
        present: list[Any] = []
        for i, block in enumerate(self.blocks):
            x, k, v = block(x, (past[2 * i], past[2 * i + 1]) if past else (empty, empty), mask)
            present += [k, v]
        return (self.norm(x) @ self.tokens.weight.T, *(present if past else ()))


def make_tokenizer() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=320, special_tokens=[END], initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator(SENTENCES, trainer)
    return tokenizer


def make_gpt(tokenizer: Tokenizer, steps: int = 60, **size: int) -> Gpt:
    """A model that has read the sentences a few times; the same each time."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    model = Gpt(Size(tokenizer.get_vocab_size(), **size))
    end = tokenizer.token_to_id(END)
    texts = [torch.tensor([[*tokenizer.encode(sentence).ids, end][: model.size.context]]) for sentence in SENTENCES]
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    for step in range(steps):
        tokens = texts[step % len(texts)]
        logits = model(tokens)[0]
        loss = nn.functional.cross_entropy(logits[0, :-1], tokens[0, 1:])
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return model.eval()


def write_folder(folder: Path, model: Gpt, tokenizer: Tokenizer, *, cached: bool, config: dict[str, Any] | None = None) -> Path:
    """What IMPORT MODEL takes: the graph, the tokenizer, a configuration."""
    folder.mkdir(parents=True, exist_ok=True)
    export(folder / "model.onnx", model, cached=cached)
    tokenizer.save(str(folder / "tokenizer.json"))
    own = {"eos_token_id": tokenizer.token_to_id(END), "n_positions": model.size.context}
    (folder / "config.json").write_text(json.dumps(own if config is None else config), encoding="utf-8")
    return folder


def export(path: Path, model: Gpt, *, cached: bool) -> None:
    size = model.size
    names = [f"{i}.{what}" for i in range(size.layers) for what in ("key", "value")] if cached else []
    past = tuple(torch.zeros(1, size.heads, 3, size.width // size.heads) for _ in names)
    axes: dict[str, dict[int, str]] = {"input_ids": {0: "batch", 1: "new"}, "logits": {0: "batch", 1: "new"}}
    axes |= {f"past_key_values.{name}": {0: "batch", 2: "past"} for name in names}
    axes |= {f"present.{name}": {0: "batch", 2: "whole"} for name in names}
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            model,
            (torch.tensor([[1, 2]]), *past),
            str(path),
            dynamo=False,
            input_names=["input_ids", *(f"past_key_values.{name}" for name in names)],
            output_names=["logits", *(f"present.{name}" for name in names)],
            dynamic_axes=axes,
        )


def greedy(model: Gpt, tokens: list[int], count: int) -> list[int]:
    """The likeliest tokens by torch, everything computed anew each time."""
    found = list(tokens)
    with torch.no_grad():
        for _ in range(count):
            found.append(int(model(torch.tensor([found]))[0][0, -1].argmax()))
    return found[len(tokens) :]
