"""Will it fit: the audit's numbers, rules, environment, verdicts; no torch in this process."""

from __future__ import annotations

import json

import numpy as np
import pytest
from typer.testing import CliRunner

from engines.memory_query import MAPPED, OTHERS, STEP, MemoryEstimate, MemoryQuery
from engines.protocol import RunSpec
from workbench.memory_estimate import (
    automatic_settings,
    environment,
    estimator_process,
    fit_check,
    gpus,
    memory_check,
    plan_estimate,
    policy,
)
from workbench.memory_estimate.fit_check import HostMemory
from workbench.memory_estimate.gpus import GIB
from workbench.planning import plan

A10G = gpus.find_gpu("A10G")
NEED = MemoryEstimate(
    phases={"train": {"weights": 4 * GIB, "activations": GIB}, "predict": {"weights": 4 * GIB}}
)


@pytest.fixture
def answers(monkeypatch, tmp_path):
    """A simulation that needs 1 GiB and 2 for each sample, and counts the questions."""
    asked: list[MemoryQuery] = []

    def child(wants):
        asked.extend(wants)
        return [
            MemoryEstimate(phases={"train": {"all": GIB + 2 * GIB * want.params["batch"]}})
            for want in wants
        ]

    monkeypatch.setattr(estimator_process, "run_estimator", child)
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path / "cache"))
    for name in (*environment.SETTINGS, environment.EFFECTIVE_BATCH):
        monkeypatch.delenv(name, raising=False)
    return asked


def audit(**fields):
    table = plan.load_preset("audit-vqa").model_dump(mode="json", by_alias=True)
    return plan.parse({**table, **fields})


def spec(**params):
    full = {
        "batch": 2,
        "gradient_accumulation_steps": 8,
        "eval_batch_size": 6,
        "epochs": 3.0,
        **params,
    }
    return RunSpec(
        suite="", run_id="01", engine="vqa", subset="s", model="qwen2.5-vl-7b", params=full,
        cache_root="",
    )  # fmt: skip


def test_the_audit_comes_out_of_the_command_alone(answers):
    from workbench.cli.main import app

    command = ["plan", "-p", "audit-vqa", "--gpu", "A10G", "--rows", "3887", "--json"]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, done.output
    said = json.loads(done.stdout)
    steps = said["steps"]
    assert (steps["train"], steps["held_out"]) == (3498, 389)
    assert (steps["batch"], steps["gradient_accumulation_steps"]) == (2, 8)
    assert (steps["per_epoch"], steps["total"]) == (219, 657)
    assert said["params"]["eval_batch_size"] == 6
    assert "audit" in said["origins"]["batch"]


def test_steps_are_those_of_the_loop():
    from engines.torchkit.data.data_loader import EpochPermutation

    for rows, batch, gradient_accumulation_steps in (
        (3498, 2, 8),
        (3498, 1, 12),
        (17, 4, 1),
        (16, 4, 4),
    ):
        order = EpochPermutation(rows, batch, gradient_accumulation_steps, 0)
        assert (
            policy.steps_per_epoch(rows, batch, gradient_accumulation_steps)
            == order.steps_per_epoch
        )


def test_a_sample_of_the_rows_is_what_is_divided():
    params = {"batch": 1, "gradient_accumulation_steps": 4, "validation_share": 0.1, "sample": 200}
    steps = plan_estimate.count_steps(params, 3887)
    assert (steps.rows, steps.train, steps.held_out, steps.total) == (200, 180, 20, 45)
    assert plan_estimate.count_steps({**params, "sample": 0}, 3887).rows == 3887
    assert plan_estimate.count_steps(params, 100).rows == 100


