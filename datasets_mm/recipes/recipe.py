"""The recipe of a subset: strict TOML, validated with all problems reported at once.

The workbench, the TUI and the command line read recipes before anything heavy is loaded: only the
standard library and pydantic are used.
"""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self, get_args

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from datasets_mm import strict_toml
from datasets_mm.strict_toml import TomlError
from datasets_mm.text_encoding import Encoding

FieldName = Literal[
    "answer", "data_id", "dataset_id", "image_path", "instruction", "passage_id",
    "passage_image_path", "passage_text", "question",
]  # fmt: skip
"""M2KR's nine fields."""

FIELDS: Final[tuple[str, ...]] = get_args(FieldName)
LIST_FIELDS: Final = frozenset({"answer", "passage_id", "passage_image_path", "passage_text"})

GroupKey = Literal[FieldName, "image", "candidates", "wh_word", "main_answer"]
"""What records are grouped by: a field; `image`, the content of the query picture; or a class of
the weekly report (record_classes.py): bucket of candidate passages, WH-word, main answer."""

Adapter = Literal[
    "openmoji", "jsonl", "ret_m2kr_jsonl", "m2kr_parquet", "captions", "emoji_captions",
    "challenge", "easy_vqa",
]  # fmt: skip
PACKAGED: Final = frozenset({"openmoji", "emoji_captions", "easy_vqa"})
"""Adapters that read packages instead of files."""

Form = Literal["passages", "captions", "choices"]
"""Content of a record besides its image: passages to retrieve, captions, or answer options."""
FORMS: Final[dict[str, Form]] = {
    "captions": "captions", "emoji_captions": "captions",
    "challenge": "choices", "easy_vqa": "choices",
}  # fmt: skip
"""Adapter -> form of its records; all others have passages."""


CAPTION_KEYS: Final = (
    "caption", "media", "split", "split_key", "languages", "captions_optional",
)  # fmt: skip
"""Keys of a source that only the adapter `captions` understands."""
LATER_KEYS: Final = frozenset({"submission", "encoding", *CAPTION_KEYS})
"""Keys of a source that older recipes lack: where they are empty they change no digest."""


class RecipeError(TomlError):
    """One or more recipes cannot be used. `problems`: one sentence each, with place and remedy."""


