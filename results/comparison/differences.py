"""What differs between groups of runs: data, model, settings, seeds, code, versions, hardware."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final, Literal, NamedTuple

from results.comparison.groups import RunGroup
from results.records.schema import RunRecord

Kind = Literal["data", "model", "settings", "seed", "code", "versions", "hardware"]

KINDS: Final[tuple[Kind, ...]] = (
    "data", "model", "settings", "seed", "code", "versions", "hardware",
)  # fmt: skip
"""In the order in which they are named: what a person chose first, the surroundings last."""


CHOSEN: Final[tuple[Kind, ...]] = ("data", "model", "settings")
OF_CHOICES: Final = ("samples", "parameters", "trained parameters")
"""Numbers that follow from a choice where one differs: named after the choices."""

OF_SURROUNDINGS: Final = ("cuda", "cudnn", "cuda_allocator")
"""Versions that follow from the GPU or from torch: named last."""

RULES: Final = ("rule for ", "effective batch ")
"""Beginnings of the origins of settings that follow from the GPU: named last."""

MAIN_VERSIONS: Final = ("torch", "transformers", "peft", "bitsandbytes", "open_clip_torch")
"""Libraries that are named before those that come with them."""


class FieldDifference(NamedTuple):
    """One field in which groups differ, with the values of each."""

    kind: Kind
    name: str
    values: tuple[tuple[Any, ...], ...]
    """Values of each group, each value once; None: the record does not have it."""
    is_consequence: bool = False
    """Whether it follows from another difference of its kind or of the hardware, if there is one.
    """


def find_differences(groups: Sequence[RunGroup]) -> list[FieldDifference]:
    """Fields whose values are not equal in all groups; equal ones are left out."""
    facts = [[dict(_facts(record)) for record in group.records] for group in groups]
    keys = dict.fromkeys(key for side in facts for run_facts in side for key in run_facts)
    differences = []
    for kind, name in keys:
        values = tuple(
            _distinct(run_facts.get((kind, name)) for run_facts in side) for side in facts
        )
        if any(side != values[0] for side in values):
            follows = name in (*OF_CHOICES, *OF_SURROUNDINGS) or (
                kind == "settings" and _is_rule(name, groups)
            )
            differences.append(FieldDifference(kind, name, values, follows))
    return sorted(differences, key=_rank)


def _rank(difference: FieldDifference) -> tuple[bool, bool, int, int]:
    """Place in the order in which differences are named: causes before what follows from them."""
    kind, name, follows = difference.kind, difference.name, difference.is_consequence
    is_chosen = kind in CHOSEN and (name in OF_CHOICES or not follows)
    versions = [*MAIN_VERSIONS, name]
    at = versions.index(name) if kind == "versions" else 0
    return not is_chosen, follows, KINDS.index(kind), at


def count_choices(differences: Sequence[FieldDifference]) -> int:
    """Choices that a person made apart: other data, another model, each other setting.

    Settings beside another model are one choice with it, as entries of models bring their own.
    """
    causes = [difference for difference in differences if not difference.is_consequence]
    kinds = [difference.kind for difference in causes or differences]
    settings = 0 if "model" in kinds else kinds.count("settings")
    return settings + ("data" in kinds) + ("model" in kinds)


def _is_rule(name: str, groups: Sequence[RunGroup]) -> bool:
    """Whether a rule set a setting in every run."""
    records = (record for group in groups for record in group.records)
    return all(record.origins.get(name, "").startswith(RULES) for record in records)


def _distinct(values: Iterator[Any]) -> tuple[Any, ...]:
    """Each value once, in a fixed order; lists as tuples, so that they compare."""
    plain = [tuple(value) if isinstance(value, list) else value for value in values]
    unique = {repr(value): value for value in plain}
    return tuple(unique[key] for key in sorted(unique))


def _facts(record: RunRecord) -> Iterator[tuple[tuple[Kind, str], Any]]:
    identity, environment = record.identity, record.environment
    yield ("data", "subset"), identity.subset
    yield ("data", "subset fingerprint"), identity.subset_fingerprint[:12]
    yield ("data", "samples"), record.samples
    yield ("model", "engine"), identity.engine
    yield ("model", "task"), identity.task
    yield ("model", "model"), identity.model
    yield ("model", "base model"), identity.base_model
    yield ("model", "model revision"), identity.model_revision
    yield ("model", "parameters"), record.parameters
    yield ("model", "trained parameters"), record.trainable_parameters
    for name, value in identity.params.items():
        yield ("settings", name), value
    yield ("settings", "timed steps of a cost probe"), identity.probe_steps
    yield ("seed", "seed"), identity.seed
    yield ("code", "git commit"), environment.git_commit
    yield ("code", "uncommitted changes"), environment.git_dirty
    for name, value in environment.versions.items():
        yield ("versions", name), value
    yield ("versions", "python"), environment.python
    yield ("hardware", "device"), environment.device
    yield ("hardware", "GPUs"), ", ".join(gpu.name for gpu in environment.run_gpus)
    yield ("hardware", "driver"), environment.driver
    yield ("hardware", "CPU"), environment.cpu
    yield ("hardware", "threads"), environment.threads
    yield ("hardware", "RAM, bytes"), environment.ram_bytes
