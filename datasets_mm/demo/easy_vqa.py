"""easy-VQA as four-choice questions: the embedded default for visual question answering.

The package holds 5,000 drawings of one coloured shape each, with questions of 13 answers. Options
must have the answer's type and give nothing away by themselves, so that the image is needed:

- colours: the right one and three others, all equally likely to be offered;
- shapes: there are only three, and a fourth that is never right would give two thirds of the answer
  away. So the options are pairs: {colour, another} x {shape, another}, a square in which no corner
  stands out. Questions that name the colour are skipped: they rule out half of the options;
- yes/no: skipped. The wording alone gives the answer away ("is there a red shape?": no in 88 of
  100, its negation: yes).

Options are drawn by rank (`steps.rank`); the right letter rotates, so each is right equally often.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from datasets_mm.adapters import SourceReport
from datasets_mm.adapters.vqa_challenge import make_record
from datasets_mm.child_messages import Progress
from datasets_mm.recipes.record_classes import LETTERS
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
COLOR_NAMED: Final = "shape questions that name the colour: it would rule out two options"
COLOR_UNKNOWN: Final = "shape questions about a picture whose colour no question tells"
DUPLICATE: Final = "questions that are asked twice of one picture"

_WORD: Final = re.compile(rf"\b({'|'.join((*COLORS, *SHAPES))})\b")
_NEGATED: Final = re.compile(r"\b(not|no)\b")


@dataclass(frozen=True, slots=True)
class EasyQuestion:
    """A question that stays. `options`: the right one first, then three others."""

    id: str
    split: str
    kind: str
    image: str
    text: str
    options: tuple[str, ...]


def write(
    location: Location,  # noqa: ARG001 - the package is fixed; the recipe only pins its version
    folder: Path,
    progress: Progress,
) -> SourceReport:
    """Write one record for each question that stays, and its pictures.

    Raises:
        SourceError: the package is not installed, or is another one of this name.
    """
    data = _package_data()
    report = SourceReport()
    questions: list[EasyQuestion] = []
    for split in SPLITS:
        questions += _make_questions(split, _read_rows(data / split / "questions.json"), report)
    pictures = sorted({question.image for question in questions})
    for split in SPLITS:
        (folder / "images" / split).mkdir(mode=0o700, parents=True)
    for number, path in enumerate(pictures, 1):
        split, name = path.split("/")
        arrow_store.link_or_copy(data / split / "images" / name, folder / "images" / path)
        progress(number, len(pictures), "pictures")
    arrow_store.corpus_writer(folder).close()
    records = arrow_store.record_writer(folder, arrow_store.CHOICE_RECORD_SCHEMA)
    for question, letter in _assign_letters(questions):
        others = list(question.options[1:])
        others.insert(LETTERS.index(letter), question.options[0])
        data_set = f"easy_vqa.{question.kind}"
        records.add(
            make_record(question.id, data_set, question.image, (question.text, others), letter)
        )
    records.close()
    arrow_store.sort_by(folder / "records.arrow", "data_id")
    report.content = arrow_store.content_digest(folder / "records.arrow")
    report.facts = {"pictures": str(len(pictures))}
    return report


def _package_data() -> Path:
    package = package_folder("easy_vqa")
    data = package / "data" if package else None
    if data is None or not (data / "train" / "questions.json").is_file():
        raise SourceError("easy-vqa is not installed; run: pip install 'workbench-mm[demo]'")
    return data


def _read_rows(path: Path) -> list[tuple[str, str, str]]:
    """(question, answer, picture) as the package has them."""
    try:
        rows = json.loads(path.read_text("utf-8"))
        return [(str(text), str(answer), str(image)) for text, answer, image in rows]
    except (OSError, ValueError, TypeError):
        raise SourceError(
            f"{path.name} of easy-vqa cannot be read; install it again: pip install "
            "--force-reinstall easy-vqa==1.0"
        ) from None


def _make_questions(
    split: str, rows: Sequence[tuple[str, str, str]], report: SourceReport
) -> list[EasyQuestion]:
    """The questions of one split that stay, with their options."""
    colors = _find_colors(rows)
    questions: dict[tuple[str, str], EasyQuestion] = {}
    for number, (text, answer, image) in enumerate(rows):
        position = f"{split} question {number}"
        color = colors.get(image, "")
        if answer in ("yes", "no"):
            report.skip(YES_NO, position)
            continue
        if answer in SHAPES and any(word in COLORS for word in _WORD.findall(text)):
            report.skip(COLOR_NAMED, position)
            continue
        if answer in SHAPES and not color:
            report.skip(COLOR_UNKNOWN, position)
            continue
        if (image, text) in questions:
            report.skip(DUPLICATE, position)
            continue
        name = f"{split}-{int(image):04}-{number:05}"
        kind = "shape" if answer in SHAPES else "color"
        options = (
            _shape_pairs(name, color, answer) if kind == "shape" else _other_colors(name, answer)
        )
        questions[image, text] = EasyQuestion(
            name, split, kind, f"{split}/{image}.png", text, options
        )
    return list(questions.values())


def _find_colors(rows: Sequence[tuple[str, str, str]]) -> dict[str, str]:
    """Image -> its colour, where a question names it."""
    colors: dict[str, str] = {}
    for text, answer, image in rows:
        words = [word for word in _WORD.findall(text) if word in COLORS]
        if answer in COLORS:
            colors[image] = answer
        elif words and (answer in SHAPES or (answer == "yes") != bool(_NEGATED.search(text))):
            colors[image] = words[0]
    return colors


def _other_colors(name: str, color: str) -> tuple[str, ...]:
    """The colour, and three of the seven others."""
    others = sorted(set(COLORS) - {color}, key=lambda other: rank(SEED, f"{name}:{other}"))
    return color, *others[:3]


def _shape_pairs(name: str, color: str, shape: str) -> tuple[str, ...]:
    """The right pair, and the three others of a square of two colours and two shapes."""
    second_color = min(set(COLORS) - {color}, key=lambda other: rank(SEED, f"{name}:{other}"))
    second_shape = min(set(SHAPES) - {shape}, key=lambda other: rank(SEED, f"{name}:{other}"))
    others = [(color, second_shape), (second_color, shape), (second_color, second_shape)]
    others.sort(key=lambda pair: rank(SEED, f"{name}:{pair}"))
    return tuple(" ".join(pair) for pair in [(color, shape), *others])


def _assign_letters(questions: Sequence[EasyQuestion]) -> list[tuple[EasyQuestion, str]]:
    """Questions with the letter of the right option, rotating by rank within split and kind."""
    ordered = sorted(
        questions, key=lambda question: (question.split, question.kind, rank(SEED, question.id))
    )
    turns: dict[tuple[str, str], int] = {}
    pairs = []
    for question in ordered:
        turn = turns.get((question.split, question.kind), 0)
        turns[question.split, question.kind] = turn + 1
        pairs.append((question, LETTERS[turn % len(LETTERS)]))
    return pairs
