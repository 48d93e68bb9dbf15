"""OpenMoji-KB: the embedded default for retrieval, made on this machine from data packages.

Drawings and names are OpenMoji's and Unicode's, leads are Wikipedia's, facts are countryinfo's; the
questions and the sentences around facts are templates (`kinds.toml`). The question names the fact
and the image names its subject, so that neither alone can find the passage.
"""

from __future__ import annotations

import hashlib
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datasets_mm.adapters import SourceReport
from datasets_mm.child_messages import Progress
from datasets_mm.demo.openmoji import pictures
from datasets_mm.demo.openmoji.emojis import HERE, Emoji, EmojiSet, read_emoji_set, read_emojis
from datasets_mm.demo.openmoji.facts import collect_facts
from datasets_mm.sources.location import Location
from datasets_mm.storage.arrow_store import corpus_writer, record_writer

REVISION = 1

INSTRUCTIONS = (
    "Find the passage that answers the question about the picture:",
    "Use the picture and the question to retrieve a passage:",
    "Which passage answers this about the image?",
)


@dataclass(frozen=True)
class EmojiPassage:
    """One entry of the corpus."""

    passage_id: str
    text: str
    picture: str = ""


def write(
    location: Location,  # noqa: ARG001 - the packages are fixed; the recipe only pins their versions
    folder: Path,
    progress: Progress,
) -> SourceReport:
    """Render the pictures, then write every passage and every question."""
    emoji_set = read_emoji_set()
    kinds = tomllib.loads((HERE / "kinds.toml").read_text("utf-8"))
    report = SourceReport()
    emojis = _render_pictures(
        read_emojis(emoji_set), emoji_set, folder / "images", report, progress
    )
    passages = _make_passages(emojis, emoji_set, kinds, folder / "images")
    corpus = corpus_writer(folder)
    for passage in passages.values():
        corpus.add(
            {
                "passage_id": passage.passage_id,
                "passage_text": passage.text,
                "passage_image_path": passage.picture,
            }
        )
    corpus.close()
    records = record_writer(folder)
    for emoji in emojis:
        for record in _make_records(emoji, kinds, passages, emoji_set):
            records.add(record)
    records.close()
    report.facts = {
        "pictures": str(len(emojis)),
        "flags": str(sum(emoji.is_flag for emoji in emojis)),
        "wikipedia leads": str(len(emoji_set.leads)),
    }
    return report


def _render_pictures(
    emojis: list[Emoji],
    emoji_set: EmojiSet,
    folder: Path,
    report: SourceReport,
    progress: Progress,
) -> list[Emoji]:
    """Render all images; of emojis with one and the same drawing only one is kept."""
    emoji_of_drawing: dict[str, Emoji] = {}
    for part in ("picture", "second", "map"):
        (folder / part).mkdir(parents=True, mode=0o700)
    for number, emoji in enumerate(emojis):
        svg = emoji_set.svg / f"{emoji.hexcode}.svg"
        png = pictures.render(svg.read_text("utf-8"))
        key = hashlib.blake2b(png, digest_size=16).hexdigest()
        other = emoji_of_drawing.get(key)
        if other is None or emoji.population > other.population:
            emoji_of_drawing[key] = emoji
            (folder / _picture_path(emoji)).write_bytes(png)
            second = pictures.tilt(svg) if emoji.is_flag else pictures.line_drawing(svg)
            (folder / _second_path(emoji)).write_bytes(pictures.render(second))
            if chart := pictures.draw_outline(emoji.country or {}):
                (folder / _map_path(emoji)).write_bytes(pictures.render(chart))
        if other is not None:
            duplicate = other if emoji_of_drawing[key] is emoji else emoji
            report.skip("same drawing as another thing", f"{duplicate.name} ({duplicate.hexcode})")
            for name in (_picture_path(duplicate), _second_path(duplicate), _map_path(duplicate)):
                (folder / name).unlink(missing_ok=True)
        progress(number + 1, len(emojis), "pictures")
    return sorted(emoji_of_drawing.values(), key=lambda emoji: emoji.hexcode)


def _picture_path(emoji: Emoji) -> str:
    return f"picture/{emoji.hexcode}.png"


def _second_path(emoji: Emoji) -> str:
    return f"second/{emoji.hexcode}.png"


def _map_path(emoji: Emoji) -> str:
    return f"map/{emoji.hexcode}.png"


