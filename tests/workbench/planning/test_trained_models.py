"""Trained models in plans: names of earlier runs, blocks of several tasks, what models bring."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from engines import model_catalog
from engines.protocol import RunSpec
from engines.retrieval import Params
from workbench.cli.main import app
from workbench.cli.start import load_plan
from workbench.planning import expand, plan, trained_models, trained_runs

EARLY, LATE = "20260101-000000-week-1a2b", "20260108-000000-week-3c4d"
SMALL = {"image_size": 64, "max_length": 16, "batch": 4}


def left(logs: Path, suite: str, run_id: str, *, task: str = "train", **changes) -> Path:
    """A run's folder as its training leaves it; `kept`: with trained weights."""
    kept, state = changes.pop("kept", True), changes.pop("state", {})
    settings = Params.model_validate(SMALL | changes.pop("settings", {})).model_dump(mode="json")
    spec = RunSpec.model_validate({
        "suite": suite, "run_id": run_id, "engine": "retrieval", "task": task,
        "subset": "emoji_train", "model": "clip-nano", "params": settings, "cache_root": "/c",
        **changes,
    })  # fmt: skip
    folder = logs / suite / "runs" / run_id
    (folder / "checkpoints" / "last").mkdir(parents=True)
    (folder / "spec.json").write_text(spec.model_dump_json())
    if kept:
        entry = model_catalog.load("clip-nano").model_dump(mode="json", by_alias=True)
        said = {"step": 7, "model": spec.model, "params": settings, "seed": 42, "entry": entry,
                "run": {"suite": suite, "run_id": run_id, "engine": "retrieval"}}  # fmt: skip
        (folder / "checkpoints/last/state.json").write_text(json.dumps(said | state))
    return folder


def expand_runs(logs: Path, table: dict[str, object]) -> list[RunSpec]:
    asked = plan.parse({"subsets": "emoji_train", "task": "evaluate", **table})
    return expand.expand(asked, logs / "cache", logs)


def refusal(logs: Path, table: dict[str, object]) -> str:
    with pytest.raises(plan.PlanError) as caught:
        expand_runs(logs, table)
    assert len(caught.value.problems) == 1
    return caught.value.problems[0]


@pytest.mark.parametrize("name", ["01-a", "E5-v2", f"{EARLY}/01-a", "1a2b/E5-v2"])
def test_an_earlier_run_is_named_by_its_id_or_its_label(tmp_path: Path, name: str) -> None:
    left(tmp_path, EARLY, "01-a", label="E5-v2")
    left(tmp_path, EARLY, "02-b", task="evaluate", label="E5-v2", kept=False)
    (spec,) = expand_runs(tmp_path, {"models": f"run:{name}"})
    assert spec.model == f"run:{EARLY}/01-a", "means the same weights next week"
    assert (spec.base_model, spec.run_id) == ("clip-nano", "01-retrieval-emoji_train-clip-nano")
    assert (spec.params["image_size"], spec.params["max_length"]) == (64, 16)
    defaults = model_catalog.load("clip-nano").settings
    assert {key: spec.params[key] for key in ("batch", "lr")} == {
        key: defaults[key] for key in ("batch", "lr")
    }, "the base's own, not those of its training"
    named = plan.resolve_model_names(
        plan.parse({"subsets": "a", "models": f"run:{name}"}), tmp_path
    )
    assert named.models == (spec.model,)
    assert plan.resolve_model_names(named, tmp_path) == named


def test_a_folder_copied_from_elsewhere_is_named_by_its_path(tmp_path: Path) -> None:
    folder = left(tmp_path / "there", EARLY, "01-a")
    for place in (folder, folder / "checkpoints", folder / "checkpoints" / "last"):
        (spec,) = expand_runs(tmp_path / "logs", {"models": f"path:{place}"})
        assert (spec.model, spec.base_model) == (f"path:{place}", "clip-nano")
        assert spec.params["image_size"] == 64
    (folder / "spec.json").unlink()
    (folder / "checkpoints/last/state.json").write_text(
        json.dumps({"step": 7, "model": "clip-nano", "params": SMALL})
    )
    (spec,) = expand_runs(tmp_path / "logs", {"models": f"path:{place}"})
    assert spec.params["max_length"] == 16, "a checkpoint of version 0.1, alone"


