"""Longest text and largest picture of a run, for its memory estimate.

Only the texts with most bytes are tokenized, and only the headers of pictures are read.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from datasets_mm.building.build import IMAGE_ROOT
from datasets_mm.media.decode import read_inside, upright_size
from datasets_mm.recipes.record_classes import LETTERS
from datasets_mm.storage.corpus import map_table
from engines import model_catalog
from engines.emitter import EngineError
from engines.memory_query import MemoryQuery
from engines.torchkit.memory.patch_towers import Size
from engines.vqa import prepare
from engines.vqa.data.images import SizeLimits
from engines.vqa.models import chat_template
from engines.vqa.models.chat_template import ChoicePrompt

TEXT_TOKENS: Final = 192
"""Assumed text tokens (template, question, options, answer) where no subset can be read."""
TEMPLATE_TOKENS: Final = 32
"""Tokens of Qwen2.5-VL's template with system message and answer; the nano model has 15."""
TOKEN_BYTES: Final = 2.5
"""Fewest bytes per token of the nano tokenizer (356 tokens) on easy-VQA; its mean is 3.1. Larger
vocabularies need fewer tokens."""
COLUMNS: Final = ["question", "options", "image_path"]
TEXTS: Final = 256
"""Number of texts that are tokenized, those with most bytes: bytes only approximate tokens."""
PICTURES: Final = 1000
"""Most pictures whose size is read, evenly spaced."""


@dataclass(frozen=True)
class VqaMaxLengths:
    """The largest sizes of a sample; text and picture may be of different rows."""

    tokens: int
    """Tokens of the longest text, the answer included."""
    facts: dict[str, str]
    """How each size was determined."""
    train: tuple[int, int]
    """(height, width) in pixels of the largest picture in training."""
    predict: tuple[int, int]
    """The same at any of `tta_scales`."""


def find_max_lengths(
    query: MemoryQuery, factor: int, count: Callable[[Size], int] = math.prod
) -> VqaMaxLengths:
    """Largest sizes of the samples of a run; a square picture and a usual text without data.

    `factor`: sides of pictures are multiples of it, in pixels. `count`: tokens of a picture of a
    size, which need not go by its pixels: a narrow one can have more tiles than a square.
    """
    contents = read_subsets(query.subsets)
    sizes = [query.image_size] if query.image_size else contents.sizes
    scales = (1.0, *query.params.get("tta_scales", ()))
    tokens, method = count_text_tokens(query, contents.texts)
    facts = {"longest text": method}
    if contents.sizes and not query.image_size:
        facts["largest picture"] = f"of {contents.looked} that were looked at"
    train, predict = (
        find_largest_picture(query.params, sizes, factor, some, count) for some in ((1.0,), scales)
    )
    return VqaMaxLengths(tokens, facts, train, predict)


@dataclass(frozen=True)
class QuestionContents:
    """Texts and pictures of built subsets."""

    texts: list[ChoicePrompt]
    """The texts with most bytes, longest first."""
    sizes: list[tuple[int, int]]
    """Distinct (height, width) of pictures."""
    looked: str
    """Number of pictures whose size was read, such as `1,000 of 3,887`."""


def read_subsets(folders: Sequence[str]) -> QuestionContents:
    """Texts and pictures of subsets; unreadable subsets are skipped."""
    texts: dict[ChoicePrompt, None] = {}
    pictures: dict[tuple[Path, str], None] = {}
    for folder in map(Path, folders):
        try:
            rows = map_table(folder / "records.arrow").select(COLUMNS).to_pydict()
            root = Path(os.fsdecode((folder / IMAGE_ROOT).read_bytes())).resolve()
        except (OSError, ValueError, KeyError):
            continue
        for text, options in zip(rows["question"], rows["options"], strict=True):
            if options and len(options) == len(LETTERS):
                texts[ChoicePrompt(text, tuple(options), "a")] = None
        pictures |= dict.fromkeys((root, path) for path in rows["image_path"] if path)
    stride = math.ceil(len(pictures) / PICTURES) or 1
    sample = list(pictures)[::stride]
    sizes = {size for root, path in sample if (size := _read_size(root, path))}
    looked = f"{len(sample):,}" + (f" of {len(pictures):,}" if stride > 1 else "")
    return QuestionContents(sorted(texts, key=_bytes, reverse=True)[:TEXTS], sorted(sizes), looked)


def _bytes(prompt: ChoicePrompt) -> int:
    """Bytes of a question with its options."""
    listed = "".join(f"a. {option}\n" for option in prompt.options)
    return len(f"{prompt.question}\n{listed}".encode())


def _read_size(root: Path, path: str) -> tuple[int, int] | None:
    """(height, width); None: unreadable, which the run will report."""
    try:
        width, height = upright_size(read_inside(root, path))
    except Exception:  # decoders may raise anything on damaged files
        return None
    return height, width


def count_text_tokens(query: MemoryQuery, texts: Sequence[ChoicePrompt]) -> tuple[int, str]:
    """Tokens of the longest text with template and answer, and their source."""
    if query.text_tokens:
        return query.text_tokens, "as asked"
    if not texts:
        return TEXT_TOKENS, f"{TEXT_TOKENS} tokens assumed, as no built subset was read"
    prompts = [str(query.params.get("prompt", "")), *query.params.get("prompts", ())]
    prompt = max(prompts, key=len)
    folder = model_catalog.weights_folder(model_catalog.load(query.model))
    if folder is not None and (folder / "tokenizer.json").is_file():
        try:
            template = chat_template.read_chat_template(
                prepare.load_hf_processor(folder), prompt, folder
            )
            return max(template.count_tokens(texts)) - 1, "counted with the model's tokenizer"
        except EngineError:
            pass  # the run will report it; an estimate is enough here
    size = max(map(_bytes, texts)) + len(prompt.encode())
    method = f"estimated: {size:,} bytes, {TOKEN_BYTES:g} a token, and the template"
    return math.ceil(size / TOKEN_BYTES) + TEMPLATE_TOKENS, method


def find_largest_picture(
    params: Mapping[str, Any],
    sizes: Sequence[Size],
    factor: int,
    scales: Sequence[float] = (1.0,),
    count: Callable[[Size], int] = math.prod,
) -> Size:
    """(height, width) in pixels of the picture with most tokens, as `count` has them.

    A square where no size is known.
    """
    side, most = int(params["long_side"]), int(params["max_pixels"])
    limits = SizeLimits(side, int(params["min_pixels"]), most, factor)
    edge = side or math.isqrt(most)
    scaled = [limits.size(*size, scale) for size in sizes or [(edge, edge)] for scale in scales]
    return max(dict.fromkeys(scaled), key=count)
