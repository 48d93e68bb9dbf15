"""What is wrong with a subset or a file, judged from its profile: for CI, and for a person before a
long run. Light: the workbench judges, the child counts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from datasets_mm.profile.profile import Profile
from datasets_mm.recipes.recipe import Form

ASKED: Final = (
    "question", "image_path", "passage_text", "passage_image_path", "passage_id",
)  # fmt: skip
"""The fields that the weekly report checks. "NA" and "" say that there is none; no key, null and
NaN say nothing, and count as missing."""
ASKED_OF: Final[dict[Form, tuple[str, ...]]] = {
    "passages": ASKED,
    "captions": ("image_path", "answer"),
    "choices": ("question", "image_path", "options"),
}


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong, how often, and where first."""

    what: str
    count: int
    places: tuple[str, ...] = ()
    is_whole: bool = False
    """Of the subset or file as a whole: it is not counted."""

    def sentence(self) -> str:
        """For a terminal."""
        if self.is_whole:
            return self.what
        places = ", ".join(self.places)
        more = ", …" if self.count > len(self.places) else ""
        return f"{self.count:,} × {self.what}" + (f": {places}{more}" if places else "")


def problems(profile: Profile, required: Sequence[str] = ()) -> list[Problem]:
    """Everything that is wrong. `required`: fields that must be filled in every record."""
    if not profile.records:
        return [
            Problem("no record at all: these are no JSON lines in M2KR's fields", 1, is_whole=True),
            *_lines(profile),
        ]
    return [
        *_lines(profile),
        *_fields(profile, required),
        *_pictures(profile),
        *_corpus(profile),
    ]


def missing_sentence(profile: Profile) -> str:
    """The weekly report's sentence about missing fields."""
    asked = ASKED_OF[profile.form]
    missing = sum(profile.field(name).missing for name in asked)
    unit = "records" if profile.kind == "subset" else "lines"
    return (
        f"All {profile.records:,} {unit} were checked for missing fields: {missing:,} "
        f"({', '.join(asked)})"
    )


def remarks(profile: Profile) -> list[str]:
    """What a person should know although nothing is wrong."""
    said = list(profile.notices)
    copies = profile.passages.surplus_ids
    if copies:
        said.append(f"{copies:,} passages repeat the text of another id")
    if profile.repeated_data_ids:
        said.append(f"{profile.repeated_data_ids:,} records repeat the data_id of another one")
    if profile.passages.records_with_repeats:
        said.append(f"{profile.passages.records_with_repeats:,} records name a passage twice")
    said += [
        f"records with a further field {name!r}: {n:,}" for name, n in profile.other_fields.items()
    ]
    if profile.pictures is None:
        said.append("pictures were not looked for; give their folder with --image-root")
    elif not profile.pictures.opened_all:
        opened, there = profile.pictures.opened, profile.pictures.distinct
        said.append(f"{opened:,} of {there:,} pictures were opened; --exact opens all")
    if profile.pictures is not None and profile.pictures.alike:
        there, first = profile.pictures.alike, profile.pictures.alike_example
        said.append(f"{there:,} of the opened pictures are one and the same file (first: {first}); "
                    "does it say that there is no picture?")  # fmt: skip
    return said


def _lines(profile: Profile) -> list[Problem]:
    found = [
        Problem(reason, count, profile.examples.get(reason, ()))
        for reason, count in profile.refused.items()
    ]
    places = {**profile.examples, **profile.left_out_examples}
    found += [
        Problem(f"left out of the subset: {reason}", count, places.get(reason, ()))
        for reason, count in profile.left_out.items()
    ]
    return found + [Problem(what, n, places.get(what, ())) for what, n in profile.noted.items()]


def _fields(profile: Profile, required: Sequence[str]) -> list[Problem]:
    must = tuple(dict.fromkeys([*profile.required, *required]))
    found = []
    for name in dict.fromkeys([*ASKED_OF[profile.form], *must]):
        field = profile.field(name)
        if field.missing:
            places = profile.examples.get(f"{name} missing", ())
            found.append(Problem(f"{name} is missing", field.missing, places))
        stated = field.stated_na + field.empty
        if name in must and (stated or field.elements_absent):
            what = f"{name} is not filled" + (" (elements)" if field.elements else "")
            places = profile.examples.get(f"{name} not filled", ())
            found.append(Problem(what, max(stated, field.elements_absent), places))
    return found


def _pictures(profile: Profile) -> list[Problem]:
    if profile.pictures is None:
        return []
    lost = {**profile.pictures.lost, **profile.pictures.unusable}
    examples = profile.pictures.examples
    return [Problem(f"picture {reason}", n, examples.get(reason, ())) for reason, n in lost.items()]


def _corpus(profile: Profile) -> list[Problem]:
    found = []
    if profile.passages.ids_with_several_texts:
        what = "passage id with more than one text"
        found.append(Problem(what, profile.passages.ids_with_several_texts))
    if profile.corpus_rows == 0 and profile.form == "passages":
        found.append(Problem("the corpus is empty", 1, is_whole=True))
    if profile.expected_rows not in (None, profile.records):
        what = f"{profile.records:,} records; the recipe expects {profile.expected_rows:,}"
        found.append(Problem(what, 1, is_whole=True))
    return found