def test_what_names_no_trained_model_is_refused_with_what_is_there(tmp_path: Path) -> None:
    left(tmp_path, EARLY, "01-a")
    left(tmp_path, LATE, "01-a")
    said = refusal(tmp_path, {"models": "run:01-a"})
    assert f"fits 2 trained runs ({LATE}/01-a, {EARLY}/01-a); write run:SUITE/ID" in said
    assert f"no run in {tmp_path} has this id" in refusal(tmp_path, {"models": "run:other"})
    folder = left(tmp_path, LATE, "02-e", task="evaluate", kept=False)
    (folder / "predictions").mkdir()
    said = refusal(tmp_path, {"models": "run:02-e"})
    assert "left no checkpoint: its task was evaluate, and it left predictions" in said
    folder = left(tmp_path, LATE, "03-k", kept=False)
    (folder / "checkpoints/step-000000020").mkdir()
    said = refusal(tmp_path, {"models": "run:03-k"})
    assert "its training has not ended, and it left step-000000020; `workbench resume`" in said
    left(tmp_path, LATE, "04-n", kept=False, settings={"save_model": False})
    assert "save_model was false" in refusal(tmp_path, {"models": "run:04-n"})
    said = refusal(tmp_path, {"models": "run:../../etc/01-a"})
    assert "has this id or label" in said
    broken = left(tmp_path, LATE, "05-b")
    (broken / "checkpoints/last/state.json").write_text("{")
    assert "state.json is damaged" in refusal(tmp_path, {"models": "run:05-b"})


def test_settings_that_a_model_brings_along_are_not_the_plans(tmp_path: Path) -> None:
    left(tmp_path, EARLY, "01-a")
    asked = {"models": "run:01-a", "settings": {"image_size": 96}}
    said = refusal(tmp_path, asked)
    assert f"image_size = 96: model 'run:{EARLY}/01-a' was trained with 64" in said
    (spec,) = expand_runs(tmp_path, {"models": "run:01-a", "settings": {"image_size": 64}})
    assert spec.params["image_size"] == 64


def test_the_base_of_a_model_may_lie_elsewhere_on_this_machine(tmp_path: Path) -> None:
    base = {"schema": 1, "name": "path:/old/clip", "family": "clip", "path": "/old/clip"}
    folder = left(tmp_path, EARLY, "01-a", state={"entry": base, "model": "path:/old/clip"})
    assert "/old/clip is no folder; check the path; or set base_model" in refusal(
        tmp_path, {"models": "run:01-a"}
    )
    here = {"models": "run:01-a", "settings": {"base_model": "clip-nano"}}
    assert expand_runs(tmp_path, here)[0].base_model == "clip-nano"
    encoder = folder / "checkpoints" / "encoder"
    encoder.mkdir()
    for name in model_catalog.NEEDED:
        (encoder / name).write_text("{}")
    assert trained_models.resolve_model(
        f"run:{EARLY}/01-a", "retrieval", {}, tmp_path
    ).base.path == str(encoder)


def test_another_engines_model_is_refused(tmp_path: Path) -> None:
    run = {"suite": EARLY, "run_id": "01-a", "engine": "vqa"}
    left(tmp_path, EARLY, "01-a", state={"run": run})
    asked = {"models": "run:01-a", "engine": "retrieval"}
    assert "engine vqa trained it, not retrieval" in refusal(tmp_path, asked)


VQA = {
    "engine": "vqa", "model": "nano-qwen-vl",
    "state": {"run": {"engine": "vqa"}, "params": {}, "entry": None},
}  # fmt: skip
"""What differs where the VQA engine has trained."""


def test_a_plan_without_an_engine_has_that_of_its_trained_model(tmp_path: Path) -> None:
    left(tmp_path, EARLY, "01-a", label="asks", **VQA)
    left(tmp_path, EARLY, "02-b", label="E5-v2")
    flags = {"subsets": ["easy_vqa_val"], "models": ["run:asks"], "task": "infer"}
    (spec,) = expand.expand(load_plan(None, None, flags, None), tmp_path / "cache", tmp_path)
    assert (spec.engine, spec.model) == ("vqa", f"run:{EARLY}/01-a")
    file = tmp_path / "plan.toml"
    file.write_text('subsets = "easy_vqa_val"\nmodels = "run:01-a"\ntask = "infer"\n')
    named = plan.resolve_model_names(load_plan(file, None, {}, None), tmp_path)
    assert named.engines == ("vqa",)
    file.write_text(plan.dump(named))
    assert load_plan(file, None, {}, None).hash() == named.hash()
    assert plan.resolve_model_names(
        plan.parse({**flags, "models": "run:E5-v2"}), tmp_path
    ).engines == ("retrieval",)
    with pytest.raises(plan.PlanError, match="is for engine vqa, not for engine retrieval"):
        expand_runs(tmp_path, {"engine": "retrieval", "models": "run:asks"})
    with pytest.raises(plan.PlanError, match="'nano-captioner' is for engine captioning"):
        expand_runs(tmp_path, {"models": ["clip-nano", "nano-captioner"]})


