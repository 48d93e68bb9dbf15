"""Lengths of texts in tokens, and the share of them that a model's context truncates.

The default is CLIP's byte-pair tokenizer (Radford et al. 2021), rebuilt from the vocabulary file
that the package open_clip_torch ships; that package is located, not imported.
"""

from __future__ import annotations

import gzip
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Final

from datasets_mm.profile.profile import LengthProfile, TokenProfile
from datasets_mm.sources.fingerprint import package_folder

CONTEXT: Final = 77
"""Of CLIP and TinyCLIP, begin and end marks included."""
STEP: Final = 16
STEPS: Final = 16
"""The histogram shows lengths up to 256 tokens, then one open step."""
Z95: Final = 1.959963984540054

BEGIN, END = "<|startoftext|>", "<|endoftext|>"
VOCABULARY: Final = "bpe_simple_vocab_16e6.txt.gz"
MERGES: Final = 49_152 - 256 - 2
"""Of the file's 262,144 merges CLIP uses the first ones, after a header line."""
PIECES: Final = (
    r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
)
_WORDS: Final = re.compile(r"'s|'t|'re|'ve|'m|'ll|'d|[^\W\d_]+|\d|[^\s\w]+|_+")


@dataclass
class TokenCounter:
    """Texts -> tokens of each, begin and end marks counted, nothing cut."""

    name: str
    count: Callable[[Sequence[str]], list[int]]
    is_stand_in: bool = False


def load_counter(folder: Path | None = None) -> TokenCounter:
    """The tokenizer of a model's folder; without one CLIP's, or words where that is not here."""
    if folder is not None:
        file = folder / "tokenizer.json"
        return TokenCounter(
            f"tokenizer.json of {folder.name}", _lazy_counter(lambda: _load_file(file))
        )
    package = package_folder("open_clip")
    if package is not None and (package / VOCABULARY).is_file():
        vocabulary = package / VOCABULARY
        return TokenCounter(
            "CLIP BPE, 49,408 entries", _lazy_counter(lambda: build_clip_tokenizer(vocabulary))
        )
    return TokenCounter(
        "words and marks, a lower bound of CLIP's BPE (pip install open_clip_torch has it)",
        lambda texts: [len(_WORDS.findall(text)) + 2 for text in texts],
        is_stand_in=True,
    )


def _load_file(file: Path) -> Any:
    from tokenizers import Tokenizer

    return Tokenizer.from_file(str(file))


def _lazy_counter(load: Callable[[], Any]) -> Callable[[Sequence[str]], list[int]]:
    """Counting function whose tokenizer is loaded (0.3 s) with the first texts."""

    @cache
    def load_tokenizer() -> Any:
        tokenizer = load()
        tokenizer.no_truncation()
        tokenizer.no_padding()
        return tokenizer

    def count(texts: Sequence[str]) -> list[int]:
        # A lone surrogate is legal in JSON and no text to a tokenizer.
        valid_texts = [text.encode("utf-8", "replace").decode() for text in texts]
        return (
            [len(encoding) for encoding in load_tokenizer().encode_batch_fast(valid_texts)]
            if valid_texts
            else []
        )

    return count


def build_clip_tokenizer(vocabulary: Path) -> Any:
    """CLIP's tokenizer as a `tokenizers.Tokenizer`: 49,408 entries, lower case, `</w>` at ends."""
    from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors

    lines = gzip.decompress(vocabulary.read_bytes()).decode("utf-8").split("\n")
    merges = [(a, b) for a, b in (line.split() for line in lines[1 : MERGES + 1])]
    letters = _byte_letters()
    entries = [*letters, *(letter + "</w>" for letter in letters)]
    entries += [*map("".join, merges), BEGIN, END]
    vocab = {entry: number for number, entry in enumerate(entries)}
    model = models.BPE(vocab=vocab, merges=merges, end_of_word_suffix="</w>", unk_token=END)
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PIECES), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BEGIN} $A {END}",
        special_tokens=[(BEGIN, vocab[BEGIN]), (END, vocab[END])],
    )
    return tokenizer