def test_captioning_holds_out_only_what_it_stops_by():
    params = {"batch": 16, "validation_share": 0.05, "validate_on": "", "early_stopping": False}
    assert plan_estimate.count_steps(params, 1000).held_out == 0
    assert plan_estimate.count_steps({**params, "early_stopping": True}, 1000).held_out == 50
    assert plan_estimate.count_steps({**params, "load_best": True}, 1000).held_out == 50
    assert plan_estimate.count_steps({**params, "load_best": "auto"}, 1000).held_out == 0
    named = {**params, "early_stopping": True, "validate_on": "other"}
    assert plan_estimate.count_steps(named, 1000).held_out == 0


@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_steps_of_several_processes_are_those_of_the_loop(ranks):
    from engines.torchkit.data.data_loader import EpochPermutation

    params = {"batch": 2, "gradient_accumulation_steps": 3, "epochs": 1.0, "nproc_per_node": ranks}
    order = EpochPermutation(1000, 2 * ranks, 3, 0)  # as TrainingSetup.from_run makes it
    assert plan_estimate.count_steps(params, 1000).per_epoch == order.steps_per_epoch
    made = automatic_settings.apply_automatic_settings(
        audit(settings={"nproc_per_node": ranks}), (), A10G, {}
    )
    assert made.settings["batch"] * made.settings["gradient_accumulation_steps"] * ranks == 16


def test_other_processes_are_in_the_plan_and_not_in_what_is_measured():
    need = ON_CPU.model_copy(update={"host": ON_CPU.host | {OTHERS: 4 * GIB}})
    assert fit_check.check_fit(need, "train", HostMemory(8 * GIB)).total == 9 * GIB
    assert memory_check.estimate_record(need, HostMemory(8 * GIB)) == memory_check.estimate_record(
        ON_CPU, HostMemory(8 * GIB)
    )


def test_what_may_be_lowered_leaves_the_experiment_as_it_is():
    pairs = {
        "batch": 64,
        "gradient_accumulation_steps": 1,
        "grad_cache_chunk": 0,
        "eval_batch_size": 256,
    }
    words = [one.description for one in policy.list_reductions(pairs, "clip", trains=True)]
    assert words == [
        "grad_cache_chunk = 16", "eval_batch_size = 16", "batch = 16, with fewer negatives",
    ]  # fmt: skip
    assert policy.minimal_settings(pairs) == [
        {"grad_cache_chunk": 1, "eval_batch_size": 1}, {"batch": 1, "eval_batch_size": 1},
    ]  # fmt: skip
    captions = {
        "batch": 16,
        "gradient_accumulation_steps": 2,
        "gradient_checkpointing": False,
        "eval_batch_size": 64,
    }
    words = [one.description for one in policy.list_reductions(captions, "captioner", trains=True)]
    assert words == [
        "gradient_checkpointing = true",
        "batch = 1, gradient_accumulation_steps = 32",
        "eval_batch_size = 16",
    ]
    first = policy.list_reductions(captions, "captioner", "predict", trains=True)[0]
    assert first.settings == {"eval_batch_size": 16}


def test_held_out_rows_are_those_that_are_dealt():
    from datasets_mm import folds

    for rows, share in ((3887, 0.1), (500, 0.1), (333, 0.2)):
        answers = np.arange(rows) % 4
        held = folds.hold_out(answers, [str(row) for row in range(rows)], share, 0)
        assert policy.hold_out_sizes(rows, share)[1] == int((held == 0).sum())


@pytest.mark.parametrize(
    ("name", "batch", "predict"),
    [
        ("T4", 1, 4),
        ("A10G", 2, 6),
        ("L4", 2, 6),
        ("A100-40", 4, 10),
        ("H100", 8, 20),
        ("8GiB@8.6", 1, 1),
    ],
)
def test_rule_by_memory(name, batch, predict):
    row = policy.select_preset(gpus.find_gpu(name).memory_bytes)
    assert (row.batch, row.eval_batch_size) == (batch, predict)


def test_a_wrong_gpu_names_the_nearest():
    with pytest.raises(plan.PlanError, match="did you mean.*A10G"):
        memory_check.locate_device("A10", (), cpu=False)
    with pytest.raises(plan.PlanError, match="no such GPU"):
        memory_check.locate_device("²GiB@8.6", (), cpu=False)
    assert memory_check.locate_device("NVIDIA a10g", (), cpu=False) == A10G
    assert gpus.find_gpu("24GB@8.6").memory_bytes == 24 * 10**9


