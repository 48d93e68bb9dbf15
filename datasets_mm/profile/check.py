"""Problems of a subset or a file, derived from its profile: for CI, and before a long run.

Loads nothing heavy: a child process counts the data and writes the profile.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from datasets_mm.profile.profile import Profile
from datasets_mm.recipes.recipe import Form

CHECKED_FIELDS: Final = (
    "question", "image_path", "passage_text", "passage_image_path", "passage_id",
)  # fmt: skip
"""The fields that the weekly report checks. "NA" and "" say that there is none; no key, null and
NaN say nothing, and count as missing."""
CHECKED_FIELDS_OF_FORM: Final[dict[Form, tuple[str, ...]]] = {
    "passages": CHECKED_FIELDS,
    "captions": ("image_path", "answer"),
    "choices": ("question", "image_path", "options"),
}


@dataclass(frozen=True)
class Problem:
    """One kind of problem: how often, and the first positions."""

    message: str
    count: int
    positions: tuple[str, ...] = ()
    is_whole: bool = False
    """It concerns the whole subset or file: it is not counted."""

    def sentence(self) -> str:
        """For a terminal."""
        if self.is_whole:
            return self.message
        positions = ", ".join(self.positions)
        ellipsis = ", …" if self.count > len(self.positions) else ""
        return f"{self.count:,} × {self.message}" + (
            f": {positions}{ellipsis}" if positions else ""
        )


def find_problems(profile: Profile, required: Sequence[str] = ()) -> list[Problem]:
    """All problems. `required`: fields that must be filled in every record."""
    if not profile.records:
        return [
            Problem("no record at all: these are no JSON lines in M2KR's fields", 1, is_whole=True),
            *_line_problems(profile),
        ]
    return [
        *_line_problems(profile),
        *_field_problems(profile, required),
        *_picture_problems(profile),
        *_corpus_problems(profile),
    ]


def missing_sentence(profile: Profile) -> str:
    """The weekly report's sentence about missing fields."""
    fields = CHECKED_FIELDS_OF_FORM[profile.form]
    missing = sum(profile.field(name).missing for name in fields)
    unit = "records" if profile.kind == "subset" else "lines"
    return (
        f"All {profile.records:,} {unit} were checked for missing fields: {missing:,} "
        f"({', '.join(fields)})"
    )


def find_remarks(profile: Profile) -> list[str]:
    """Remarks about a profile that are no problems."""
    remarks = list(profile.notices)
    copies = profile.passages.surplus_ids
    if copies:
        remarks.append(f"{copies:,} passages repeat the text of another id")
    if profile.repeated_data_ids:
        remarks.append(f"{profile.repeated_data_ids:,} records repeat the data_id of another one")
    if profile.passages.records_with_repeats:
        remarks.append(f"{profile.passages.records_with_repeats:,} records name a passage twice")
    remarks += [
        f"records with a further field {name!r}: {n:,}" for name, n in profile.other_fields.items()
    ]
    if profile.pictures is None:
        remarks.append("pictures were not looked for; give their folder with --image-root")
    elif not profile.pictures.opened_all:
        opened, count = profile.pictures.opened, profile.pictures.distinct
        remarks.append(f"{opened:,} of {count:,} pictures were opened; --exact opens all")
    if profile.pictures is not None and profile.pictures.alike:
        count, first = profile.pictures.alike, profile.pictures.alike_example
        remarks.append(
            f"{count:,} of the opened pictures are one and the same file (first: {first}); "
            "does it say that there is no picture?"
        )
    return remarks


def _line_problems(profile: Profile) -> list[Problem]:
    problems = [
        Problem(reason, count, profile.examples.get(reason, ()))
        for reason, count in profile.refused.items()
    ]
    positions = {**profile.examples, **profile.left_out_examples}
    problems += [
        Problem(f"left out of the subset: {reason}", count, positions.get(reason, ()))
        for reason, count in profile.left_out.items()
    ]
    return problems + [
        Problem(message, n, positions.get(message, ())) for message, n in profile.noted.items()
    ]


def _field_problems(profile: Profile, required: Sequence[str]) -> list[Problem]:
    required_fields = tuple(dict.fromkeys([*profile.required, *required]))
    problems = []
    for name in dict.fromkeys([*CHECKED_FIELDS_OF_FORM[profile.form], *required_fields]):
        field = profile.field(name)
        if field.missing:
            positions = profile.examples.get(f"{name} missing", ())
            problems.append(Problem(f"{name} is missing", field.missing, positions))
        stated = field.stated_na + field.empty
        if name in required_fields and (stated or field.elements_absent):
            message = f"{name} is not filled" + (" (elements)" if field.elements else "")
            positions = profile.examples.get(f"{name} not filled", ())
            problems.append(Problem(message, max(stated, field.elements_absent), positions))
    return problems


def _picture_problems(profile: Profile) -> list[Problem]:
    if profile.pictures is None:
        return []
    reasons = {**profile.pictures.lost, **profile.pictures.unusable}
    examples = profile.pictures.examples
    return [
        Problem(f"picture {reason}", n, examples.get(reason, ())) for reason, n in reasons.items()
    ]


def _corpus_problems(profile: Profile) -> list[Problem]:
    problems = []
    if profile.passages.ids_with_several_texts:
        message = "passage id with more than one text"
        problems.append(Problem(message, profile.passages.ids_with_several_texts))
    if profile.corpus_rows == 0 and profile.form == "passages":
        problems.append(Problem("the corpus is empty", 1, is_whole=True))
    if profile.expected_rows not in (None, profile.records):
        message = f"{profile.records:,} records; the recipe expects {profile.expected_rows:,}"
        problems.append(Problem(message, 1, is_whole=True))
    return problems
