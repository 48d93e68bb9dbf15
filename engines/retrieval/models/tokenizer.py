"""Tokenizers with their padding: a model's own, or one that is trained on the subset."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers

from datasets_mm.atomic_files import atomic_path, locked
from datasets_mm.sources.fingerprint import package_folder
from engines.emitter import EngineError
from engines.torchkit.modeling import model_tokenizer

OPEN_CLIP: Final = "open_clip_config.json"

SPECIAL: Final = ("<pad>", "<unk>", "<mask>", "<bos>", "<eos>")
"""<eos> is 4, not 2: transformers takes an eos id of 2 for a known mistake in old CLIP configs."""


@dataclass(frozen=True)
class TextTokenizer:
    """Tokenizer of a model, with its padding."""

    tokenizer: Tokenizer
    pad: int
    length: int = 0
    """Length to which texts are padded, as in the model's training; 0: longest of the batch."""
    description: str = ""
    """Size and origin of the tokenizer, for the facts of a run."""


def load_model_tokenizer(folder: Path, family: str) -> TextTokenizer:
    """The tokenizer, padding and length that a model in a folder was trained with.

    Raises:
        EngineError: the tokenizer is damaged or not supported.
    """
    if family == "siglip":
        return _load_siglip_tokenizer(folder)
    if family == "open-clip":
        return _load_open_clip_tokenizer(folder)
    tokenizer = make_text_tokenizer(model_tokenizer.from_folder(folder), "the model's own")
    if family == "qwen-embedding":  # it names no padding token, and 0 is a word
        number = tokenizer.tokenizer.token_to_id("<|endoftext|>")
        return tokenizer if number is None else replace(tokenizer, pad=number)
    return tokenizer


def make_text_tokenizer(tokenizer: Tokenizer, origin: str) -> TextTokenizer:
    """A tokenizer with padding to the longest of a batch, for models that ignore padding."""
    candidates = (tokenizer.token_to_id(name) for name in ("<pad>", "[PAD]"))
    pad = next((number for number in candidates if number is not None), 0)
    return TextTokenizer(
        tokenizer, pad, description=f"{tokenizer.get_vocab_size()} entries, {origin}"
    )


def _load_siglip_tokenizer(folder: Path) -> TextTokenizer:
    """SigLIP's tokenizer, padded to the context."""
    tokenizer, pad, length = model_tokenizer.siglip_from_folder(folder)
    description = f"{tokenizer.get_vocab_size()} entries, the model's own, lower case"
    return TextTokenizer(tokenizer, pad, length, description)


def _load_open_clip_tokenizer(folder: Path) -> TextTokenizer:
    """CLIP's tokenizer, with the package's vocabulary; padded with 0 to the context."""
    text = model_tokenizer.read_json(folder / OPEN_CLIP).get("model_cfg", {}).get("text_cfg", {})
    length = read_context_length(text, folder / OPEN_CLIP)
    from datasets_mm.profile.token_lengths import VOCABULARY, build_clip_tokenizer

    package = package_folder("open_clip")
    if package is None:
        raise EngineError("package `open_clip` is missing; install the `retrieval` extra")
    tokenizer = build_clip_tokenizer(package / VOCABULARY)
    description = f"{tokenizer.get_vocab_size()} entries, CLIP's"
    return TextTokenizer(tokenizer, 0, length, description)


def read_context_length(text: dict[str, Any], source: object) -> int:
    """Context length, in tokens, of open_clip's text tower with this configuration.

    Raises:
        EngineError: the tower is not open_clip's own, or does not pool by `argmax`.
    """
    for key, expected in (
        ("hf_model_name", None),
        ("hf_tokenizer_name", None),
        ("pool_type", "argmax"),
    ):
        if text.get(key, expected) != expected:
            raise EngineError(
                f"{source}: {key} = {text[key]} is not supported; use the model's "
                "folder in transformers' layout"
            )
    return int(text.get("context_length", 77))


def get_or_train_tokenizer(texts: Sequence[str], vocabulary: int, cache_root: Path) -> Tokenizer:
    """A BPE tokenizer of `vocabulary` entries trained on these texts, cached."""
    digest = hashlib.blake2b(digest_size=12)
    digest.update(f"bpe-1:{vocabulary}".encode())
    for text in texts:
        digest.update(text.encode())
        digest.update(b"\0")
    folder = cache_root / "tokenizers"
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    path = folder / f"{digest.hexdigest()}.json"
    with locked(folder / "lock"):
        if not path.exists():
            with atomic_path(path) as draft:
                _train_tokenizer(texts, vocabulary).save(str(draft))
    return Tokenizer.from_file(str(path))


def _train_tokenizer(texts: Sequence[str], vocabulary: int) -> Tokenizer:
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