def test_a_rented_machine_names_its_gpu_and_its_host_memory():
    rented = memory_check.locate_device("G5.xlarge", (), cpu=False)
    assert rented == A10G.model_copy(update={"instance": "g5.xlarge"})
    assert rented.instances[rented.instance] == 16


@pytest.mark.parametrize(
    ("name", "model"),
    [("NVIDIA A100-SXM4-80GB", "A100-80"), ("NVIDIA A100 80GB PCIe", "A100-80"), ("Tesla T4", "T4"),
     ("3090", "RTX3090"), ("GeForce RTX 2080 Ti", "RTX2080Ti"), ("H100 80GB HBM3", "H100")],
)  # fmt: skip
def test_a_gpu_is_known_by_the_name_that_nvidia_smi_prints(name, model):
    assert gpus.find_gpu(name).name == model


def test_environment_stands_between_plan_and_flags():
    variables = {
        "PER_DEVICE_BATCH": "1", "EFFECTIVE_BATCH_SIZE": "12", "LORA_R": "24", "IMAGE_SIZE": "384",
        "LORA_DROPOUT": "0.1",
    }  # fmt: skip
    made = automatic_settings.apply_automatic_settings(audit(), {"long_side"}, A10G, variables)
    assert made.settings["batch"] == 1
    assert made.settings["gradient_accumulation_steps"] == 12
    assert made.settings["lora_rank"] == 24  # the plan says 32
    assert made.settings["long_side"] == 768  # --set wins
    assert made.origins["lora_rank"] == "environment: LORA_R=24"
    assert "long_side" not in made.origins
    assert made.hash() != audit().hash()


def test_wrong_variables_are_all_named():
    with pytest.raises(plan.PlanError) as caught:
        environment.read_settings({"LORA_R": "many", "PRED_BATCH_SIZE": "6.5"})
    assert len(caught.value.problems) == 2
    with pytest.raises(plan.PlanError, match="EFFECTIVE_BATCH_SIZE=0"):
        environment.effective_batch({"EFFECTIVE_BATCH_SIZE": "0"})


def test_the_names_of_the_weekly_log_are_those_of_a_retrieval_plan():
    weekly = plan.load_preset("weekly-m2kr")
    variables = {
        "NUM_EPOCHS": "2", "PER_DEVICE_TRAIN_BS": "32", "GRAD_ACCUM": "2", "NUM_WORKERS": "4",
        "WARMUP_STEPS": "5", "PIN_MEMORY": "True", "BF16": "False", "TF32": "0",
        "NPROC_PER_NODE": "1", "LORA_R": "8",
    }  # fmt: skip
    built = automatic_settings.apply_automatic_settings(weekly, {"num_workers"}, A10G, variables)
    changed = {k: v for k, v in built.settings.items() if weekly.settings.get(k) != v}
    assert changed == {
        "epochs": 2.0, "batch": 32, "gradient_accumulation_steps": 2, "timing_warmup_steps": 5,
        "pin_memory": True, "precision": "fp32", "tf32": False, "nproc_per_node": 1,
    }  # fmt: skip
    assert built.settings["num_workers"] == 12, "--set wins"
    assert built.origins["batch"] == "environment: PER_DEVICE_TRAIN_BS=32"
    assert built.origins.keys() == changed.keys()
    assert automatic_settings.apply_automatic_settings(weekly, (), A10G, {"LORA_R": "8"}) == weekly
    with pytest.raises(plan.PlanError, match="PIN_MEMORY=maybe is neither true nor false"):
        automatic_settings.apply_automatic_settings(weekly, (), A10G, {"PIN_MEMORY": "maybe"})