class StrictModel(BaseModel):
    """Files that people write: unknown keys are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)


class WhereStep(StrictModel):
    """Keep the records whose field has one of these values, or matches a pattern."""

    do: Literal["where"]
    field: FieldName
    one_of: tuple[str, ...] | None = Field(None, description="exact values; lists: any element")
    matches: str | None = Field(None, description="regular expression, found anywhere in the value")
    negate: bool = Field(False, description="keep the records that do NOT pass")

    @model_validator(mode="after")
    def _one_test(self) -> Self:
        if (self.one_of is None) == (self.matches is None):
            raise ValueError("give exactly one of `one_of` and `matches`")
        if self.matches is not None:
            try:
                re.compile(self.matches)
            except re.error as error:
                raise ValueError(f"`matches` is not a regular expression: {error}") from None
        return self


class PresentStep(StrictModel):
    """Keep the records in which these fields are filled."""

    do: Literal["present"]
    fields: tuple[FieldName, ...] = Field(min_length=1)
    need: Literal["all", "any"] = Field("all", description="of a list's elements: all, or any")


class DedupeStep(StrictModel):
    """Keep one record of each group, drawn by the seed."""

    do: Literal["dedupe"]
    by: tuple[GroupKey, ...] = Field(min_length=1)
    seed: int = 0


class SampleStep(StrictModel):
    """Keep n records, or a fraction. A smaller sample is always part of a larger one."""

    do: Literal["sample"]
    n: int | None = Field(None, ge=0)
    fraction: float | None = Field(None, ge=0, le=1)
    seed: int = 0

    @model_validator(mode="after")
    def _one_size(self) -> Self:
        if (self.n is None) == (self.fraction is None):
            raise ValueError("give exactly one of `n` and `fraction`")
        return self


class SplitStep(StrictModel):
    """Divide the groups into named parts and keep some of them. A group never straddles parts."""

    do: Literal["split"]
    parts: dict[str, float] = Field(min_length=2, description="name -> share; they sum to 1")
    keep: tuple[str, ...] = Field(min_length=1)
    by: tuple[GroupKey, ...] = Field(("image",), min_length=1)
    seed: int = 0

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if abs(sum(self.parts.values()) - 1) > 1e-9 or min(self.parts.values()) < 0:
            raise ValueError("the shares in `parts` must be 0 or more and sum to 1")
        if unknown := [name for name in self.keep if name not in self.parts]:
            raise ValueError(f"`keep` names no part: {', '.join(unknown)}")
        return self


class LimitStep(StrictModel):
    """Keep at most n records of each group (of all records, without `by`), drawn by the seed."""

    do: Literal["limit"]
    n: int = Field(ge=1)
    by: tuple[GroupKey, ...] = ()
    seed: int = 0


class BalanceStep(StrictModel):
    """Equalize the shares of groups: each keeps as many as the others, as far as it has them."""

    do: Literal["balance"]
    by: tuple[GroupKey, ...] = Field(min_length=1)
    n: int | None = Field(
        None, ge=1, description="records to keep; empty: as many of each as the smallest group has"
    )
    shares: dict[str, float] | None = Field(
        None,
        description="share of some groups in what is kept; the others keep their proportions; as "
        "many records as these shares allow",
    )
    seed: int = 0

    @model_serializer(mode="wrap")
    def _as_before(self, standard: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Recipes without shares keep their digests from before this key."""
        content: dict[str, Any] = standard(self)
        return content if self.shares else {k: v for k, v in content.items() if k != "shares"}

    @model_validator(mode="after")
    def _shares_are_of_one_key(self) -> Self:
        if self.shares is None:
            return self
        if len(self.by) != 1 or self.n is not None:
            raise ValueError("shares: give one key in `by`, and no `n`: it follows from the shares")
        if any(share <= 0 for share in self.shares.values()) or sum(self.shares.values()) >= 1:
            raise ValueError("shares: each is more than 0, and all of them together less than 1")
        return self


Step = Annotated[
    WhereStep | PresentStep | DedupeStep | SampleStep | SplitStep | LimitStep | BalanceStep,
    Field(discriminator="do"),
]

Patterns = Annotated[
    tuple[str, ...], BeforeValidator(lambda value: (value,) if isinstance(value, str) else value)
]
"""Paths under the data root, or patterns (`OVEN_data/train-*.parquet`): the first that is there."""


class Source(StrictModel):
    """Source of the records: adapter, files and their options."""

    adapter: Adapter
    dataset: str = Field(
        "",
        description="data set of M2KR, as image_root names it, e.g. oven; of captions: language",
    )
    packages: tuple[str, ...] = Field((), description="Python packages that hold the data")
    uri: Patterns = Field((), description="records under the data root; patterns are alternatives")
    passages: Patterns = Field((), description="passages under the data root, likewise")
    passages_optional: bool = Field(
        False, description="without a passage file the positives are the corpus"
    )
    pool: Literal["passages", "passages+positives"] = Field(
        "passages+positives", description="whether positives join the corpus of the passage file"
    )
    submission: str = Field(
        "", description="of test rows that are to be answered: the sample submission beside them"
    )
    caption: Patterns = Field(
        (), description="of captions: their key, e.g. annotation.description_kr; several join"
    )
    media: str = Field(
        "",
        description="of captions: key of the medium, or a template such as {video_id}.mp4; {stem}: "
        "name of the label file",
    )
    split: Patterns = Field((), description="of captions: the splits to read, e.g. train")
    split_key: str = Field("", description="of captions: key of the split; empty: split, subset, …")
    languages: Patterns = Field((), description="of captions: the languages to read, e.g. ko")
    captions_optional: bool = Field(
        False, description="of captions: media without one are kept, for the task infer"
    )
    encoding: Encoding = Field(
        "", description="of tables, caption files and JSON lines; empty: UTF-8, or a tested guess"
    )
    images: str = Field("images", description="folder of pictures under the data root")
    hub: str = Field("", description="dataset repository on the Hugging Face hub that has the same")
    revision: str = Field("", description="commit, tag or branch of it; empty: main")
    expected_rows: int | None = Field(None, ge=0, description="records in this layout")
    licences: tuple[str, ...] = Field((), description="one line for each work: what, licence, who")

    @model_validator(mode="after")
    def _findable(self) -> Self:
        if self.adapter in PACKAGED and not self.packages:
            raise ValueError(f"adapter {self.adapter} reads packages; name them in `packages`")
        if self.adapter not in PACKAGED and not self.uri:
            raise ValueError(f"adapter {self.adapter} reads files; name them in `uri`")
        if self.adapter == "m2kr_parquet" and not self.passages:
            raise ValueError("adapter m2kr_parquet takes texts from `passages`; name them")
        if self.adapter != "captions" and (
            caption_keys := [k for k in CAPTION_KEYS if getattr(self, k)]
        ):
            raise ValueError(f"{', '.join(caption_keys)}: only the adapter captions has such keys")
        if self.adapter == "challenge" and self.dataset not in {"train", "test"}:
            raise ValueError("adapter challenge needs `dataset`: train, or test (rows to answer)")
        for path in (*self.uri, *self.passages, *filter(None, [self.submission]), self.images):
            if Path(path).is_absolute() or ".." in Path(path).parts or "\0" in path or not path:
                raise ValueError(f"{path!r} must lie under the data root; give a relative path")
        return self

    @property
    def form(self) -> Form:
        """Of its records."""
        return FORMS.get(self.adapter, "passages")


