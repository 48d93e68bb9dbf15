"""What differs between runs: planted differences are named first, equal fields never."""

import pytest

from results.comparison.differences import find_differences
from results.comparison.groups import RunGroup, compare_groups
from results.records.schema import GpuInfo
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


A100 = {"device": "NVIDIA A100-SXM4-40GB", "run_gpus": (GpuInfo(index=0, name="A100"),),
        "driver": "580.1", "cpu": "EPYC", "threads": 8, "ram_bytes": 1 << 38}  # fmt: skip
T4 = {"device": "Tesla T4", "run_gpus": (GpuInfo(index=0, name="T4"),), "driver": "535.2",
      "cpu": "Xeon", "threads": 4, "ram_bytes": 1 << 34}  # fmt: skip
OLD = {"workbench": "0.2", "pydantic": "2.12", "torch": "2.10", "cuda": "12.8", "cudnn": "91000"}
NEW = {"workbench": "0.2", "pydantic": "2.14", "torch": "2.15", "cuda": "13.0", "cudnn": "92000"}
RULE = {"batch": "rule for A100: 40 GB", "gradient_accumulation_steps": "effective batch 32 = …"}

PAIRS = {
    "batch size": ("batch", {"params": {"batch": 32}}, {"params": {"batch": 64}}),
    "learning rate": ("lr", {"params": {"lr": 2e-5}}, {"params": {"lr": 1e-4}}),
    "data rows": (
        "subset fingerprint", {"identity": {"subset_fingerprint": "f1"}, "samples": 865},
        {"identity": {"subset_fingerprint": "f2"}, "samples": 8563},
    ),
    "rows by a setting": (
        "fold", {"params": {"fold": 0}, "samples": 800}, {"params": {"fold": 1}, "samples": 801},
    ),
    "seed": ("seed", {"identity": {"seed": 1}}, {"identity": {"seed": 2}}),
    "code": (
        "git commit", {"environment": {"git_commit": "a", "git_dirty": False}},
        {"environment": {"git_commit": "b", "git_dirty": True}},
    ),
    "library": (
        "torch", {"environment": {"versions": OLD}}, {"environment": {"versions": NEW}},
    ),
    "GPU, with batches by rule": (
        "device", {"environment": A100, "params": {"batch": 16, "gradient_accumulation_steps": 2},
                   "origins": RULE},
        {"environment": T4, "params": {"batch": 4, "gradient_accumulation_steps": 8},
         "origins": RULE},
    ),
    "a GPU instead of the CPU": (
        "device", {"environment": {"device": "cpu", "versions": {"torch": "2.15"}}},
        {"environment": {**T4, "versions": {"torch": "2.15", "cuda": "13.0", "cudnn": "9"}}},
    ),
    "precision": (
        "precision", {"params": {"precision": "bf16"}}, {"params": {"precision": "fp16"}},
    ),
    "model": (
        "model", {"identity": {"model": "clip-b32"}, "parameters": 151, "params": {"size": 224}},
        {"identity": {"model": "siglip-b16"}, "parameters": 203, "params": {"size": 256}},
    ),
    "LoRA rank": (
        "lora_rank", {"params": {"lora_rank": 8}, "trainable_parameters": 100},
        {"params": {"lora_rank": 16}, "trainable_parameters": 200},
    ),
    "projector": (
        "projector", {"params": {"projector": "linear"}, "trainable_parameters": 4},
        {"params": {"projector": "mlp"}, "parameters": 25, "trainable_parameters": 21},
    ),
    "loader workers": (
        "num_workers", {"params": {"num_workers": 0}}, {"params": {"num_workers": 8}},
    ),
}  # fmt: skip
"""Name -> the planted field, and both sides with all that follows from it."""


@pytest.mark.parametrize(("name", "first", "second"), PAIRS.values(), ids=PAIRS)
@pytest.mark.parametrize("turned", [False, True])
def test_the_planted_difference_is_named_before_what_follows_from_it(
    make, name, first, second, turned
):
    sides = [change(make.record(), **side) for side in (first, second)]
    groups = [RunGroup(n, (r,)) for n, r in zip("ab", sides[::-1] if turned else sides,
                                                strict=True)]  # fmt: skip
    differences = find_differences(groups)
    sentences = tables.explain(compare_groups(*groups), differences)
    assert sentences[0].startswith(f"Differs: {name} (")
    assert not any("choices" in sentence for sentence in sentences), "it is one"


def test_equal_runs_have_no_difference_and_seeds_of_both_sides_are_no_difference(make):
    runs = tuple(change(make.record(), identity={"seed": seed}) for seed in (1, 2))
    assert find_differences([RunGroup("a", runs), RunGroup("b", runs[::-1])]) == []


def test_several_choices_at_once_are_no_cause(make):
    a = make.record()
    groups = [RunGroup("a", (a,)), RunGroup("b", (change(a, params={"lr": 1, "batch": 2}),))]
    lines = tables.explain(compare_groups(*groups), find_differences(groups))
    assert any(line.startswith("2 choices (data, model, settings) differ") for line in lines)