def test_what_a_plan_decides_is_left_alone():
    made = automatic_settings.apply_automatic_settings(
        audit(settings={"batch": 3, "gradient_accumulation_steps": 5}), (), A10G, {}
    )
    assert (made.settings["batch"], made.settings["gradient_accumulation_steps"]) == (3, 5)
    other = audit(engine="captioning")
    assert automatic_settings.apply_automatic_settings(other, (), A10G, {"LORA_R": "8"}) == other


def test_verdict_adds_what_no_ledger_sees():
    found = fit_check.check_fit(NEED, "train", A10G)
    tensors = 5 * GIB
    assert found.total == tensors + int(0.06 * tensors) + 8_519_680 + GIB // 2
    assert found.fits
    assert "fits on A10G: 5.8 of 22.2 GiB in training" in fit_check.describe_fit(found, A10G)
    small = gpus.find_gpu("5GiB@8.6")
    assert "does not fit on 5GiB@8.6" in fit_check.describe_fit(
        fit_check.peak_phase(NEED, small), small
    )


def test_lowering_goes_in_the_order_of_the_reports():
    params = {"batch": 2, "gradient_accumulation_steps": 8, "eval_batch_size": 6,
              "long_side": 768, "ema": 0.99,
              "lora_rank": 32, "gradient_checkpointing": True, "swa": False}  # fmt: skip
    words = [
        one.description for one in policy.list_reductions(params, "qwen2.5-vl-7b", trains=True)
    ]
    assert words == [
        "batch = 1, gradient_accumulation_steps = 16", "eval_batch_size = 1", "long_side = 384",
        "lora_rank = 24",
        "qwen2.5-vl-3b instead of qwen2.5-vl-7b", "EMA and SWA off",
    ]  # fmt: skip


def test_a_run_that_fits_is_recorded_and_one_that_cannot_is_refused(answers, tmp_path):
    built, lines = memory_check.check_memory([spec()], A10G, tmp_path, force=False)
    assert built[0].fit["gpu"] == "A10G"
    assert built[0].fit["tensors"] == {"train": 5 * GIB}
    assert len(lines) == 1
    tight = gpus.find_gpu("4GiB@8.6")  # batch 1 needs 3 GiB and what comes on top
    built, lines = memory_check.check_memory([spec()], tight, tmp_path, force=False)
    assert "does not fit" in lines[0]
    tiny = gpus.find_gpu("3GiB@8.6")
    with pytest.raises(plan.PlanError, match="even with batch = 1.*--force"):
        memory_check.check_memory([spec()], tiny, tmp_path, force=False)
    assert memory_check.check_memory([spec()], tiny, tmp_path, force=True)[0][0].fit


def test_equal_questions_are_asked_once_and_remembered(answers, tmp_path):
    specs = [spec(fold=0), spec(fold=1)]
    memory_check.check_memory(specs, A10G, tmp_path, force=False)
    memory_check.check_memory(specs, A10G, tmp_path, force=False)
    assert len(answers) == 1


def test_an_answer_is_forgotten_when_what_it_was_read_from_changes(answers, folder, tmp_path):
    run = spec().model_copy(update={"model": folder})
    rows = tmp_path / "subset" / "records.arrow"
    rows.parent.mkdir()
    rows.write_text("one")
    want = memory_check.build_query(run, A10G).model_copy(update={"subsets": (str(rows.parent),)})
    for _ in range(2):
        estimator_process.request_estimates([want], tmp_path)
    assert len(answers) == 1
    rows.write_text("one more")
    estimator_process.request_estimates([want], tmp_path)
    assert len(answers) == 2
    (tmp_path / "model" / "tokenizer.json").write_text("{}")
    estimator_process.request_estimates([want], tmp_path)
    assert len(answers) == 3
    estimator_process.request_estimates([want], tmp_path)
    assert len(answers) == 3


