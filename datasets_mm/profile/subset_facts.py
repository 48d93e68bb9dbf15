"""Facts of a built subset that the audit judges a plan by: lengths of captions, equal media.

`datasets_mm.profile.measure_facts` measures them in a child process; this module loads nothing
heavier than pydantic.
"""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

BYTES_PER_TOKEN = 6
"""UTF-8 bytes of a token where no tokenizer is at hand. Subword tokenizers need fewer: 4 to 5 for
English, 2 to 5 for Korean; so lengths by it are lower bounds."""


class TextLengths(BaseModel):
    """Captions by their length in tokens."""

    model_config = ConfigDict(frozen=True)

    tokenizer: str = Field(default="", description="Folder of its tokenizer; empty: a lower bound")
    counts: dict[int, int] = Field(default={}, description="Tokens -> captions of that length")

    @property
    def n(self) -> int:
        """Number of captions."""
        return sum(self.counts.values())

    @property
    def median(self) -> int:
        """The smallest length that at least half of the captions do not exceed; 0: no caption."""
        below = 0
        for length in sorted(self.counts):
            below += self.counts[length]
            if 2 * below >= self.n:
                return length
        return 0

    @property
    def mean(self) -> float:
        """Mean length; 0: there is no caption."""
        return sum(length * count for length, count in self.counts.items()) / max(self.n, 1)

    def share_over(self, limit: int) -> float:
        """Share of the captions that have more than `limit` tokens; 0: there is no caption."""
        longer = sum(count for length, count in self.counts.items() if length > limit)
        return longer / max(self.n, 1)


class SubsetFacts(BaseModel):
    """What a look at a built subset gives; media are a sample."""

    model_config = ConfigDict(frozen=True)

    rows: int
    languages: tuple[str, ...] = Field(default=(), description="Of the captions, as recorded")
    captions: TextLengths = Field(default=TextLengths(), description="By the language model")
    judged: TextLengths = Field(default=TextLengths(), description="By the judge's tokenizer")
    media: int = Field(default=0, description="Distinct media of the sample that can be read")
    equal: int = Field(default=0, description="The most media of the sample with equal content")
    equal_example: str = Field(default="", description="One of them")
    blank: int = Field(default=0, description="Pictures of the sample that have one colour")
    blank_example: str = Field(default="", description="One of them")
