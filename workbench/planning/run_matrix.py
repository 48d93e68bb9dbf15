"""The parts of a plan that make or change runs (blocks, variants, overrides) and their product."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from engines.protocol import Device, Task
from results.text.renamed_words import rename_typed_keys

if TYPE_CHECKING:
    from workbench.planning.plan import SuitePlan


def _as_tuple(value: Any) -> Any:
    return (value,) if isinstance(value, str | int) and not isinstance(value, bool) else value


_NameList = BeforeValidator(_as_tuple, json_schema_input_type=str | tuple[str, ...])
Names = Annotated[tuple[str, ...], _NameList, Field(min_length=1)]
BlockNames = Annotated[tuple[str, ...], _NameList]
"""Names in a block; none: the plan's."""
Seed = Annotated[int, Field(ge=0, lt=1 << 63)]
"""What the generators of NumPy and torch both take."""
Seeds = Annotated[
    tuple[Seed, ...], BeforeValidator(_as_tuple, json_schema_input_type=int | tuple[int, ...])
]
Devices = Annotated[
    tuple[Device, ...],
    BeforeValidator(_as_tuple, json_schema_input_type=int | str | tuple[int | str, ...]),
]
TypedSettings = Annotated[dict[str, Any], BeforeValidator(rename_typed_keys)]
"""Settings that a person wrote; earlier names are replaced, with a warning."""
Text = Annotated[str, Field(max_length=4000)]


def _check_criterion(text: str) -> str:
    from results.comparison.criteria import parse_criterion

    parse_criterion(text)
    return text


Criteria = Annotated[
    tuple[Annotated[str, AfterValidator(_check_criterion)], ...], BeforeValidator(_as_tuple)
]
"""Success criteria such as `diversity > 0.5`."""


class PlanPart(BaseModel):
    """A part of a plan with settings; its `[[stage]]` blocks are their `stages`."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    settings: TypedSettings = {}
    """Settings of the engine, by name."""

    @model_validator(mode="before")
    @classmethod
    def _read_stage_blocks(cls, table: Any) -> Any:
        if not isinstance(table, dict) or "stage" not in table:
            return table
        settings = table.get("settings", {})
        if not isinstance(settings, dict) or "stages" in settings:
            raise ValueError("[[stage]] and settings.stages say the same; keep one of them")
        rest = {key: value for key, value in table.items() if key != "stage"}
        return {**rest, "settings": {**settings, "stages": table["stage"]}}


class Override(PlanPart):
    """Settings and label for the runs that match every key given here."""

    engine: str | None = None
    """Only runs of this engine."""
    subset: str | None = None
    """Only runs on this subset."""
    model: str | None = None
    """Only runs of this model."""
    seed: int | None = None
    """Only runs with this seed."""
    variant: str | None = None
    """Only runs with the variant of this label."""
    label: str | None = None
    """Label of these runs in tables."""

    def matches(self, cell: PlanCell) -> bool:
        """Whether every given key matches the run."""
        keys = ("engine", "subset", "model", "seed", "variant")
        return all(getattr(self, key) in (None, getattr(cell, key)) for key in keys)


class Exclusion(BaseModel):
    """Runs that the plan leaves out: those that match every key given here."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    engine: str | None = None
    """Only runs of this engine."""
    subset: str | None = None
    """Only runs on this subset."""
    model: str | None = None
    """Only runs of this model."""
    seed: int | None = None
    """Only runs with this seed."""
    repeat: int | None = Field(default=None, ge=1)
    """Only this repetition, from 1."""
    variant: str | None = None
    """Only runs with the variant of this label."""
    run: str | None = None
    """Only runs of the block of this label."""
    why: Text = ""
    """Reason for leaving them out."""

    @model_validator(mode="after")
    def _require_key(self) -> Self:
        if not self.model_dump(exclude={"why"}, exclude_none=True):
            raise ValueError("it names no runs; give engine, subset, model, seed, … of those")
        return self

    def matches(self, cell: PlanCell) -> bool:
        """Whether every given key matches the run."""
        keys = ("engine", "subset", "model", "seed", "variant")
        return (
            all(getattr(self, key) in (None, getattr(cell, key)) for key in keys)
            and self.repeat in (None, cell.repeat + 1)
            and self.run in (None, cell.block)
        )