def test_every_subset_of_a_plan_is_asked_about(answers, monkeypatch):
    from workbench.cli.main import app

    command = ["plan", "-p", "audit-vqa", "--gpu", "A10G", "--rows", "3887"]
    done = CliRunner().invoke(app, [*command, "-d", "easy_vqa_train", "-d", "easy_vqa_base"])
    assert done.exit_code == 0, done.output
    assert [line for line in done.stdout.splitlines() if " · " in line] == [
        "vqa · qwen2.5-vl-3b · easy_vqa_train", "vqa · qwen2.5-vl-3b · easy_vqa_base",
    ]  # fmt: skip


def test_lowered_forecasts_come_on_top_of_each_other(answers, tmp_path):
    found = plan_estimate.estimate_reductions(
        spec(long_side=768), gpus.find_gpu("4GiB@8.6"), tmp_path, "train"
    )
    assert [one.phase_fit.fits for one in found][:1] == [True]
    assert answers[1].params["batch"] == 1
    assert answers[-1].model == "qwen2.5-vl-3b"


def test_what_a_model_cannot_do_is_not_advised(monkeypatch, tmp_path):
    """A tower that normalises over the batch refuses chunks."""

    def child(wants):
        chunked = [want.params["grad_cache_chunk"] for want in wants]
        return [
            MemoryEstimate(problem="no chunks")
            if chunk
            else MemoryEstimate(phases={"train": {"all": 30 * GIB}})
            for chunk in chunked
        ]

    monkeypatch.setattr(estimator_process, "run_estimator", child)
    pairs = {"batch": 64, "grad_cache_chunk": 0, "eval_batch_size": 256}
    run = spec().model_copy(update={"engine": "retrieval", "model": "clip", "params": pairs})
    found = plan_estimate.estimate_reductions(run, A10G, tmp_path, "train")
    assert [one.description for one in found] == [
        "eval_batch_size = 16", "batch = 16, with fewer negatives",
    ]  # fmt: skip
    with pytest.raises(plan.PlanError, match="even with batch = 1 and eval_batch_size = 1"):
        memory_check.check_memory([run], A10G, tmp_path, force=False)


def test_the_questions_of_a_command_have_one_child(monkeypatch, tmp_path):
    """A child that says how many it is; it answers until its input ends."""
    script = tmp_path / "python"
    script.write_text(
        "#!/bin/sh\necho x >> starts\nwhile read line; do "
        'echo "{\\"seconds\\": $(wc -l < starts)}"; done\necho end >> ends\n'
    )
    script.chmod(0o700)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(estimator_process.sys, "executable", str(script))
    heard: list[str] = []
    wants = [memory_check.build_query(spec(long_side=side), A10G) for side in (384, 512, 768)]
    with estimator_process.share_process(heard.append):
        found = estimator_process.request_estimates(
            wants[:2], tmp_path / "one"
        ) + estimator_process.request_estimates(wants[2:], tmp_path / "one")
    assert [need.seconds for need in found] == [1, 1, 1]
    assert [line.split(", ")[1] for line in heard] == ["1 of 2 …", "2 of 2 …", "1 of 1 …"]
    assert (tmp_path / "ends").read_text() == "end\n", "it has ended with the command"
    assert estimator_process.request_estimates(wants[:1], tmp_path / "two")[0].seconds == 2, (
        "outside, one for each call"
    )


def test_a_child_that_takes_too_long_is_ended(monkeypatch, tmp_path):
    script = tmp_path / "python"
    script.write_text("#!/bin/sh\nread line; exec sleep 60\n")
    script.chmod(0o700)
    monkeypatch.setattr(estimator_process.sys, "executable", str(script))
    monkeypatch.setattr(estimator_process, "TIMEOUT_SECONDS", 0.2)
    wants = [memory_check.build_query(spec(long_side=side), A10G) for side in (384, 512)]
    problems = [need.problem for need in estimator_process.request_estimates(wants, tmp_path)]
    assert problems == ["the memory estimate has not ended within 0.2 s"] * 2, (
        "the next has a new child"
    )


