"""Plans: one product of factors, the same from every door, and every mistake said at once."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from engines import catalog
from workbench import paths
from workbench.cli import set_options, start
from workbench.cli.start import find_device_problem, load_plan
from workbench.memory_estimate import memory_check, plan_estimate
from workbench.planning import expand, plan
from workbench.suites import suite

PROBE = {"engine": "probe", "subsets": ["a", "b"], "models": ["m", "n"], "name": "p"}


def expand_runs(table: dict[str, object], tmp_path: Path) -> list[plan.RunSpec]:
    return expand.expand(plan.parse(table), tmp_path)


def problems(table: dict[str, object], tmp_path: Path) -> list[str]:
    with pytest.raises(plan.PlanError) as caught:
        expand_runs(table, tmp_path)
    return caught.value.problems


def test_runs_are_the_product_in_the_stated_order(tmp_path: Path) -> None:
    specs = expand_runs({**PROBE, "seeds": [1, 2], "repeats": 2}, tmp_path)
    assert len(specs) == 2 * 2 * 2 * 2
    assert len({s.run_id for s in specs}) == 16
    order = [(s.repeat, s.seed, s.model, s.subset) for s in specs]
    assert order == sorted(order)
    assert specs[0].run_id == "01-probe-a-m-s1-r1"


def test_settings_are_complete_and_layered(tmp_path: Path) -> None:
    specs = expand_runs(
        {
            **PROBE,
            "settings": {"steps": 7},
            "override": [
                {"model": "n", "settings": {"steps": 9}, "label": "E1-v2"},
                {"model": "n", "subset": "b", "settings": {"steps": 11}},
            ],
        },
        tmp_path,
    )
    assert [s.params["steps"] for s in specs] == [7, 7, 9, 11]
    assert [s.label for s in specs] == ["", "", "E1-v2", "E1-v2"]
    assert all("delay_seconds" in s.params for s in specs)


def test_excluded_runs_are_left_out_of_the_product(tmp_path: Path) -> None:
    exclusions = [{"subset": "a", "model": "n"}, {"seed": 2, "model": "m"}]
    table = {**PROBE, "seeds": [1, 2], "exclude": exclusions}
    cells = [(s.seed, s.subset, s.model) for s in expand_runs(table, tmp_path)]
    assert cells == [(1, "a", "m"), (1, "b", "m"), (1, "b", "n"), (2, "b", "n")]
    with pytest.raises(plan.PlanError, match="it names no runs"):
        plan.parse({**PROBE, "exclude": [{}]})
    path = tmp_path / "plan.toml"
    path.write_text(plan.dump(plan.parse(table)))
    assert plan.load(path) == plan.parse(table)
    assert plan.parse(PROBE).hash() != plan.parse(table).hash()


def test_a_plan_survives_its_own_toml(tmp_path: Path) -> None:
    asked = plan.parse({**PROBE, "settings": {"steps": 3}, "override": [{"model": "n"}]})
    path = tmp_path / "plan.toml"
    path.write_text(plan.dump(asked))
    assert plan.load(path) == asked
    assert plan.load(path).hash() == asked.hash()


def test_the_hash_follows_the_meaning() -> None:
    one = plan.parse(PROBE)
    assert one.hash() == plan.parse({**PROBE, "about": "other words"}).hash()
    assert one.hash() != plan.parse({**PROBE, "settings": {"steps": 1}}).hash()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"engine": "prob"}, "no engine 'prob'; did you mean 'probe'?"),
        ({"settings": {"step": 1}}, "unknown key 'step'; did you mean 'steps'?"),
        ({"settings": {"steps": 0}}, "'steps' = 0 is wrong"),
        ({"seeds": [-1]}, "'seeds[0]' = -1 is wrong"),
        ({"seeds": 10**23}, "'seeds[0]' = 100000000000000000000000 is wrong"),
        ({"override": [{"model": "zzz"}]}, "[[override]] number 1 fits no run"),
        ({"exclude": [{"model": "zzz"}]}, "[[exclude]] number 1 fits no run"),
        ({"exclude": [{"subset": "a"}, {"subset": "b"}]}, "[[exclude]]: no run is left"),
        ({"task": "ensemble"}, "engine 'probe' has no task 'ensemble'"),
    ],
)
def test_mistakes_are_one_sentence_each(
    change: dict[str, object], said: str, tmp_path: Path
) -> None:
    found = problems({**PROBE, **change}, tmp_path)
    assert len(found) == 1
    assert said in found[0]


@pytest.mark.parametrize("subsets", [3, [["a"]], {"a": 1}, [3]])
def test_blocks_without_names_are_a_mistake_of_the_plan(subsets: object) -> None:
    table = {k: v for k, v in PROBE.items() if k not in ("subsets", "models")}
    with pytest.raises(plan.PlanError, match=r"run\[0\].subsets"):
        plan.parse({**table, "run": [{"label": "E1", "subsets": subsets, "models": ["m"]}]})


def test_run_ids_are_safe_names(tmp_path: Path) -> None:
    specs = expand_runs({**PROBE, "models": ["path:/a b/../C"], "subsets": ["x" * 200]}, tmp_path)
    assert "/" not in specs[0].run_id
    assert len(specs[0].run_id) <= 96


@pytest.mark.parametrize(
    ("text", "pair"),
    [
        ("layers=3,7,11", ("layers", [3, 7, 11])),
        ("lrs=1e-4,2e-5", ("lrs", [1e-4, 2e-5])),
        ("image_root=oven=/a,/b", ("image_root", "oven=/a,/b")),
        ("epochs=1", ("epochs", 1)),
        ("lr=2e-5", ("lr", 2e-5)),
        ("layers=[3, 7]", ("layers", [3, 7])),
        ("tf32=true", ("tf32", True)),
        ("precision=bf16", ("precision", "bf16")),
        ("data_root=/a=b", ("data_root", "/a=b")),
        ("note=", ("note", "")),
    ],
)
def test_settings_of_flags_are_read_as_toml_or_text(text: str, pair: tuple[str, object]) -> None:
    assert set_options.parse_setting(text) == pair


def test_user_presets_are_found_and_may_not_hide_shipped_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORKBENCH_CONFIG", str(tmp_path))
    (tmp_path / "presets").mkdir()
    (tmp_path / "presets/mine.toml").write_text('subsets = "a"\nmodels = "m"\nseeds = 7\n')
    assert plan.load_preset("mine").seeds == (7,)
    (tmp_path / "presets/demo.toml").write_text("")
    with pytest.raises(plan.PlanError, match="exists already"):
        plan.load_preset("mine")


def test_shipped_presets_are_valid_plans() -> None:
    for name in plan.preset_files():
        asked = plan.load_preset(name)
        assert asked.name == name
        assert asked.about


def test_variants_are_one_more_factor_and_label_their_runs(tmp_path: Path) -> None:
    text = {
        "engine": "probe", "subsets": "none", "models": "none", "seeds": [1, 2],
        "settings": {"steps": 5},
        "variant": [
            {"label": "E5-v2", "settings": {"steps": 7}}, {"label": "all on", "settings": {}},
        ],
        "override": [{"variant": "all on", "seed": 2, "settings": {"steps": 9}}],
    }  # fmt: skip
    made = plan.parse(text)
    specs = expand.expand(made, tmp_path)
    assert [(s.label, s.seed, s.params["steps"]) for s in specs] == [
        ("E5-v2", 1, 7), ("all on", 1, 5), ("E5-v2", 2, 7), ("all on", 2, 9),
    ]  # fmt: skip
    assert specs[0].run_id == "01-probe-none-none-s1-e5-v2"
    assert plan.load(_written(tmp_path, plan.dump(made))) == made


def test_variants_need_names_of_their_own(tmp_path: Path) -> None:
    arms = [{"label": "a"}, {"label": "a"}]
    made = plan.parse({"engine": "probe", "subsets": "none", "models": "none", "variant": arms})
    with pytest.raises(plan.PlanError, match="two \\[\\[variant\\]\\] have the label 'a'"):
        expand.expand(made, tmp_path)


def _written(folder: Path, text: str) -> Path:
    path = folder / "plan.toml"
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("engine", "subset", "model", "sentence"),
    [
        ("retrieval", "emoji_captions_en_train", "clip-nano",
         "subset 'emoji_captions_en_train' is for engine captioning: it has captions, and "
         "retrieval needs passages"),
        ("captioning", "emoji_train", "nano-captioner",
         "subset 'emoji_train' is for engine retrieval: it has passages, and captioning needs "
         "captions"),
        ("retrieval", "easy_vqa_train", "clip-nano",
         "subset 'easy_vqa_train' is for engine vqa: it has choices, and retrieval needs passages"),
        ("retrieval", "emoji_train", "nano-captioner",
         "model 'nano-captioner' is for engine captioning, not for engine retrieval"),
    ],
)  # fmt: skip
def test_what_is_for_another_engine_is_refused_in_one_sentence(
    tmp_path: Path, engine: str, subset: str, model: str, sentence: str
) -> None:
    asked = {"engine": engine, "subsets": subset, "models": model}
    assert problems(asked, tmp_path) == [sentence]


def test_so_is_what_a_run_evaluates_on(tmp_path: Path) -> None:
    asked = {"subsets": "emoji_train", "models": "clip-nano",
             "settings": {"evaluate_on": ["easy_vqa_val"]}}  # fmt: skip
    found = [one for one in problems(asked, tmp_path) if "is for engine" in one]
    assert [one.partition(" is for ")[0] for one in found] == ["subset 'easy_vqa_val'"]


CPU_PLAN = {"subsets": "emoji_train", "models": "clip-nano"}


def test_the_cpu_flag_reaches_every_run_and_its_repetition(tmp_path: Path) -> None:
    (tmp_path / "asked.toml").write_text(plan.dump(plan.parse({**CPU_PLAN, "devices": [1]})))
    asked = load_plan(tmp_path / "asked.toml", None, {}, None, cpu=True)
    assert (asked.cpu, asked.devices) == (True, ())
    specs = expand.expand(asked, tmp_path)
    assert [spec.cpu for spec in specs] == [True]
    folder = suite.create_suite(tmp_path, asked, specs)
    again = load_plan(folder / "plan.toml", None, {}, None)
    assert again == asked, "`workbench run plan.toml` repeats it on the CPU"
    assert [spec.cpu for _, spec in suite.read_runs(folder)] == [True], "and so does `resume`"
    assert load_plan(folder / "plan.toml", None, {"devices": [0]}, None).cpu is False
    with pytest.raises(plan.PlanError, match="give --device or --cpu, not both"):
        load_plan(None, None, {**CPU_PLAN, "devices": [0]}, None, cpu=True)


def test_a_plan_names_gpus_or_the_cpu(tmp_path: Path) -> None:
    asked = plan.parse({**CPU_PLAN, "devices": [0], "cpu": True})
    with pytest.raises(plan.PlanError, match="cpu = true hides every GPU"):
        expand.expand(asked, tmp_path)
    assert plan.parse({**CPU_PLAN, "cpu": False}).hash() == plan.parse(CPU_PLAN).hash()
    assert plan.parse({**CPU_PLAN, "cpu": True}).hash() != plan.parse(CPU_PLAN).hash()


def test_a_plan_on_the_cpu_is_forecast_for_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory_check, "is_library_present", lambda: True)
    monkeypatch.setattr(
        memory_check.gpus, "query_nvml", lambda: pytest.fail("no GPU is asked about")
    )
    asked = plan.parse({**CPU_PLAN, "cpu": True})
    _, specs, _ = start.prepare_runs(asked, (), paths.log_root(None), force=False)
    assert [spec.cpu for spec in specs] == [True]


@pytest.mark.parametrize(
    ("devices", "parsed"),
    [
        ([1, 0], (1, 0)), (["0", "GPU-5d5ba0d6"], (0, "GPU-5d5ba0d6")), (["MIG-77/1/0"],
         ("MIG-77/1/0",)), (2, (2,)), (["cuda:0"], None), ([-1], None), (["GPU-$(id)"], None),
    ],
)  # fmt: skip
def test_devices_are_indexes_or_uuids(devices: object, parsed: tuple[int | str, ...]) -> None:
    table = {"subsets": ["a"], "models": ["b"], "devices": devices}
    if parsed is None:
        with pytest.raises(plan.PlanError, match="devices"):
            plan.parse(table)
        return
    asked = plan.parse(table)
    assert asked.devices == parsed
    assert plan.parse(tomllib.loads(plan.dump(asked))) == asked


@pytest.mark.parametrize(
    ("devices", "nodes", "said"),
    [
        ((3,), [], "device 3: this machine has no GPU; name none, or give --cpu"),
        ((0, 2), ["nvidia0", "nvidia1", "nvidiactl"],
         "device 2: this machine has 2 GPUs; indexes go from 0 to 1"),
        (("GPU-5d5b",), [], "device GPU-5d5b: this machine has no GPU; name none, or give --cpu"),
        (("GPU-5d5b", "MIG-77", 0), ["nvidia0"], None),
        ((1,), ["nvidia0", "nvidia1"], None),
        ((1,), ["dxg"], None),
        ((), [], None),
    ],
)  # fmt: skip
def test_a_gpu_that_is_not_here_is_refused(
    tmp_path: Path, devices: tuple[int, ...], nodes: list[str], said: str | None
) -> None:
    for node in nodes:
        (tmp_path / node).touch()
    assert find_device_problem(devices, tmp_path) == said


@pytest.mark.parametrize("setting", ["vision", "llm", "siglip", "bert_score"])
def test_a_model_of_a_setting_that_is_not_here_is_refused_before_anything_is_written(
    tmp_path: Path, setting: str
) -> None:
    table = {
        "engine": "captioning", "subsets": ["emoji_captions_en_train"],
        "models": ["nano-captioner"], "settings": {setting: "hub:org/absent"},
    }  # fmt: skip
    with pytest.raises(plan.PlanError) as caught:
        expand.expand(plan.parse(table), tmp_path)
    (sentence,) = caught.value.problems
    assert sentence.startswith(f"{setting} = hub:org/absent: ")
    bare = {**table, "settings": {setting: "absent"}}
    if setting != "siglip":  # may be a plain folder
        with pytest.raises(plan.PlanError, match=f"{setting} = absent: is neither path:/abs/dir"):
            expand.expand(plan.parse(bare), tmp_path)
    assert "run `hf download org/absent" in sentence
    if setting in ("siglip", "bert_score"):
        unused = table["settings"] | {"scorers": ["meteor"]}
        assert expand.expand(plan.parse({**table, "settings": unused}), tmp_path)
        assert expand.expand(plan.parse({**table, "cost_probe": 20}), tmp_path)


def test_stage_blocks_of_a_plan_and_of_a_variant_are_settings(tmp_path: Path) -> None:
    file = tmp_path / "staged.toml"
    file.write_text(
        """schema = 1
