"""Longest caption, prompt and frames of a run, for its memory estimate.

Only the captions with most bytes are tokenized.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tokenizers import Tokenizer
from tokenizers.models import BPE

from datasets_mm.building.build import IMAGE_ROOT
from datasets_mm.storage.corpus import map_table
from engines import model_catalog
from engines.captioning.data.captions import names_video
from engines.captioning.metrics import bert_score
from engines.captioning.models import llm
from engines.captioning.models.llm import PromptTemplate
from engines.captioning.params import Params
from engines.emitter import EngineError
from engines.memory_query import MemoryQuery
from engines.model_catalog import ModelPart
from engines.torchkit.modeling import model_tokenizer
from engines.torchkit.training import nano_models

TOKEN_BYTES: Final = 1.9
"""Most bytes of a caption of OpenMoji over most tokens, by the nano's tokenizers: 2.35 in English,
1.93 in Korean by one that has not read any. Larger vocabularies make fewer tokens."""
CHATML: Final = (3, 10)
"""Tokens of Qwen3's template before the picture and after it, without those of the prompt."""
TEXTS: Final = 256
"""Number of captions that are tokenized, those with most bytes: bytes only approximate tokens."""
COLUMNS: Final = ["image_path", "answer", "dataset_id"]


@dataclass(frozen=True)
class CaptioningMaxLengths:
    """The largest sizes of a sample."""

    tokens: int
    """Tokens of the longest caption, its end token included."""
    frames: int
    template: PromptTemplate
    """The true one, or one of as many padding tokens as estimated."""
    facts: dict[str, str]
    """How each size was determined."""
    languages: frozenset[str]
    score_pairs: int
    """Pairs of texts that BERTScore compares at once."""
    score_tokens: int
    """Tokens of the longest of them, by its encoder."""


@dataclass(frozen=True)
class CaptionContents:
    """Captions and media of built subsets."""

    captions: list[str]
    """The captions with most bytes, longest first."""
    videos: bool | None
    """Whether media are videos, by the first subset, as a run does not mix them; None: unknown."""
    languages: frozenset[str]
    references: int
    """Most captions of one medium; 1 without captions."""


def find_max_lengths(query: MemoryQuery, params: Params, part: ModelPart) -> CaptioningMaxLengths:
    """Largest sizes of the samples of a run with the language model `part`."""
    contents = read_subsets(query.subsets)
    template, exact = read_or_estimate_template(part, params)
    tokens, method = count_caption_tokens(
        query, params, contents.captions, template if exact else None
    )
    frames = params.frames if contents.videos else 1
    media = (
        "pictures" if contents.videos is False else "pictures, assumed, as no built subset was read"
    )
    prompt_source = (
        "counted with the model's tokenizer" if exact else "assumed, as its tokenizer is absent"
    )
    facts = {
        "longest caption": f"{tokens:,} tokens, {method}",
        "prompt": f"{len(template.before) + len(template.after):,} tokens, {prompt_source}",
        "media": f"videos of {frames} frames" if contents.videos else media,
    }
    pairs, score_tokens = bert_score.CAPTIONS_AT_ONCE * contents.references, 0
    if params.bert_score and "bertscore" in params.scorers:
        score_tokens, method = count_score_tokens(params, contents.captions)
        facts["BERTScore"] = f"{pairs:,} pairs of {score_tokens:,} tokens at once, {method}"
    return CaptioningMaxLengths(
        tokens, frames, template, facts, contents.languages, pairs, score_tokens
    )


def count_score_tokens(params: Params, captions: Sequence[str]) -> tuple[int, str]:
    """Tokens of the longest text that BERTScore's encoder reads, and their source.

    Generated captions are taken to have as many of its tokens as of the language model's.
    """
    part = model_catalog.parse_part(params.bert_score)
    folder = model_catalog.weights_folder(part) if part else None
    generated, sizes = params.max_new_tokens, [_bytes(text) for text in captions[:1]]
    references, method = math.ceil(max(sizes, default=0) / TOKEN_BYTES), "estimated from bytes"
    if folder is not None and (folder / "tokenizer.json").is_file():
        try:
            tokenizer = model_tokenizer.from_folder(folder)
        except EngineError:  # the run will report it
            tokenizer = None
        if tokenizer is not None:
            encodings = tokenizer.encode_batch(list(captions))
            references = max((len(encoding.ids) for encoding in encodings), default=0)
            method = "counted with the encoder's tokenizer"
    if not captions:
        references, method = bert_score.LONGEST, "the longest, as no built subset was read"
    return min(bert_score.LONGEST, max(generated, references)), method


def read_subsets(folders: Sequence[str]) -> CaptionContents:
    """Captions and media of subsets; unreadable subsets are skipped."""
    captions: dict[str, None] = {}
    languages: set[str] = set()
    videos: bool | None = None
    most = 1
    for folder in map(Path, folders):
        try:
            rows = map_table(folder / "records.arrow").select(COLUMNS).to_pydict()
        except (OSError, ValueError, KeyError):
            continue
        texts = (" ".join(text.split()) for answers in rows["answer"] for text in answers or ())
        captions |= dict.fromkeys(texts)
        most = max([most, *(len(answers or ()) for answers in rows["answer"])])
        languages |= {text for text in rows["dataset_id"] if text}
        paths = [path for path in rows["image_path"] if path]
        if videos is None and paths:
            videos = names_video(_read_image_root(folder), paths[0])
    longest = sorted(captions, key=_bytes, reverse=True)[:TEXTS]
    return CaptionContents(longest, videos, frozenset(languages), most)


def _read_image_root(folder: Path) -> Path:
    """Folder of the media of a built subset; the subset's own where that is not stored."""
    try:
        return Path(os.fsdecode((folder / IMAGE_ROOT).read_bytes()))
    except OSError:
        return folder


def count_caption_tokens(
    query: MemoryQuery, params: Params, captions: Sequence[str], template: PromptTemplate | None
) -> tuple[int, str]:
    """Tokens of the longest caption with its end token, at most `max_length`, and their source."""
    limit = params.max_length
    if query.text_tokens:
        return min(limit, query.text_tokens), "as asked"
    if not captions:
        return limit, "max_length, as no built subset was read"
    if template is not None:
        return max(len(template.encode(caption, limit)[0]) for caption in captions), (
            "counted with the model's tokenizer"
        )
    size = _bytes(captions[0])
    method = f"estimated: {size:,} bytes, {TOKEN_BYTES:g} a token, at most max_length"
    return min(limit, math.ceil(size / TOKEN_BYTES) + 1), method


def read_or_estimate_template(part: ModelPart, params: Params) -> tuple[PromptTemplate, bool]:
    """The template around a picture, and whether it is exact; else it has an estimated length."""
    folder = model_catalog.weights_folder(part)
    if folder is not None and (folder / "tokenizer.json").is_file():
        try:
            return llm.read_prompt_template(folder, params.prompt), True
        except EngineError:
            pass  # the run will report it; an estimate is enough here
    before, after = (1, 0) if part.architecture and not part.hub else CHATML
    after += math.ceil(_bytes(params.prompt) / TOKEN_BYTES)
    empty_tokenizer: Any = Tokenizer(BPE())
    return PromptTemplate(
        empty_tokenizer,
        (nano_models.BEGIN,) * before,
        (nano_models.PAD,) * after,
        nano_models.END,
        "",
    ), False


def _bytes(text: str) -> int:
    return len(text.encode())
