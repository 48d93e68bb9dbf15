"""Text to token ids: a model's own tokenizer.json, or one that is built from the subset.

Reads `tokenizer.json` directly. Some repositories (TinyCLIP's) ship no tokenizer_config.json, and
transformers then takes the maximal length for infinite and truncates nothing.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers

SPECIAL: Final = ("<pad>", "<unk>", "<mask>", "<bos>", "<eos>")
"""<eos> is 4, not 2: transformers takes an eos id of 2 for a known mistake in old CLIP configs."""


def from_folder(folder: Path) -> Tokenizer:
    """The tokenizer of a model folder."""
    return Tokenizer.from_file(str(folder / "tokenizer.json"))


def built(texts: Sequence[str], vocabulary: int, cache_root: Path) -> Tokenizer:
    """A byte-pair tokenizer of `vocabulary` entries over these texts, built once and kept."""
    digest = hashlib.blake2b(digest_size=12)
    digest.update(f"bpe-1:{vocabulary}".encode())
    for text in texts:
        digest.update(text.encode())
        digest.update(b"\0")
    folder = cache_root / "tokenizers"
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    path = folder / f"{digest.hexdigest()}.json"
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not path.exists():
            temporary = path.with_suffix(".tmp")
            _train(texts, vocabulary).save(str(temporary))
            os.replace(temporary, path)  # noqa: PTH105 - atomic by contract
    return Tokenizer.from_file(str(path))


def _train(texts: Sequence[str], vocabulary: int) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))  # noqa: S106 - a token, no password
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary, special_tokens=list(SPECIAL), show_progress=False, min_frequency=2
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<bos> $A <eos>",
        special_tokens=[("<bos>", SPECIAL.index("<bos>")), ("<eos>", SPECIAL.index("<eos>"))],
    )
    return tokenizer
