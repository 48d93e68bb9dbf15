"""A change of code behind runs, as plans, published files and reports have it."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Text = Annotated[str, Field(max_length=4000)]


class CodeChange(BaseModel):
    """A change of code behind the runs, for the report: an optimization, a bug that was fixed."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    title: str = Field(min_length=1, max_length=200)
    """What it is called."""
    purpose: Text = ""
    """Its purpose or effect."""
    before: Text = ""
    """Lines of code before it; empty: there were none."""
    after: Text = ""
    """Lines of code after it."""
    language: str = Field(default="python", pattern=r"^[a-z0-9+-]*$")
    """What the lines are written in."""
    applied_in: str = ""
    """Experiments or versions that have it."""
