"""The tokenizer of a model folder, read from its tokenizer.json.

transformers' classes are not used: for SigLIP they neither pad nor lower the case, and without a
tokenizer_config.json (TinyCLIP) they take the maximal length for infinite and truncate nothing.
"""

from __future__ import annotations

import json
import string
from pathlib import Path
from typing import Any, Final, NamedTuple

from tokenizers import Regex, Tokenizer, normalizers

from engines.emitter import EngineError, first_line

TOKENIZER: Final = "tokenizer.json"


class SiglipTokenizer(NamedTuple):
    """SigLIP's tokenizer: lower case, for SigLIP 1 no punctuation; texts are padded to `length`."""

    tokenizer: Tokenizer
    pad: int
    length: int
    """Context of the text tower, tokens."""


def from_folder(folder: Path) -> Tokenizer:
    """The tokenizer of a model folder, as the file states it.

    Raises:
        EngineError: the file is damaged, or not there.
    """
    path = folder / TOKENIZER
    try:
        return Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises bare Exception
        raise EngineError(
            f"{path}: is no tokenizer ({first_line(error)}); save the model again"
        ) from None


def siglip_from_folder(folder: Path) -> SiglipTokenizer:
    """SigLIP's tokenizer of a model folder.

    Raises:
        EngineError: the file is damaged, or not there.
    """
    tokenizer, config = from_folder(folder), read_json(folder / "config.json")
    stated = read_json(folder / "tokenizer_config.json")
    text = config.get("text_config") or {}
    token = stated.get("pad_token")
    name = token.get("content") if isinstance(token, dict) else token
    pad = tokenizer.token_to_id(name) if name else None
    steps: list[normalizers.Normalizer] = [normalizers.Lowercase()]
    if str(stated.get("tokenizer_class", "")).startswith("SiglipTokenizer"):
        steps += [normalizers.Replace(char, "") for char in string.punctuation]
        steps += [normalizers.Replace(Regex(r"\s+"), " "), normalizers.Strip()]
    own_steps = [tokenizer.normalizer] if tokenizer.normalizer else []
    tokenizer.normalizer = normalizers.Sequence([*steps, *own_steps])
    length = int(text.get("max_position_embeddings") or 64)
    return SiglipTokenizer(
        tokenizer, int(text.get("pad_token_id", 1)) if pad is None else pad, length
    )


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object of a model folder; empty: it is missing or damaged."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
