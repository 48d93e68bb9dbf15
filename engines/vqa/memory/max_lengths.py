"""The longest text and the largest picture of subsets that are built, before a run reads them.

Apart from the rehearsal, which takes any sizes. Cheap: the texts with most bytes stand for all, and
pictures are looked at no further than their headers.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from datasets_mm.building.build import IMAGE_ROOT
from datasets_mm.media.decode import read_inside, upright_size
from datasets_mm.storage.corpus import map_table
from engines import model_catalog
from engines.emitter import EngineError
from engines.memory_query import MemoryQuery
from engines.vqa import prepare
from engines.vqa.data.images import Limits
from engines.vqa.models import chat_template
from engines.vqa.models.chat_template import LETTERS, Said

TEXT_TOKENS: Final = 192
"""Where no subset can be read: template, question, four options and answer."""
TEMPLATE_TOKENS: Final = 32
"""Qwen2.5-VL's template with its system message, and the answer; the nano's are 15."""
TOKEN_BYTES: Final = 2.5
"""Least of the nano's tokenizer (356 tokens) over easy-VQA's questions; its mean is 3.1. Larger
vocabularies make fewer tokens of the same English."""
COLUMNS: Final = ["question", "options", "image_path"]
TEXTS: Final = 256
"""So many of the longest in bytes are counted: bytes and tokens do not rank quite alike."""
PICTURES: Final = 1000
"""So many are looked at, evenly spaced."""


@dataclass(frozen=True)
class Longest:
    """What the longest sample has, its text and its picture perhaps not of one row."""

    tokens: int
    """Of text, the answer included."""
    facts: dict[str, str]
    """How they were found, by what."""
    train: tuple[int, int]
    """Rows and columns of pixels that a picture gets in training."""
    predict: tuple[int, int]
    """The same at the largest of `tta_scales`."""


def of(want: MemoryQuery, factor: int) -> Longest:
    """The longest of what the run reads; a square picture and a usual text where none is known.

    `factor`: sides of pictures are multiples of so many pixels.
    """
    own = read(want.subsets)
    sizes = [want.image_size] if want.image_size else own.sizes
    scale = max(1.0, *want.params.get("tta_scales", ()), 0.0)
    tokens, said = text_tokens(want, own.texts)
    facts = {"longest text": said}
    if own.sizes and not want.image_size:
        facts["largest picture"] = f"of {own.looked} that were looked at"
    train, predict = (largest(want.params, sizes, factor, one) for one in (1.0, scale))
    return Longest(tokens, facts, train, predict)


@dataclass(frozen=True)
class Found:
    """What built subsets hold."""

    texts: list[Said]
    """The longest ones."""
    sizes: list[tuple[int, int]]
    """(height, width) of pictures, each once."""
    looked: str
    """`1,000 of 3,887`."""


def read(folders: Sequence[str]) -> Found:
    """Texts and pictures of subsets; one that cannot be read is as if it were not there."""
    texts: dict[Said, None] = {}
    pictures: dict[tuple[Path, str], None] = {}
    for folder in map(Path, folders):
        try:
            rows = map_table(folder / "records.arrow").select(COLUMNS).to_pydict()
            root = Path(os.fsdecode((folder / IMAGE_ROOT).read_bytes())).resolve()
        except (OSError, ValueError, KeyError):
            continue
        for text, options in zip(rows["question"], rows["options"], strict=True):
            if options and len(options) == len(LETTERS):
                texts[Said(text, tuple(options), "a")] = None
        pictures |= dict.fromkeys((root, path) for path in rows["image_path"] if path)
    every = math.ceil(len(pictures) / PICTURES) or 1
    some = list(pictures)[::every]
    sizes = {size for root, path in some if (size := _extent(root, path))}
    looked = f"{len(some):,}" + (f" of {len(pictures):,}" if every > 1 else "")
    return Found(sorted(texts, key=_bytes, reverse=True)[:TEXTS], sorted(sizes), looked)


def _bytes(said: Said) -> int:
    """Of the question with its options, as it is asked."""
    listed = "".join(f"a. {option}\n" for option in said.options)
    return len(f"{said.question}\n{listed}".encode())


def _extent(root: Path, path: str) -> tuple[int, int] | None:
    """(height, width); None: it cannot be read, which the run will say."""
    try:
        width, height = upright_size(read_inside(root, path))
    except Exception:  # a decoder meets hostile bytes
        return None
    return height, width


def text_tokens(want: MemoryQuery, texts: Sequence[Said]) -> tuple[int, str]:
    """Tokens of the longest text with template and answer, and how they were found."""
    if want.text_tokens:
        return want.text_tokens, "as asked"
    if not texts:
        return TEXT_TOKENS, f"{TEXT_TOKENS} tokens assumed, as no built subset was read"
    prompt = str(want.params.get("prompt", ""))
    folder = model_catalog.weights_folder(model_catalog.load(want.model))
    if folder is not None and (folder / "tokenizer.json").is_file():
        try:
            words = chat_template.of(prepare.load_processor(folder), prompt, folder)
            return max(words.lengths(texts)) - 1, "counted with the model's tokenizer"
        except EngineError:
            pass  # the run will say it; here an estimate does
    size = max(map(_bytes, texts)) + len(prompt.encode())
    said = f"estimated: {size:,} bytes, {TOKEN_BYTES:g} a token, and the template"
    return math.ceil(size / TOKEN_BYTES) + TEMPLATE_TOKENS, said


def largest(
    params: Mapping[str, Any], sizes: Sequence[tuple[int, int]], factor: int, scale: float = 1.0
) -> tuple[int, int]:
    """Rows and columns of pixels of the largest picture; a square where no size is known."""
    side, most = int(params["long_side"]), int(params["max_pixels"])
    limits = Limits(side, int(params["min_pixels"]), most, factor)
    edge = side or math.isqrt(most)
    made = [limits.size(*one, scale) for one in sizes or [(edge, edge)]]
    return max(made, key=math.prod)
