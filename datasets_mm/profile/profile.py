"""The profile of a subset or a file: the figures behind `describe`, `diff` and `check`.

The child process that counts writes a `Profile` as JSON; the workbench reads it and loads nothing
heavier than pydantic. Counts are those of all records; sampled figures have their n and an
interval.
"""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

from datasets_mm.recipes.recipe import Form
from datasets_mm.recipes.record_classes import BUCKETS, candidates_bucket


class ProfilePart(BaseModel):
    """Written and read by this project only; fields of later versions are ignored."""

    model_config = ConfigDict(frozen=True, defer_build=True)


class FieldProfile(ProfilePart):
    """How one field is filled. The five counts of records sum to all records."""

    name: str
    types: dict[str, int] = {}
    """Type as written -> records, e.g. `text`, `list of text`, `null`."""
    filled: int = 0
    no_key: int = 0
    null: int = 0
    """null or NaN; of a list: all of its elements are absent, and the first is null or NaN."""
    stated_na: int = 0
    """Written as a word that means none: "NA", "nan", "none", "null"."""
    empty: int = 0
    """"" or []."""
    elements: int = 0
    elements_absent: int = 0
    """Elements of lists that are null, "NA" or empty."""

    @property
    def missing(self) -> int:
        """Records without a value for the field: no key, null or NaN."""
        return self.no_key + self.null


class PassageProfile(ProfilePart):
    """Candidate passages over all records."""

    references: int = 0
    distinct_ids: int = 0
    distinct_texts: int = 0
    texts_under_several_ids: int = 0
    """Distinct texts that more than one id has: duplicates of the corpus."""
    surplus_ids: int = 0
    """Ids that could go if every text had one id."""
    ids_with_several_texts: int = 0
    records_with_repeats: int = 0
    """Records that name one passage more than once."""


class LengthProfile(ProfilePart):
    """Lengths of one kind of text in tokens. `low`, `high`: 95 % interval; None: exact."""

    n: int
    mean: float
    mean_low: float | None = None
    mean_high: float | None = None
    median: int
    p95: int
    longest: int
    truncated: float
    """Share that is longer than the model's context."""
    truncated_low: float | None = None
    truncated_high: float | None = None
    histogram: tuple[int, ...] = ()
    """Texts by length in steps of `TokenProfile.step` tokens; the last step is open."""


class TokenProfile(ProfilePart):
    """Texts as a model would see them: the query, and one positive as a training step draws it."""

    tokenizer: str
    is_stand_in: bool = False
    context: int
    step: int
    seed: int | None = None
    """Of the sample; None: every record was counted."""
    query: LengthProfile | None = None
    passage: LengthProfile | None = None


class NumberProfile(ProfilePart):
    """Quantiles and mean of a number over images."""

    lowest: int
    median: int
    p95: int
    highest: int
    mean: float


class SizeProfile(ProfilePart):
    """Sizes of the pictures that were opened, upright, in pixels."""

    width: NumberProfile
    height: NumberProfile
    tokens: dict[int, NumberProfile] = {}
    """Longer side in pixels -> tokens of a picture in Qwen2.5-VL at that size."""
    step: int = 0
    histogram: tuple[int, ...] = ()
    """Pictures by tokens at 512 px, in steps of `step` from 1."""


class ChoiceProfile(ProfilePart):
    """Four-choice questions: right letters and question types."""

    answers: dict[str, int] = {}
    """Letter -> records; "" where the answer is not known."""
    kinds: dict[str, int] = {}
    """Type of the question -> records."""


class PictureProfile(ProfilePart):
    """Pictures by distinct path. Every path was looked up; `opened` of them were decoded."""

    root: str
    distinct: int = 0
    lost: dict[str, int] = {}
    """Reason -> distinct paths without a usable file."""
    opened: int = 0
    opened_all: bool = False
    unusable: dict[str, int] = {}
    """Reason -> opened pictures that cannot be decoded or are too large."""
    unusable_low: float | None = None
    unusable_high: float | None = None
    """95 % interval of the share of unusable pictures, where only a sample was opened."""
    examples: dict[str, tuple[str, ...]] = {}
    sizes: SizeProfile | None = None
    alike: int = 0
    """Opened files with one and the same content, where these are many; 0: they are not."""
    alike_example: str = ""


class Profile(ProfilePart):
    """Profile of a subset or a file, from its built table."""

    format: int = 1
    name: str
    """The subset's name, or the file's."""
    kind: str
    """`subset`, `jsonl` or `parquet`."""
    form: Form = "passages"
    """Form of its records: passages, captions or choices."""
    place: str
    """The file that was read."""
    fingerprint: str = ""
    bytes: int = 0
    lines: int = 0
    """Lines that are not blank, or rows."""
    records: int = 0
    """Lines that are a JSON object, or rows."""
    refused: dict[str, int] = {}
    """Reason -> lines or rows that a build of this file would skip."""
    examples: dict[str, tuple[str, ...]] = {}
    """Reason -> the first five places."""
    left_out: dict[str, int] = {}
    """Reason -> lines or records that the build of this subset has left out."""
    noted: dict[str, int] = {}
    """Oddity that a build kept, such as positives outside the corpus -> count."""
    left_out_examples: dict[str, tuple[str, ...]] = {}
    fields: tuple[FieldProfile, ...] = ()
    other_fields: dict[str, int] = {}
    """Keys beside M2KR's nine -> records that have them."""
    candidates: dict[int, int] = {}
    """Number of candidate passages (captions, options) -> records that a build keeps."""
    questions: dict[str, int] = {}
    """WH-word -> kept records whose question begins its inquiry with it; `other`, `none`."""
    repeated_data_ids: int = 0
    """Records whose data_id another record has too (the first of them not counted)."""
    choices: ChoiceProfile | None = None
    passages: PassageProfile = PassageProfile()
    tokens: TokenProfile | None = None
    pictures: PictureProfile | None = None
    corpus_rows: int | None = None
    required: tuple[str, ...] = ()
    """Fields that the subset's recipe keeps records by: they must be filled."""
    expected_rows: int | None = None
    notices: tuple[str, ...] = ()
    seconds: float = 0.0
    rss_peak_bytes: int = 0
    """Peak of the process, its build included where there was one."""

    def field(self, name: str) -> FieldProfile:
        """The profile of one field; all zero where no record was read."""
        return next((f for f in self.fields if f.name == name), FieldProfile(name=name))

    @property
    def kept(self) -> int:
        """Records that a build keeps: those of the table that was counted."""
        return sum(self.candidates.values()) or self.records

    def buckets(self) -> dict[str, int]:
        """Records by the report's buckets of candidate passages; `0` only where there are any."""
        counts = dict.fromkeys((name for name, _, _ in BUCKETS), 0)
        for count, records in self.candidates.items():
            name = candidates_bucket(count)
            counts[name] = counts.get(name, 0) + records
        return {name: counts[name] for name in sorted(counts, key=_bucket_start)}


def _bucket_start(bucket: str) -> int:
    return int(bucket.rstrip("+").partition("-")[0])
