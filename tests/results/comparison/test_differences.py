"""What differs between runs: planted differences are named first, equal fields never."""

import pytest

from results.comparison.differences import find_differences
from results.comparison.groups import RunGroup, compare_groups
from results.tables import comparison as tables

PLANTED = (
    ("data", "subset", {"identity": {"subset": "oven_val"}}),
    ("data", "subset fingerprint", {"identity": {"subset_fingerprint": "f2"}}),
    ("data", "samples", {"samples": 999}),
    ("model", "model", {"identity": {"model": "siglip-b16"}}),
    ("model", "model revision", {"identity": {"model_revision": "r2"}}),
    ("settings", "lr", {"params": {"lr": 3e-5}}),
    ("settings", "layers", {"params": {"layers": [3, 7]}}),
    ("settings", "new", {"params": {"new": True}}),
    ("seed", "seed", {"identity": {"seed": 7}}),
    ("code", "git commit", {"environment": {"git_commit": "abc"}}),
    ("versions", "torch", {"environment": {"versions": {"torch": "2.9"}}}),
    ("hardware", "threads", {"environment": {"threads": 64}}),
)


def change(record, identity=None, params=None, environment=None, **fields):
    changed = record.identity.model_copy(update=identity or {})
    changed = changed.model_copy(update={"params": {**changed.params, **(params or {})}})
    surroundings = record.environment.model_copy(update=environment or {})
    return record.model_copy(update={"identity": changed, "environment": surroundings, **fields})


@pytest.mark.parametrize(("kind", "name", "planted"), PLANTED, ids=[p[1] for p in PLANTED])
def test_a_planted_difference_is_named_and_nothing_else(make, kind, name, planted):
    a = make.record()
    groups = [RunGroup("a", (a,)), RunGroup("b", (change(a, **planted),))]
    (difference,) = find_differences(groups)
    assert (difference.kind, difference.name) == (kind, name)
    sentence = tables.explain(compare_groups(*groups), [difference])[0]
    assert sentence.startswith(f"Differs: {name} (")


@pytest.mark.parametrize(("kind", "name", "planted"), PLANTED[:8], ids=[p[1] for p in PLANTED[:8]])
def test_what_a_person_chose_is_named_before_the_surroundings(make, kind, name, planted):
    a = make.record()
    surroundings = {"seed": 1}, {"git_commit": "z", "versions": {"torch": "2.9"}, "cpu": "other"}
    b = change(change(a, identity=surroundings[0], environment=surroundings[1]), **planted)
    names = [d.name for d in find_differences([RunGroup("a", (a,)), RunGroup("b", (b,))])]
    assert names[0] == name
    assert set(names[1:]) == {"seed", "git commit", "torch", "CPU"}


def test_equal_runs_have_no_difference_and_seeds_of_both_sides_are_no_difference(make):
    runs = tuple(change(make.record(), identity={"seed": seed}) for seed in (1, 2))
    assert find_differences([RunGroup("a", runs), RunGroup("b", runs[::-1])]) == []


def test_several_choices_at_once_are_no_cause(make):
    a = make.record()
    groups = [RunGroup("a", (a,)), RunGroup("b", (change(a, params={"lr": 1, "batch": 2}),))]
    lines = tables.explain(compare_groups(*groups), find_differences(groups))
    assert any(line.startswith("2 choices (data, model, settings) differ") for line in lines)