def _make_passages(
    emojis: list[Emoji], emoji_set: EmojiSet, kinds: dict[str, dict[str, Any]], images: Path
) -> dict[str, EmojiPassage]:
    """Every Wikipedia lead, then every fact of every emoji; by id."""
    passages = {
        f"wiki:{title}": EmojiPassage(f"wiki:{title}", " ".join(lead["extract"].split()))
        for title, lead in emoji_set.leads.items()
    }
    for emoji in emojis:
        name = f"wiki:{emoji.title}"
        if emoji.title and not passages[name].picture:
            passages[name] = EmojiPassage(name, passages[name].text, _second_path(emoji))
    alpha3 = _country_names(emojis, emoji_set)
    for emoji in emojis:
        for kind, value in collect_facts(emoji, alpha3).items():
            if kind == "background" or not _applies(kinds[kind], emoji):
                continue
            text = kinds[kind]["passage"].format(name=emoji.name, value=value)
            picture = {"none": "", "second": _second_path(emoji), "map": _map_path(emoji)}[
                kinds[kind]["picture"]
            ]
            existing_picture = picture if picture and (images / picture).is_file() else ""
            passage_id = f"{kind}:{emoji.hexcode}"
            passages[passage_id] = EmojiPassage(passage_id, text, existing_picture)
    return passages


def _country_names(emojis: list[Emoji], emoji_set: EmojiSet) -> dict[str, str]:
    """Alpha-3 code -> name, in the wording of the emojis where there is one."""
    names = {
        country["ISO"]["alpha3"]: country["name"]
        for country in emoji_set.countries.values()
        if country["ISO"].get("alpha3")
    }
    flag_names = {
        emoji.country["ISO"]["alpha3"]: emoji.name
        for emoji in emojis
        if emoji.country and emoji.country["ISO"].get("alpha3")
    }
    return names | flag_names


def _applies(kind: dict[str, Any], emoji: Emoji) -> bool:
    return str(kind["of"]) in {"any", "flag" if emoji.is_flag else "object"}


def _make_records(
    emoji: Emoji,
    kinds: dict[str, dict[str, Any]],
    passages: dict[str, EmojiPassage],
    emoji_set: EmojiSet,
) -> Iterator[dict[str, Any]]:
    """Records of an emoji: one for each known kind and each wording of its question."""
    values = collect_facts(emoji, _country_names([], emoji_set))
    for kind, details in kinds.items():
        if not _applies(details, emoji):
            continue
        positives = _find_positives(emoji, kind, values.get(kind, ""), passages)
        if not positives:
            continue
        answer = (
            emoji.title if kind == "background" else _extract_value(positives[0], emoji, details)
        )
        for number, question in enumerate(details["questions"]):
            instruction = INSTRUCTIONS[(len(emoji.hexcode) + number) % len(INSTRUCTIONS)]
            yield {
                "answer": [answer],
                "data_id": f"{emoji.hexcode}.{kind}.q{number}",
                "dataset_id": f"openmoji_kb.{kind}",
                "image_path": _picture_path(emoji),
                "instruction": instruction,
                "passage_id": [passage.passage_id for passage in positives],
                "passage_image_path": [passage.picture for passage in positives],
                "passage_text": [passage.text for passage in positives],
                "question": question,
            }


def _extract_value(passage: EmojiPassage, emoji: Emoji, details: dict[str, Any]) -> str:
    """The value inside a passage: the part at {value} of its template."""
    before, after = details["passage"].format(name=emoji.name, value="\0").split("\0")
    return passage.text.removeprefix(before).removesuffix(after)


def _find_positives(
    emoji: Emoji, kind: str, value: str, passages: dict[str, EmojiPassage]
) -> list[EmojiPassage]:
    """The passage of this fact first, then leads that state the same fact in their own words."""
    lead = passages.get(f"wiki:{emoji.title}")
    if kind == "background":
        return [lead] if lead else []
    fact_passage = passages.get(f"{kind}:{emoji.hexcode}")
    if fact_passage is None:
        return []
    positives = [fact_passage]
    if kind == "capital":
        city = passages.get(f"wiki:{value}")
        if lead and value in lead.text and "capital" in lead.text:
            positives.append(lead)
        if city and city is not lead and emoji.name in city.text and "capital" in city.text:
            positives.append(city)
    return positives