def test_a_child_that_dies_is_an_answer(monkeypatch, tmp_path):
    monkeypatch.setattr(estimator_process.sys, "executable", "/bin/false")
    need = estimator_process.request_estimates([memory_check.build_query(spec(), A10G)], tmp_path)[
        0
    ]
    assert "failed" in need.problem
    assert not list(tmp_path.rglob("*.json"))


ON_CPU = MemoryEstimate(
    phases={"train": {"weights": GIB, "activations": GIB}, "predict": {"weights": GIB}},
    host={"Python and libraries": GIB, MAPPED: 2 * GIB, STEP: 2 * GIB},
)


def test_on_a_cpu_everything_is_host_memory():
    found = fit_check.check_fit(ON_CPU, "train", HostMemory(8 * GIB))
    assert found.total == 5 * GIB  # the step is there once, by its parts
    assert STEP not in found.parts
    assert fit_check.check_fit(ON_CPU, "predict", HostMemory(8 * GIB)).total == 4 * GIB
    assert fit_check.describe_fit(found, HostMemory(8 * GIB)) == (
        "fits on this host: 5.0 of 8.0 GiB in training, 3.0 left"
    )
    assert memory_check.estimate_record(ON_CPU, HostMemory(8 * GIB)) == {
        "gpu": "", "tensors": {"train": 2 * GIB, "predict": GIB},
        "total": {"train": 5 * GIB, "predict": 4 * GIB},
    }  # fmt: skip


def test_only_what_a_host_clearly_lacks_is_hopeless():
    assert not fit_check.peak_phase(ON_CPU, HostMemory(4 * GIB)).fits
    assert not fit_check.cannot_fit(
        ON_CPU, HostMemory(4 * GIB)
    )  # pages of mapped files can be dropped
    assert fit_check.cannot_fit(ON_CPU, HostMemory(2 * GIB))
    assert fit_check.cannot_fit(NEED, gpus.find_gpu("5GiB@8.6"))


@pytest.fixture
def folder(tmp_path):
    """A model with weights of its own, as a person names it."""
    made = tmp_path / "model"
    made.mkdir()
    (made / "config.json").write_text('{"model_type": "qwen2_5_vl", "vision_config": {}}')
    return f"path:{made}"


def test_a_run_on_a_cpu_is_forecast_and_one_that_cannot_fit_is_refused(answers, folder, tmp_path):
    run = spec().model_copy(update={"model": folder})
    built, lines = memory_check.check_memory([run], HostMemory(16 * GIB), tmp_path, force=False)
    assert answers[0].target == "cpu"
    assert built[0].fit["gpu"] == ""
    assert "fits on this host" in lines[0]
    with pytest.raises(plan.PlanError, match="this host.*even with batch = 1.*--force"):
        memory_check.check_memory([run], HostMemory(2 * GIB), tmp_path, force=False)
    assert memory_check.check_memory([run], HostMemory(2 * GIB), tmp_path, force=True)[0][0].fit


def test_a_model_from_scratch_on_a_cpu_waits_for_no_answer(answers, tmp_path):
    run = spec().model_copy(update={"model": "nano-qwen-vl"})
    host = HostMemory(16 * GIB)
    assert memory_check.check_memory([run], host, tmp_path, force=False) == ([run], [])
    assert answers == []
    estimator_process.request_estimates(
        [memory_check.build_query(run, host)], tmp_path
    )  # as `workbench plan` does
    built, lines = memory_check.check_memory([run], host, tmp_path, force=False)
    assert built[0].fit["gpu"] == ""
    assert len(answers) == len(lines) == 1
    memory_check.check_memory([run], A10G, tmp_path, force=False)
    assert answers[-1].target == "cuda"


def test_where_a_run_will_compute(monkeypatch):
    assert memory_check.locate_device("A10G", (), cpu=True) == A10G
    monkeypatch.setattr(memory_check, "is_library_present", lambda: True)
    monkeypatch.setattr(gpus, "query_nvml", dict)
    silent = memory_check.locate_device("", (), cpu=False)
    assert silent == memory_check.UnknownDevice("the driver does not say which GPUs are here"), (
        "no CPU"
    )
    assert isinstance(memory_check.locate_device("", (), cpu=True), HostMemory)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert isinstance(memory_check.locate_device("", (), cpu=False), HostMemory)
    assert memory_check.locate_device("", (0,), cpu=False) == silent, (
        "a plan's devices go before the shell's"
    )


