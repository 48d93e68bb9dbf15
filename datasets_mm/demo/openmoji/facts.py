"""Facts of emojis: the value of each kind of passage, with countryinfo's fields put into words.

A fact that the package does not give, or gives in an unreliable form, is left out.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from functools import cache
from typing import Any

from datasets_mm.demo.openmoji.emojis import HERE, Emoji


@cache
def language_names() -> dict[str, str]:
    """ISO 639 code -> English name."""
    return tomllib.loads((HERE / "languages.toml").read_text("utf-8"))


def collect_facts(emoji: Emoji, country_names: Mapping[str, str]) -> dict[str, str]:
    """Kind -> value, for known kinds. `country_names`: alpha-3 code -> name."""
    facts = {
        "korean": emoji.names["ko"],
        "japanese": emoji.names["ja"],
        "german": emoji.names["de"],
        "spanish": emoji.names["es"],
        "french": emoji.names["fr"],
        "chinese": emoji.names["zh"],
    }
    if emoji.country is None:
        facts["codepoint"] = " ".join(f"U+{part}" for part in emoji.hexcode.split("-"))
    else:
        facts |= _country_facts(emoji.country, emoji.name, country_names)
    return {kind: value for kind, value in facts.items() if value}


def _country_facts(
    country: dict[str, Any], name: str, country_names: Mapping[str, str]
) -> dict[str, str]:
    native = str(country.get("nativeName") or "").strip("\u200e\u200f ")
    return {
        "capital": country.get("capital") or "",
        "currency": _format_codes(country.get("currencies")),
        "population": _format_number(country.get("population")),
        "area": _format_number(country.get("area")),
        "region": _format_region(country),
        "languages": _join_names(country.get("languages"), language_names()),
        "borders": _join_names(country.get("borders"), country_names),
        "internet": ", ".join(country.get("tld") or ()),
        "telephone": ", ".join(f"+{code}" for code in country.get("callingCodes") or ()),
        "demonym": ", ".join(str(country.get("demonym") or "").split(",")),
        "endonym": native if native != name else "",
    }


def _format_number(value: Any) -> str:
    """2895947 -> `2,895,947`; zero and absent are unknown here."""
    return f"{int(value):,}" if value else ""


def _format_codes(codes: Any) -> str:
    """`ALL` -> `ALL (ISO 4217)`: bare letters would be found inside other words."""
    return f"{', '.join(codes)} (ISO 4217)" if codes else ""


def _format_region(country: dict[str, Any]) -> str:
    """`Southern Europe, Europe`, or the region alone."""
    parts = [country.get("subregion"), country.get("region")]
    return ", ".join(dict.fromkeys(part for part in parts if part))


def _join_names(codes: Any, names: Mapping[str, str]) -> str:
    """Names of codes, joined; "" unless every code is known."""
    if not codes or any(code not in names for code in codes):
        return ""
    return ", ".join(names[code] for code in codes)