def test_blocks_without_an_engine_have_that_of_what_they_use(tmp_path: Path) -> None:
    left(tmp_path, EARLY, "01-a", label="asks", **VQA)
    blocks = [
        {"label": "train", "model": "clip-nano", "subset": "emoji_train"},
        {"label": "test", "model": "run:train", "subset": "emoji_val", "task": "evaluate"},
        {"label": "hand in", "model": "run:asks", "subset": "easy_vqa_val", "task": "infer"},
    ]
    specs = expand.expand(plan.parse({"run": blocks}), tmp_path / "cache", tmp_path)
    assert [spec.engine for spec in specs] == ["retrieval", "retrieval", "vqa"]


def test_a_forecast_reads_the_log_root_that_is_named(tmp_path: Path) -> None:
    left(tmp_path / "logs", EARLY, "01-a", label="E5-v2")
    words = ["plan", "-d", "emoji_val", "-m", "run:E5-v2", "--task", "evaluate", "--cpu", "--json"]
    asked = CliRunner().invoke(app, [*words, "--log-root", str(tmp_path / "logs")])
    assert asked.exit_code == 0, asked.output
    shown = json.loads(asked.stdout)
    assert (shown["model"], shown["params"]["image_size"]) == (f"run:{EARLY}/01-a", 64)
    assert shown["steps"] is None, "an evaluation has none"
    with pytest.raises(plan.PlanError, match=f"no run in {tmp_path}/other has this id or label"):
        CliRunner().invoke(
            app, [*words, "--log-root", str(tmp_path / "other")], catch_exceptions=False
        )


def test_trained_runs_of_a_log_root_are_listed_by_the_shortest_name_of_their_own(
    tmp_path: Path,
) -> None:
    left(tmp_path, EARLY, "01-a", label="E5-v2")
    left(tmp_path, LATE, "01-a", label="E5-v3", **VQA)
    left(tmp_path, LATE, "02-b")
    left(tmp_path, LATE, "03-c", label="E5-v2")
    left(tmp_path, EARLY, "04-d", task="evaluate", kept=False)
    broken = left(tmp_path, EARLY, "05-e")
    (broken / "checkpoints/last/state.json").write_text("{")
    found = {run.name: run for run in trained_runs.list_trained_runs(tmp_path)}
    assert list(found) == ["run:03-c", "run:02-b", "run:E5-v3", "run:05-e", f"run:{EARLY}/01-a"]
    assert "state.json is damaged" in found["run:05-e"].problem
    assert found["run:E5-v3"].engine == "vqa"
    assert (found["run:02-b"].base_model, found["run:02-b"].subset) == ("clip-nano", "emoji_train")
    assert found["run:02-b"].settings["image_size"] == 64
    assert found["run:02-b"].metric is None
    for name, run in found.items():
        if not run.problem:
            assert run.suite in trained_models.canonical_name(name, tmp_path), (
                "means this run alone"
            )


def test_models_lists_trained_runs_behind_ready_models_of_the_catalog(tmp_path: Path) -> None:
    left(tmp_path, EARLY, "01-a", label="E5-v2")
    options = ["models", "--log-root", str(tmp_path)]
    lines = CliRunner().invoke(app, options, catch_exceptions=False).stdout.splitlines()
    rows = [line.split() for line in lines]
    ready = [row[0] for row in rows if row[2] == "ready"]
    assert (ready[0], ready[-1], rows[len(ready)][2]) == ("clip-nano", "run:E5-v2", "missing")
    trained = rows[len(ready) - 1]
    assert trained[1:6] == ["retrieval", "ready", "trained", "on", "emoji_train"]
    printed = CliRunner().invoke(app, [*options, "--json"], catch_exceptions=False).stdout
    row = json.loads(printed.splitlines()[-1])
    assert (row["name"], row["base_model"], row["problem"]) == ("run:E5-v2", "clip-nano", None)


BLOCKS = {
    "engine": "retrieval", "subsets": "emoji_train", "settings": {"image_size": 64},
    "run": [
        {"label": "train", "model": ["clip-nano", "effnet-minilm"], "settings": {"epochs": 3}},
        {"label": "test", "model": "run:train", "task": "evaluate", "subset": "emoji_val",
         "settings": {"eval_batch_size": 7}},
        {"label": "more", "model": "run:train", "subset": "emoji_mm_train"},
        {"label": "last", "model": "run:more", "task": "evaluate"},
    ],
}  # fmt: skip


