"""The longest caption and the prompt of a run, before anything of it is read; and its frames.

Apart from the rehearsal, which takes any sizes. Cheap: the captions with most bytes stand for all.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tokenizers import Tokenizer
from tokenizers.models import BPE

from datasets_mm.media_types import is_video
from datasets_mm.storage.corpus import map_table
from engines import model_catalog
from engines.captioning.models import llm
from engines.captioning.models.llm import Wording
from engines.captioning.params import Params
from engines.emitter import EngineError
from engines.memory_query import MemoryQuery
from engines.model_catalog import ModelPart
from engines.torchkit.training import nano_models

TOKEN_BYTES: Final = 1.9
"""Most bytes of a caption of OpenMoji over most tokens, by the nano's tokenizers: 2.35 in English,
1.93 in Korean by one that has not read any. Larger vocabularies make fewer tokens."""
CHATML: Final = (3, 10)
"""Tokens before the picture and, beside the prompt's, after it: Qwen3's, its empty thought too."""
TEXTS: Final = 256
"""So many of the longest in bytes are counted: bytes and tokens do not rank quite alike."""
COLUMNS: Final = ["image_path", "answer", "dataset_id"]


@dataclass(frozen=True)
class Longest:
    """What the largest micro-batch has, sample by sample."""

    tokens: int
    """Of the longest caption, its end token included."""
    frames: int
    wording: Wording
    """Real, or as many tokens of nothing as it would have."""
    facts: dict[str, str]
    """How they were found, by what."""
    languages: frozenset[str]


@dataclass(frozen=True)
class Found:
    """What built subsets hold."""

    captions: list[str]
    """Those with most bytes."""
    videos: bool | None
    """Whether media are videos, by the first subset: a run does not mix them. None: not known."""
    languages: frozenset[str]


def of(want: MemoryQuery, params: Params, part: ModelPart) -> Longest:
    """The longest of what the run reads, for the language model `part`."""
    own = read(want.subsets)
    wording, real = wording_of(part, params)
    tokens, counted = caption_tokens(want, params, own.captions, wording if real else None)
    frames = params.frames if own.videos else 1
    shown = "pictures" if own.videos is False else "pictures, assumed, as no built subset was read"
    prompt = "counted with the model's tokenizer" if real else "assumed, as its tokenizer is absent"
    facts = {
        "longest caption": f"{tokens:,} tokens, {counted}",
        "prompt": f"{len(wording.before) + len(wording.after):,} tokens, {prompt}",
        "media": f"videos of {frames} frames" if own.videos else shown,
    }
    return Longest(tokens, frames, wording, facts, own.languages)


def read(folders: Sequence[str]) -> Found:
    """Captions and media of subsets; one that cannot be read is as if it were not there."""
    captions: dict[str, None] = {}
    languages: set[str] = set()
    videos: bool | None = None
    for folder in map(Path, folders):
        try:
            rows = map_table(folder / "records.arrow").select(COLUMNS).to_pydict()
        except (OSError, ValueError, KeyError):
            continue
        said = (" ".join(one.split()) for many in rows["answer"] for one in many or ())
        captions |= dict.fromkeys(said)
        languages |= {one for one in rows["dataset_id"] if one}
        paths = [path for path in rows["image_path"] if path]
        if videos is None and paths:
            videos = is_video(paths[0])
    most = sorted(captions, key=_bytes, reverse=True)[:TEXTS]
    return Found(most, videos, frozenset(languages))


def caption_tokens(
    want: MemoryQuery, params: Params, captions: Sequence[str], wording: Wording | None
) -> tuple[int, str]:
    """Tokens of the longest caption with its end, at most `max_tokens`, and how they were found."""
    most = params.max_tokens
    if want.text_tokens:
        return min(most, want.text_tokens), "as asked"
    if not captions:
        return most, "max_tokens, as no built subset was read"
    if wording is not None:
        return max(len(wording.encode(one, most)[0]) for one in captions), (
            "counted with the model's tokenizer"
        )
    size = _bytes(captions[0])
    said = f"estimated: {size:,} bytes, {TOKEN_BYTES:g} a token, at most max_tokens"
    return min(most, math.ceil(size / TOKEN_BYTES) + 1), said


def wording_of(part: ModelPart, params: Params) -> tuple[Wording, bool]:
    """The tokens around a picture, and whether they were counted: else an estimate stands in."""
    folder = model_catalog.weights_folder(part)
    if folder is not None and (folder / "tokenizer.json").is_file():
        try:
            return llm.wording(folder, params.prompt), True
        except EngineError:
            pass  # the run will say it; here an estimate does
    before, after = (1, 0) if part.architecture and not part.hub else CHATML
    after += math.ceil(_bytes(params.prompt) / TOKEN_BYTES)
    nothing: Any = Tokenizer(BPE())
    return Wording(
        nothing, (nano_models.BEGIN,) * before, (nano_models.PAD,) * after, nano_models.END, ""
    ), False


def _bytes(text: str) -> int:
    return len(text.encode())