def test_plan_without_a_gpu_is_about_the_host(answers, monkeypatch):
    from workbench.cli.main import app

    monkeypatch.setattr(memory_check, "is_library_present", lambda: False)
    command = ["plan", "-p", "demo-vqa", "--host-gib"]
    done = CliRunner().invoke(app, [*command, "256"])
    assert done.exit_code == 0, done.output
    assert "host memory, on the CPU" in done.stdout
    assert "fits on the host" in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 80
    short = CliRunner().invoke(app, [*command, "2"])
    assert short.exit_code == 1
    assert "does not fit on the host" in short.stdout
    said = json.loads(CliRunner().invoke(app, [*command, "256", "--json"]).stdout)
    assert said["verdict"]["fits"]
    assert said["host"]["memory_bytes"] == 256 * GIB
    marked = CliRunner().invoke(app, [*command, "256", "--markdown"]).stdout
    assert "| host memory, on the CPU |" in marked


def test_a_host_that_lacks_memory_beside_a_gpu_is_an_exit_code(answers, monkeypatch):
    from workbench.cli.main import app

    monkeypatch.setattr(
        estimator_process,
        "run_estimator",
        lambda w: [NEED.model_copy(update={"host": {"all": 20 * GIB}})] * len(w),
    )
    command = ["plan", "-p", "audit-vqa", "--gpu", "A10G", "--rows", "3887"]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 1
    assert "host memory does not suffice" in done.stdout
    assert CliRunner().invoke(app, [*command, "--host-gib", "32"]).exit_code == 0


def test_built_subsets_of_a_run_are_named_its_own_first(monkeypatch, tmp_path):
    from types import SimpleNamespace

    folders = {"mine": tmp_path / "mine", "said": tmp_path / "said", "test": None, "sub": tmp_path}

    def summary(name, root):
        assert root == tmp_path
        return SimpleNamespace(folder=folders[name], evaluate_on=("said", "test", "gone"))

    monkeypatch.setattr(memory_check.catalog, "names", lambda: list(folders))
    monkeypatch.setattr(memory_check.catalog, "summary", summary)
    run = spec(evaluate_on=None, infer_on="sub").model_copy(
        update={"subset": "mine", "cache_root": str(tmp_path)}
    )
    assert memory_check.built_subset_folders(run) == tuple(
        str(folders[name]) for name in ("mine", "said", "sub")
    )
    assert memory_check.build_query(run, A10G).subsets == memory_check.built_subset_folders(run)
    alone = run.model_copy(update={"params": {**run.params, "evaluate_on": [], "infer_on": ""}})
    assert memory_check.built_subset_folders(alone) == (str(tmp_path / "mine"),)
    assert (
        memory_check.built_subset_folders(run.model_copy(update={"subset": "rows", "params": {}}))
        == ()
    )
    assert memory_check.built_subset_folders(run.model_copy(update={"subset": "test"})) == ()


@pytest.mark.parametrize("where", [A10G, HostMemory(8 * GIB)], ids=["gpu", "cpu"])
def test_a_model_that_cannot_be_forecast_starts_all_the_same(monkeypatch, folder, tmp_path, where):
    sentence = "memory of a 'llava' cannot be forecast"
    monkeypatch.setattr(
        estimator_process,
        "run_estimator",
        lambda wants: [MemoryEstimate(problem=sentence)] * len(wants),
    )
    run = spec().model_copy(update={"model": folder})
    built, lines = memory_check.check_memory([run], where, tmp_path, force=False)
    assert built == [run]
    assert lines == [f"memory forecast, {folder}: n/a ({sentence})"]
