"""Models from scratch that are trained with all their parameters before anything else.

LoRA on random 4-bit weights learns nothing, so a demonstration without downloaded weights needs a
base that has learnt something. What it learns is the engine's; that it is seeded, made once, kept
under `bases/` by what went into it, and that its time is told apart from the run's, is here.
"""

from __future__ import annotations

import fcntl
import json
import math
import shutil
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from torch import Tensor, nn

from engines.torchkit.schedules import warmup_cosine

SEED: Final = 0
"""Not the run's: runs with different seeds share one base and differ in what they train."""
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
            f"{'' if self.fresh else ' (cached)'}, last loss {self.loss:.2f}; "
        )


def kept(root: Path, name: str, write: Callable[[Path], tuple[float, int, int]]) -> Base:
    """The base of that name, from the cache, or written now.

    `write(folder)` makes the folder and returns its last loss, its steps and its texts.
    """
    folder = root / "bases" / name
    folder.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with (folder.parent / "lock").open("w") as lock:
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


def byte_tokenizer(texts: Iterable[str], size: int, special: tuple[str, ...]) -> Tokenizer:
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