engine = "captioning"
subsets = ["emoji_captions_en_train"]
models = ["nano-captioner"]
[settings]
batch = 8
[[stage]]
trainable = ["projector"]
lr = 1e-3
[[stage]]
[[variant]]
label = "a"
[[variant]]
label = "b"
[[variant.stage]]
epochs = 2
batch = 4
"""
    )
    suite_plan = plan.load(file)
    assert plan.parse(tomllib.loads(plan.dump(suite_plan))) == suite_plan
    first, second = expand.expand(suite_plan, tmp_path)
    assert [stage["trainable"] for stage in first.params["stages"]] == [["projector"], None]
    (only,) = second.params["stages"]
    assert (only["epochs"], only["batch"], second.params["batch"]) == (2, 4, 8)
    counts = plan_estimate.count_stage_steps(first.params, 100)  # nano: 10 epochs
    assert {name: steps.total for name, steps in counts.items()} == {"1": 130, "2": 130}


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"stage": [{"trainable": []}]}, "stage 1: nothing is trained"),
        ({"stage": [{"epohcs": 2}]}, "epohcs"),
        ({"stage": [{}], "settings": {"stages": [{}]}}, "keep one of them"),
    ],
)
def test_a_wrong_stage_block_is_one_sentence(
    tmp_path: Path, changes: dict[str, object], sentence: str
) -> None:
    table: dict[str, object] = {
        "engine": "captioning", "subsets": ["emoji_captions_en_train"], "models": ["nano-captioner"]
    }  # fmt: skip
    (problem,) = problems({**table, **changes}, tmp_path)
    assert sentence in problem


def test_an_out_of_memory_retry_halves_the_largest_stage() -> None:
    params = {
        "batch": 4,
        "gradient_accumulation_steps": 2,
        "stages": [{"batch": 16}, {"batch": None, "lr": 1e-3}],
    }
    retry = catalog.halve_batch(params)
    assert retry is not None
    assert (retry.before, retry.after) == (16, 8)
    first, second = retry.params["stages"]
    assert (first["batch"], first["gradient_accumulation_steps"]) == (8, 4)
    assert (second["batch"], second["gradient_accumulation_steps"], second["lr"]) == (4, 2, 1e-3)
