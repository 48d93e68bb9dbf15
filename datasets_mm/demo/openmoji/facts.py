"""Facts of things: what each kind of passage states, with countryinfo's fields put into words.

A fact that the package does not give, or gives in a form that cannot be trusted, is left out: an
absent passage is honest, an empty one is noise.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from functools import cache
from typing import Any

from datasets_mm.demo.openmoji.things import HERE, Thing


@cache
def language_names() -> dict[str, str]:
    """ISO 639 code -> English name."""
    return tomllib.loads((HERE / "languages.toml").read_text("utf-8"))


def facts(thing: Thing, country_names: Mapping[str, str]) -> dict[str, str]:
    """Kind -> value, only the kinds that are known. `country_names`: alpha-3 code -> name."""
    known = {
        "korean": thing.names["ko"],
        "japanese": thing.names["ja"],
        "german": thing.names["de"],
        "spanish": thing.names["es"],
        "french": thing.names["fr"],
        "chinese": thing.names["zh"],
    }
    if thing.country is None:
        known["codepoint"] = " ".join(f"U+{part}" for part in thing.hexcode.split("-"))
    else:
        known |= _country(thing.country, thing.name, country_names)
    return {kind: value for kind, value in known.items() if value}


def _country(
    country: dict[str, Any], name: str, country_names: Mapping[str, str]
) -> dict[str, str]:
    native = str(country.get("nativeName") or "").strip("\u200e\u200f ")
    return {
        "capital": country.get("capital") or "",
        "currency": _codes(country.get("currencies")),
        "population": _number(country.get("population")),
        "area": _number(country.get("area")),
        "region": _region(country),
        "languages": _named(country.get("languages"), language_names()),
        "borders": _named(country.get("borders"), country_names),
        "internet": ", ".join(country.get("tld") or ()),
        "telephone": ", ".join(f"+{code}" for code in country.get("callingCodes") or ()),
        "demonym": ", ".join(str(country.get("demonym") or "").split(",")),
        "endonym": native if native != name else "",
    }


def _number(value: Any) -> str:
    """2895947 -> `2,895,947`; zero and absent are unknown here."""
    return f"{int(value):,}" if value else ""


def _codes(codes: Any) -> str:
    """`ALL` -> `ALL (ISO 4217)`: bare letters would be found inside other words."""
    return f"{', '.join(codes)} (ISO 4217)" if codes else ""


def _region(country: dict[str, Any]) -> str:
    """`Southern Europe, Europe`, or the region alone."""
    parts = [country.get("subregion"), country.get("region")]
    return ", ".join(dict.fromkeys(part for part in parts if part))


def _named(codes: Any, names: Mapping[str, str]) -> str:
    """Codes in words; "" unless every code is known, so that no list is silently short."""
    if not codes or any(code not in names for code in codes):
        return ""
    return ", ".join(names[code] for code in codes)
