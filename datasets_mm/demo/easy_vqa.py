"""easy-VQA as four-choice questions: the embedded default for visual question answering.

The package holds 5,000 drawings of one coloured shape each, with questions of 13 answers. Options
must be of the answer's own type and say nothing by themselves, so that the picture is needed:

- colours: the right one and three others, all equally likely to be offered;
- shapes: there are only three, and a fourth that is never right would give two thirds of the answer
  away. So the options are pairs: {colour, another} x {shape, another}, a square in which no corner
  stands out. Where the question names the colour, half of them would be ruled out: left out;
- yes/no: two answers, and the wording alone gives them away ("is there a red shape?": no in 88 of
  100, its negation: yes): left out.

Options are drawn by rank (`steps.rank`), the right letter goes round, so each is right as often.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from datasets_mm.adapters import SourceReport
from datasets_mm.adapters.vqa_challenge import LETTERS, record
from datasets_mm.recipes.steps import rank
from datasets_mm.sources.fingerprint import SourceError, package_folder
from datasets_mm.sources.location import Location
from datasets_mm.storage import arrow_store

REVISION = 1

SPLITS: Final = ("train", "test")
COLORS: Final = ("black", "blue", "brown", "gray", "green", "red", "teal", "yellow")
SHAPES: Final = ("circle", "rectangle", "triangle")
SEED: Final = 6

YES_NO: Final = "yes/no questions: their wording gives the answer away"
NAMED: Final = "shape questions that name the colour: it would rule out two options"
UNKNOWN: Final = "shape questions about a picture whose colour no question tells"
AGAIN: Final = "questions that are asked twice of one picture"

_WORD: Final = re.compile(rf"\b({'|'.join((*COLORS, *SHAPES))})\b")
_NEGATED: Final = re.compile(r"\b(not|no)\b")

Say = Callable[[int, int, str], None]


@dataclass(frozen=True, slots=True)
class Asked:
    """A question that stays. `options`: the right one first, then three others."""

    id: str
    split: str
    kind: str
    image: str
    text: str
    options: tuple[str, ...]


def write(
    found: Location,  # noqa: ARG001 - the package is fixed; the recipe only pins its version
    folder: Path,
    progress: Say,
) -> SourceReport:
    """Write one record for each question that stays, and its pictures.

    Raises:
        SourceError: the package is not installed, or is another one of this name.
    """
    data = _data()
    report = SourceReport()
    asked: list[Asked] = []
    for split in SPLITS:
        asked += _questions(split, _read(data / split / "questions.json"), report)
    pictures = sorted({one.image for one in asked})
    for split in SPLITS:
        (folder / "images" / split).mkdir(mode=0o700, parents=True)
    for number, path in enumerate(pictures, 1):
        split, name = path.split("/")
        arrow_store.link(data / split / "images" / name, folder / "images" / path)
        progress(number, len(pictures), "pictures")
    arrow_store.corpus_writer(folder).close()
    records = arrow_store.record_writer(folder, arrow_store.CHOICE_RECORDS)
    for one, letter in _lettered(asked):
        others = list(one.options[1:])
        others.insert(LETTERS.index(letter), one.options[0])
        part = f"easy_vqa.{one.kind}"
        records.add(record(one.id, part, one.image, (one.text, others), letter))
    records.close()
    arrow_store.sort_by(folder / "records.arrow", "data_id")
    report.content = arrow_store.content_digest(folder / "records.arrow")
    report.facts = {"pictures": str(len(pictures))}
    return report


def _data() -> Path:
    package = package_folder("easy_vqa")
    data = package / "data" if package else None
    if data is None or not (data / "train" / "questions.json").is_file():
        raise SourceError("easy-vqa is not installed; run: pip install 'workbench-mm[vqa]'")
    return data


def _read(path: Path) -> list[tuple[str, str, str]]:
    """(question, answer, picture) as the package has them."""
    try:
        rows = json.loads(path.read_text("utf-8"))
        return [(str(text), str(answer), str(image)) for text, answer, image in rows]
    except (OSError, ValueError, TypeError):
        raise SourceError(
            f"{path.name} of easy-vqa cannot be read; install it again: pip install "
            "--force-reinstall easy-vqa==1.0"
        ) from None


def _questions(
    split: str, rows: Sequence[tuple[str, str, str]], report: SourceReport
) -> list[Asked]:
    """The questions of one split that stay, with their options."""
    colors = _colors(rows)
    asked: dict[tuple[str, str], Asked] = {}
    for number, (text, answer, image) in enumerate(rows):
        place = f"{split} question {number}"
        color = colors.get(image, "")
        if answer in ("yes", "no"):
            report.skip(YES_NO, place)
            continue
        if answer in SHAPES and any(word in COLORS for word in _WORD.findall(text)):
            report.skip(NAMED, place)
            continue
        if answer in SHAPES and not color:
            report.skip(UNKNOWN, place)
            continue
        if (image, text) in asked:
            report.skip(AGAIN, place)
            continue
        name = f"{split}-{int(image):04}-{number:05}"
        kind = "shape" if answer in SHAPES else "color"
        options = _pairs(name, color, answer) if kind == "shape" else _others(name, answer)
        asked[image, text] = Asked(name, split, kind, f"{split}/{image}.png", text, options)
    return list(asked.values())


def _colors(rows: Sequence[tuple[str, str, str]]) -> dict[str, str]:
    """Picture -> its colour, as far as any question tells it."""
    known: dict[str, str] = {}
    for text, answer, image in rows:
        words = [word for word in _WORD.findall(text) if word in COLORS]
        if answer in COLORS:
            known[image] = answer
        elif words and (answer in SHAPES or (answer == "yes") != bool(_NEGATED.search(text))):
            known[image] = words[0]
    return known


def _others(name: str, color: str) -> tuple[str, ...]:
    """The colour, and three of the seven others."""
    others = sorted(set(COLORS) - {color}, key=lambda other: rank(SEED, f"{name}:{other}"))
    return color, *others[:3]


def _pairs(name: str, color: str, shape: str) -> tuple[str, ...]:
    """The right pair, and the three others of a square of two colours and two shapes."""
    second_color = min(set(COLORS) - {color}, key=lambda one: rank(SEED, f"{name}:{one}"))
    second_shape = min(set(SHAPES) - {shape}, key=lambda one: rank(SEED, f"{name}:{one}"))
    others = [(color, second_shape), (second_color, shape), (second_color, second_shape)]
    others.sort(key=lambda pair: rank(SEED, f"{name}:{pair}"))
    return tuple(f"{one} {two}" for one, two in [(color, shape), *others])


def _lettered(asked: Sequence[Asked]) -> list[tuple[Asked, str]]:
    """Each question with its letter: within a split and a kind the letters go round by rank."""
    ordered = sorted(asked, key=lambda one: (one.split, one.kind, rank(SEED, one.id)))
    turns: dict[tuple[str, str], int] = {}
    found = []
    for one in ordered:
        turn = turns.get((one.split, one.kind), 0)
        turns[one.split, one.kind] = turn + 1
        found.append((one, LETTERS[turn % len(LETTERS)]))
    return found