def _byte_letters() -> list[str]:
    """A printable letter for each of the 256 bytes, in the order of CLIP's vocabulary (GPT-2's)."""
    printable = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    rest = [byte for byte in range(256) if byte not in printable]
    return [chr(byte) for byte in printable] + [chr(256 + number) for number in range(len(rest))]


@dataclass
class LengthCount:
    """Texts by length. A record weighs 1: where all its positives are counted, each a part of 1."""

    weights: dict[int, float] = field(default_factory=dict)
    longest: int = 0

    def add(self, length: int, weight: float = 1.0) -> None:
        """Count a text."""
        self.weights[length] = self.weights.get(length, 0.0) + weight
        self.longest = max(self.longest, length)

    def lengths(self, context: int, *, sampled: bool) -> LengthProfile | None:
        """The figures; with 95 % intervals if the texts were sampled. None: there was no text."""
        n = round(sum(self.weights.values()))
        if not n:
            return None
        mean = sum(length * w for length, w in self.weights.items()) / n
        spread = sum(w * (length - mean) ** 2 for length, w in self.weights.items())
        error = Z95 * math.sqrt(spread / max(n - 1, 1) / n)
        cut = sum(w for length, w in self.weights.items() if length > context) / n
        low, high = wilson_interval(cut, n)
        return LengthProfile(
            n=n,
            mean=mean,
            mean_low=mean - error if sampled else None,
            mean_high=mean + error if sampled else None,
            median=self._quantile(0.5, n),
            p95=self._quantile(0.95, n),
            longest=self.longest,
            truncated=cut,
            truncated_low=low if sampled else None,
            truncated_high=high if sampled else None,
            histogram=self._histogram(),
        )

    def _quantile(self, share: float, n: int) -> int:
        """The smallest length that at least this share of the texts does not exceed."""
        below = 0.0
        for length in sorted(self.weights):
            below += self.weights[length]
            if below >= share * n - 1e-6:
                return length
        return self.longest

    def _histogram(self) -> tuple[int, ...]:
        steps = [0.0] * (STEPS + 1)
        for length, weight in self.weights.items():
            steps[min((length - 1) // STEP if length else 0, STEPS)] += weight
        return tuple(round(step) for step in steps)


def wilson_interval(share: float, n: int) -> tuple[float, float]:
    """95 % interval of a share found in n independent draws (Wilson 1927)."""
    if not n:
        return 0.0, 1.0
    square = Z95 * Z95
    middle = (share + square / (2 * n)) / (1 + square / n)
    half = Z95 * math.sqrt(share * (1 - share) / n + square / (4 * n * n)) / (1 + square / n)
    return max(0.0, middle - half), min(1.0, middle + half)


@dataclass
class TokenCount:
    """Lengths of queries and positives."""

    query: LengthCount = field(default_factory=LengthCount)
    passage: LengthCount = field(default_factory=LengthCount)
    _lengths: dict[int, int] = field(default_factory=dict)
    """Hash of a passage -> its tokens, because passages repeat."""

    def add(
        self, counter: TokenCounter, queries: Sequence[str], passages: Sequence[list[str]]
    ) -> None:
        """Count records: a query and the texts of some or all positives of each."""
        for length in counter.count([query for query in queries if query]):
            self.query.add(length)
        new = {
            hash(t): t for texts in passages for t in texts if t and hash(t) not in self._lengths
        }
        self._lengths.update(zip(new, counter.count(list(new.values())), strict=True))
        for texts in passages:
            filled = [text for text in texts if text]
            for text in filled:
                self.passage.add(self._lengths[hash(text)], 1 / len(filled))

    def profile(self, counter: TokenCounter, context: int, seed: int | None) -> TokenProfile:
        """The figures; `seed` of the sample, or None for a full count."""
        sampled = seed is not None
        return TokenProfile(
            tokenizer=counter.name,
            is_stand_in=counter.is_stand_in,
            context=context,
            step=STEP,
            seed=seed,
            query=self.query.lengths(context, sampled=sampled),
            passage=self.passage.lengths(context, sampled=sampled),
        )
