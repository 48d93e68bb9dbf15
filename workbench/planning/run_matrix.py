"""The parts of a plan that make or change runs: run blocks, variants, overrides, and their product.

Apart from the plan, which reads and writes them; here is what they multiply to.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from engines.protocol import Task

if TYPE_CHECKING:
    from workbench.planning.plan import SuitePlan


def _as_tuple(value: Any) -> Any:
    return (value,) if isinstance(value, str | int) and not isinstance(value, bool) else value


Names = Annotated[tuple[str, ...], BeforeValidator(_as_tuple), Field(min_length=1)]
Some = Annotated[tuple[str, ...], BeforeValidator(_as_tuple)]
"""Names of a block; none: those of the plan."""
Ints = Annotated[tuple[int, ...], BeforeValidator(_as_tuple)]
Text = Annotated[str, Field(max_length=4000)]


class Override(BaseModel):
    """Settings for those runs that fit every key given here."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    engine: str | None = None
    subset: str | None = None
    model: str | None = None
    seed: int | None = None
    variant: str | None = None
    settings: dict[str, Any] = {}
    label: str | None = None

    def fits(self, cell: Cell) -> bool:
        """Whether a run is meant."""
        keys = ("engine", "subset", "model", "seed", "variant")
        return all(getattr(self, key) in (None, getattr(cell, key)) for key in keys)


class Variant(BaseModel):
    """One set of settings among several that are compared: an arm of an ablation, an experiment."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    label: str = Field(min_length=1, max_length=40)
    """Its name in tables, say "E5-v2"."""
    settings: dict[str, Any] = {}
    why: Text = ""
    """Why it is compared, for the report."""


class Block(BaseModel):
    """Runs of one task in a plan of several tasks, one block after the other.

    What it does not say is the plan's. A model `run:LABEL` is what the block of that label trained,
    in the same repeat and with the same seed: one run for each of them, none for its variants.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    label: str = Field(min_length=1, max_length=40)
    engines: Some = Field(default=(), alias="engine")
    task: Task | None = None
    subsets: Some = Field(default=(), alias="subset")
    models: Some = Field(default=(), alias="model")
    settings: dict[str, Any] = {}


class Cell(BaseModel):
    """One run's place in the product."""

    model_config = ConfigDict(frozen=True)

    engine: str
    subset: str
    model: str
    seed: int
    repeat: int
    variant: str = ""
    block: str = ""
    """Label of its block; empty: the plan has none."""


def product(plan: SuitePlan) -> Iterator[Cell]:
    """The runs of a plan in their order: repeat, seed, block, engine, model, subset, variant."""
    labels = {f"run:{block.label}" for block in plan.runs}
    for repeat in range(plan.repeats):
        for seed in plan.seeds:
            for block in plan.runs or (None,):
                for engine in (block and block.engines) or plan.engines:
                    for model in (block and block.models) or plan.models:
                        arms = [v.label for v in plan.variants] or [""]
                        arms = [""] if model in labels else arms
                        for subset in (block and block.subsets) or plan.subsets:
                            for variant in arms:
                                yield Cell(
                                    engine=engine, subset=subset, model=model, seed=seed,
                                    repeat=repeat, variant=variant,
                                    block=block.label if block else "",
                                )  # fmt: skip


def every(plan: SuitePlan, name: str) -> tuple[str, ...]:
    """All names of one kind in a plan, each once: `engines`, `subsets` or `models`."""
    blocks = [getattr(block, name) or getattr(plan, name) for block in plan.runs]
    found = [one for names in (blocks or [getattr(plan, name)]) for one in names]
    return tuple(dict.fromkeys(found))