def test_blocks_train_and_evaluate_in_one_plan(tmp_path: Path) -> None:
    asked = plan.parse({**BLOCKS, "seeds": [1, 2]})
    specs = expand.expand(asked, tmp_path, tmp_path)
    assert len(specs) == 2 * (2 + 2 + 2 + 2)
    train, other, test, _, more, _, last, _ = specs[:8]
    assert [s.task for s in specs[:8]] == 2 * ["train"] + 2 * ["evaluate"] + 2 * ["train"] + 2 * [
        "evaluate"
    ]
    assert (train.run_id, train.params["epochs"]) == (
        "01-retrieval-emoji_train-clip-nano-s1-train", 3,
    )  # fmt: skip
    assert (test.model, test.needs) == (f"run:{train.run_id}", (train.run_id,))
    assert (test.label, test.subset, test.params["eval_batch_size"]) == ("test", "emoji_val", 7)
    assert test.run_id == "03-retrieval-emoji_val-clip-nano-s1-test"
    assert (more.base_model, last.base_model, last.needs) == (
        "clip-nano", "clip-nano", (more.run_id,),
    )  # fmt: skip
    assert specs[3].needs == (other.run_id,)
    assert specs[10].needs == (specs[8].run_id,), "of the same seed"
    path = tmp_path / "plan.toml"
    path.write_text(plan.dump(asked))
    assert plan.load(path) == asked
    assert load_plan(path, None, {}, None).hash() == asked.hash()


def test_a_block_follows_every_variant_that_another_trains(tmp_path: Path) -> None:
    arms = [{"label": "slow", "settings": {"lr": 1e-5}}, {"label": "fast"}]
    table = {
        "models": "clip-nano", "subsets": "emoji_train", "variant": arms,
        "run": [{"label": "train"}, {"label": "test", "model": "run:train", "task": "evaluate"}],
    }  # fmt: skip
    specs = expand.expand(plan.parse(table), tmp_path, tmp_path)
    assert [(s.label, s.needs) for s in specs] == [
        ("slow", ()), ("fast", ()),
        ("test slow", (specs[0].run_id,)), ("test fast", (specs[1].run_id,)),
    ]  # fmt: skip


def test_folds_of_one_block_are_answered_with_by_another(tmp_path: Path) -> None:
    table = {
        "engine": "vqa", "models": "nano-qwen-vl", "subsets": "easy_vqa_train",
        "settings": {"base_on": "easy_vqa_base"},
        "run": [
            {"label": "folds", "settings": {"folds": 2}},
            {"label": "hand in", "task": "infer", "model": "run:folds", "subset": "easy_vqa_val"},
        ],
    }  # fmt: skip
    specs = expand.expand(plan.parse(table), tmp_path, tmp_path)
    assert [s.task for s in specs] == ["train", "train", "ensemble", "infer", "infer"]
    assert [s.needs for s in specs[3:]] == [(s.run_id,) for s in specs[:2]]


@pytest.mark.parametrize(
    ("blocks", "said"),
    [
        ([{"label": "a", "model": "run:b"}, {"label": "b", "model": "clip-nano"}],
         "model 'run:b': no [[run]] of this label before 'a' trains a model"),
        ([{"label": "a", "model": "clip-nano"}, {"label": "a", "model": "clip-nano"}],
         "two [[run]] have the label 'a'; rename one"),
        ([{"label": "a", "model": "clip-nano"},
          {"label": "b", "model": "run:a", "settings": {"image_size": 96}}],
         "image_size = 96: model 'run:01-retrieval-emoji_train-clip-nano-a' was trained with 64"),
        ([{"label": "a", "model": "clip-nano", "task": "infer"}],
         "engine 'retrieval' has no task 'infer'"),
    ],
)  # fmt: skip
def test_blocks_that_do_not_fit_together_are_refused(
    tmp_path: Path, blocks: list[dict[str, object]], said: str
) -> None:
    table = {"subsets": "emoji_train", "run": blocks}
    with pytest.raises(plan.PlanError) as caught:
        expand.expand(plan.parse(table), tmp_path, tmp_path)
    assert said in caught.value.problems[0]


def test_a_plan_without_blocks_needs_its_subsets_and_models() -> None:
    block = {"label": "a", "subset": "emoji_train"}
    with pytest.raises(plan.PlanError, match="'models' is missing"):
        plan.parse({"run": [block]})
    with pytest.raises(plan.PlanError, match="'subsets' is missing"):
        plan.parse({"models": "clip-nano"})
    assert plan.parse({"run": [{**block, "model": "m"}]}).subsets == ("emoji_train",)