class ImagePolicy(StrictModel):
    """Policy for records whose image is missing or outside the image root."""

    missing: Literal["skip", "error"] = "skip"


class Recipe(StrictModel):
    """Recipe of a subset."""

    model_config = ConfigDict(populate_by_name=True)

    format: Literal[1] = Field(1, alias="schema", description="version of this format")
    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_]{0,47}$")
    title: str = Field(max_length=200)
    source: Source | None = None
    alternatives: tuple[Source, ...] = Field(
        (), description="the same data in other layouts; the first that is there is read"
    )
    derive: str | None = Field(None, description="the subset whose records this one filters")
    drawn_from: str = Field(
        "", description="the subset that others drew this one from; reports compare the two"
    )
    steps: tuple[Step, ...] = ()
    images: ImagePolicy = ImagePolicy()
    corpus: Literal["source", "positives"] = Field(
        "source", description="searched: every passage of the source, or this subset's positives"
    )
    evaluate_on: tuple[str, ...] = ()
    expected_rows: int | None = Field(None, ge=0, description="a build with other rows says so")
    notes: str = ""

    @model_validator(mode="after")
    def _one_origin(self) -> Self:
        if (self.source is None) == (self.derive is None):
            raise ValueError("give exactly one of `source` and `derive`")
        if self.alternatives and self.source is None:
            raise ValueError("`alternatives` are to a `source`; a derived subset has none")
        return self

    @property
    def sources(self) -> tuple[Source, ...]:
        """The source and its alternatives; none for a derived subset."""
        return (self.source, *self.alternatives) if self.source else ()

    def digest(self) -> str:
        """Digest of everything that can change the rows: titles and notes are excluded."""
        quiet = {"name", "title", "evaluate_on", "expected_rows", "notes", "drawn_from"}
        fields = self.model_dump(mode="json", exclude=quiet)
        for source in filter(None, [fields["source"], *fields["alternatives"]]):
            for key in LATER_KEYS & source.keys():
                if not source[key]:
                    del source[key]  # recipes of before this key keep their digests
        content = json.dumps(fields, sort_keys=True)
        return hashlib.blake2b(content.encode(), digest_size=16).hexdigest()


def read(path: Path) -> Recipe:
    """The recipe in this file, or RecipeError with every problem in it."""
    try:
        recipe = strict_toml.read(path, Recipe)
    except TomlError as error:
        raise RecipeError(error.problems) from None
    if recipe.name != path.stem:
        raise RecipeError(
            [f"{path}: 'name' = {recipe.name!r}; the file must be called {recipe.name}.toml"]
        )
    return recipe