class Variant(PlanPart):
    """One set of settings among several that are compared: an arm of an ablation, an experiment."""

    label: str = Field(min_length=1, max_length=40)
    """Its name in tables, such as "E5-v2"."""
    why: Text = ""
    """Reason for comparing it, for the report."""
    expected: Text = ""
    """Expected result, for the report."""
    criteria: Criteria = ()
    """Success criteria, judged in the report; they precede the plan's."""
    baseline: str = ""
    """Label, or suite/id, of the run that it is compared with; empty: its previous version."""


class RunBlock(PlanPart):
    """Runs of one task in a plan of several tasks, one block after the other.

    Empty fields take the plan's values. A model `run:LABEL` is what the block of that label
    trained in the same repeat and with the same seed: one run for each such model; the plan's
    variants do not multiply it.
    """

    label: str = Field(min_length=1, max_length=40)
    """Its name in tables; later blocks call what it trained `run:LABEL`."""
    engines: BlockNames = Field(default=(), alias="engine")
    """Engines of the block; empty: the plan's."""
    task: Task | None = None
    """What the block does; empty: the plan's task."""
    subsets: BlockNames = Field(default=(), alias="subset")
    """Subsets of the block; empty: the plan's."""
    models: BlockNames = Field(default=(), alias="model")
    """Models of the block; empty: the plan's."""
    exclusive: bool | None = None
    """Each of its runs has the host for itself; empty: as the plan says."""


class PlanCell(BaseModel):
    """One combination of the plan's factors."""

    model_config = ConfigDict(frozen=True)

    engine: str
    subset: str
    model: str
    seed: int
    repeat: int
    variant: str = ""
    block: str = ""
    """Label of its block; empty: the plan has none."""


class SettingsLayer(NamedTuple):
    """Settings of a plan that apply to a cell, and the part of the plan that holds them."""

    source: str
    """`[[variant]] E5-v2`; empty: the plan's own `[settings]`."""
    settings: Mapping[str, Any]


def list_layers(plan: SuitePlan, cell: PlanCell) -> list[SettingsLayer]:
    """The layers of settings of a cell, the later one wins: plan, block, variant, overrides."""
    layers = [SettingsLayer("", plan.settings)]
    layers += [
        SettingsLayer(f"[[run]] {b.label}", b.settings) for b in plan.runs if b.label == cell.block
    ]
    layers += [
        SettingsLayer(f"[[variant]] {v.label}", v.settings)
        for v in plan.variants
        if v.label == cell.variant
    ]
    layers += [
        SettingsLayer(f"[[override]] {number}", override.settings)
        for number, override in enumerate(plan.overrides, 1)
        if override.matches(cell)
    ]
    return layers


def join_layers(plan: SuitePlan, cell: PlanCell) -> dict[str, Any]:
    """The settings that the plan names for a cell."""
    layers = list_layers(plan, cell)
    return {key: value for layer in layers for key, value in layer.settings.items()}


def iterate_cells(plan: SuitePlan) -> Iterator[PlanCell]:
    """The cells of a plan in their order: repeat, seed, block, engine, model, subset, variant;
    without those that it excludes.
    """
    for cell in iterate_product(plan):
        if not any(exclusion.matches(cell) for exclusion in plan.exclusions):
            yield cell


def iterate_product(plan: SuitePlan) -> Iterator[PlanCell]:
    """The cells of a plan, those that it excludes among them."""
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
                                yield PlanCell(
                                    engine=engine, subset=subset, model=model, seed=seed,
                                    repeat=repeat, variant=variant,
                                    block=block.label if block else "",
                                )  # fmt: skip


def collect_names(plan: SuitePlan, kind: str) -> tuple[str, ...]:
    """All names of one kind in a plan, each once: `engines`, `subsets` or `models`."""
    name_lists = [getattr(block, kind) or getattr(plan, kind) for block in plan.runs]
    names = [name for names in (name_lists or [getattr(plan, kind)]) for name in names]
    return tuple(dict.fromkeys(names))
