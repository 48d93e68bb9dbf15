"""OpenMoji-KB: the embedded default, made on this machine from data packages.

Pictures and names are OpenMoji's and Unicode's, leads are Wikipedia's, facts are countryinfo's; the
questions and the sentences around facts are templates (`kinds.toml`). A question says what is asked
and the picture says about what, so that neither alone can find the passage.
"""

from __future__ import annotations

import hashlib
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datasets_mm.adapters import SourceReport
from datasets_mm.demo.openmoji import pictures
from datasets_mm.demo.openmoji.facts import facts
from datasets_mm.demo.openmoji.things import HERE, Library, Thing, read_library, read_things
from datasets_mm.sources.location import Location
from datasets_mm.storage.arrow_store import corpus_writer, record_writer

REVISION = 1

INSTRUCTIONS = (
    "Find the passage that answers the question about the picture:",
    "Use the picture and the question to retrieve a passage:",
    "Which passage answers this about the image?",
)


@dataclass(frozen=True)
class Passage:
    """One entry of the corpus."""

    passage_id: str
    text: str
    picture: str = ""


def write(
    found: Location,  # noqa: ARG001 - the packages are fixed; the recipe only pins their versions
    folder: Path,
    progress: Callable[[int, int, str], None],
) -> SourceReport:
    """Render the pictures, then write every passage and every question."""
    library = read_library()
    kinds = tomllib.loads((HERE / "kinds.toml").read_text("utf-8"))
    report = SourceReport()
    things = _render(read_things(library), library, folder / "images", report, progress)
    passages = _passages(things, library, kinds, folder / "images")
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
    for thing in things:
        for record in _records(thing, kinds, passages, library):
            records.add(record)
    records.close()
    report.facts = {
        "pictures": str(len(things)),
        "flags": str(sum(thing.is_flag for thing in things)),
        "wikipedia leads": str(len(library.leads)),
    }
    return report


def _render(
    things: list[Thing],
    library: Library,
    folder: Path,
    report: SourceReport,
    progress: Callable[[int, int, str], None],
) -> list[Thing]:
    """Render all pictures; of things with one and the same drawing only one can be meant."""
    drawn: dict[str, Thing] = {}
    for part in ("picture", "second", "map"):
        (folder / part).mkdir(parents=True, mode=0o700)
    for number, thing in enumerate(things):
        svg = library.svg / f"{thing.hexcode}.svg"
        png = pictures.render(svg.read_text("utf-8"))
        key = hashlib.blake2b(png, digest_size=16).hexdigest()
        other = drawn.get(key)
        if other is None or thing.population > other.population:
            drawn[key] = thing
            (folder / _picture(thing)).write_bytes(png)
            second = pictures.tilted(svg) if thing.is_flag else pictures.line_drawing(svg)
            (folder / _second(thing)).write_bytes(pictures.render(second))
            if chart := pictures.outline(thing.country or {}):
                (folder / _map(thing)).write_bytes(pictures.render(chart))
        if other is not None:
            lost = other if drawn[key] is thing else thing
            report.skip("same drawing as another thing", f"{lost.name} ({lost.hexcode})")
            for name in (_picture(lost), _second(lost), _map(lost)):
                (folder / name).unlink(missing_ok=True)
        progress(number + 1, len(things), "pictures")
    return sorted(drawn.values(), key=lambda thing: thing.hexcode)


def _picture(thing: Thing) -> str:
    return f"picture/{thing.hexcode}.png"


def _second(thing: Thing) -> str:
    return f"second/{thing.hexcode}.png"


def _map(thing: Thing) -> str:
    return f"map/{thing.hexcode}.png"


def _passages(
    things: list[Thing], library: Library, kinds: dict[str, dict[str, Any]], images: Path
) -> dict[str, Passage]:
    """Every Wikipedia lead, then every fact of every thing; by id."""
    found = {
        f"wiki:{title}": Passage(f"wiki:{title}", " ".join(lead["extract"].split()))
        for title, lead in library.leads.items()
    }
    for thing in things:
        name = f"wiki:{thing.title}"
        if thing.title and not found[name].picture:
            found[name] = Passage(name, found[name].text, _second(thing))
    alpha3 = _country_names(things, library)
    for thing in things:
        for kind, value in facts(thing, alpha3).items():
            if kind == "background" or not _applies(kinds[kind], thing):
                continue
            text = kinds[kind]["passage"].format(name=thing.name, value=value)
            picture = {"none": "", "second": _second(thing), "map": _map(thing)}[
                kinds[kind]["picture"]
            ]
            shown = picture if picture and (images / picture).is_file() else ""
            passage_id = f"{kind}:{thing.hexcode}"
            found[passage_id] = Passage(passage_id, text, shown)
    return found


def _country_names(things: list[Thing], library: Library) -> dict[str, str]:
    """Alpha-3 code -> name, in the wording of the things where there is one."""
    names = {
        country["ISO"]["alpha3"]: country["name"]
        for country in library.countries.values()
        if country["ISO"].get("alpha3")
    }
    own = {
        thing.country["ISO"]["alpha3"]: thing.name
        for thing in things
        if thing.country and thing.country["ISO"].get("alpha3")
    }
    return names | own


def _applies(kind: dict[str, Any], thing: Thing) -> bool:
    return str(kind["of"]) in {"any", "flag" if thing.is_flag else "object"}


def _records(
    thing: Thing,
    kinds: dict[str, dict[str, Any]],
    passages: dict[str, Passage],
    library: Library,
) -> Iterator[dict[str, Any]]:
    """One record for each kind that is known of the thing and each wording of its question."""
    values = facts(thing, _country_names([], library))
    for kind, details in kinds.items():
        if not _applies(details, thing):
            continue
        positives = _positives(thing, kind, values.get(kind, ""), passages)
        if not positives:
            continue
        answer = thing.title if kind == "background" else _value(positives[0], thing, details)
        for number, question in enumerate(details["questions"]):
            instruction = INSTRUCTIONS[(len(thing.hexcode) + number) % len(INSTRUCTIONS)]
            yield {
                "answer": [answer],
                "data_id": f"{thing.hexcode}.{kind}.q{number}",
                "dataset_id": f"openmoji_kb.{kind}",
                "image_path": _picture(thing),
                "instruction": instruction,
                "passage_id": [passage.passage_id for passage in positives],
                "passage_image_path": [passage.picture for passage in positives],
                "passage_text": [passage.text for passage in positives],
                "question": question,
            }


def _value(passage: Passage, thing: Thing, details: dict[str, Any]) -> str:
    """The fact inside its sentence: what stands where the template has {value}."""
    before, after = details["passage"].format(name=thing.name, value="\0").split("\0")
    return passage.text.removeprefix(before).removesuffix(after)


def _positives(thing: Thing, kind: str, value: str, passages: dict[str, Passage]) -> list[Passage]:
    """The passage of this fact first, then leads that state the same fact in their own words."""
    lead = passages.get(f"wiki:{thing.title}")
    if kind == "background":
        return [lead] if lead else []
    own = passages.get(f"{kind}:{thing.hexcode}")
    if own is None:
        return []
    found = [own]
    if kind == "capital":
        city = passages.get(f"wiki:{value}")
        if lead and value in lead.text and "capital" in lead.text:
            found.append(lead)
        if city and city is not lead and thing.name in city.text and "capital" in city.text:
            found.append(city)
    return found
