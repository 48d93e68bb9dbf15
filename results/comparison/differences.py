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


class FieldDifference(NamedTuple):
    """One field in which groups differ, with the values of each."""

    kind: Kind
    name: str
    values: tuple[tuple[Any, ...], ...]
    """Values of each group, each value once; None: the record does not have it."""


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
            differences.append(FieldDifference(kind, name, values))
    return sorted(differences, key=lambda difference: KINDS.index(difference.kind))


def count_choices(differences: Sequence[FieldDifference]) -> int:
    """Choices that a person made apart: other data, another model, each other setting.

    Settings beside another model are one choice with it, as entries of models bring their own.
    """
    kinds = [difference.kind for difference in differences]
    settings = 0 if "model" in kinds else kinds.count("settings")
    return settings + ("data" in kinds) + ("model" in kinds)


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
    yield ("versions", "driver"), environment.driver
    yield ("hardware", "device"), environment.device
    yield ("hardware", "GPUs"), ", ".join(gpu.name for gpu in environment.run_gpus)
    yield ("hardware", "CPU"), environment.cpu
    yield ("hardware", "threads"), environment.threads
    yield ("hardware", "RAM, bytes"), environment.ram_bytes
