"""Hand-written records: the weekly report's own numbers, and a run of every awkward kind."""

from types import SimpleNamespace

import pytest

from results.records.schema import (
    Environment,
    Exit,
    GpuInfo,
    Identity,
    MemoryUse,
    MetricRecord,
    Reading,
    RunRecord,
    TimingRecord,
)
from results.records.suite_view import RunCurves, SuiteView, SuiteWords

GIB = 2**30
NO_GPU = Reading(reason="no NVML library on this machine")
UNTIMED = Reading(reason="the report timed whole processes only")
TINYCLIP = "wkcn/TinyCLIP-ViT-61M-32-Text-29M-LAION400M"

SETTINGS = {
    "epochs": 1,
    "timing_warmup_steps": 20,
    "batch": 64,
    "gradient_accumulation_steps": 1,
    "lr": 2e-5,
    "num_workers": 12,
    "pin_memory": False,
    "precision": "bf16",
    "tf32": True,
    "layers": [3, 7, 11],
}

WEEKLY = (
    ("oven_train", 339_137, 5_300, 481.39, 3.15, 1.5284, 0.8538),
    ("infoseek_bal76k_train", 76_265, 1_192, 126.03, 2.59, 1.7455, 0.8151),
    ("evqa_train", 167_369, 2_616, 256.15, 2.35, 1.6716, 0.8046),
    ("okvqa_mm_train", 8_253, 129, 35.92, 1.88, 3.6432, 0.4884),
)

WEEKLY_NOTES = (
    "r@1은 “최종 summary”가 아니라 **마지막 train log(epoch=1.0)** 에서 확인",
    "최종 summary에 r@1 포함",
    "최종 summary에 r@1 포함",
    "최종 summary에 r@1 포함",
)


def untimed(**known):
    names = (
        "end_to_end_seconds", "time_to_first_step", "epoch_wall_seconds", "step_median", "step_p95",
        "data_wait_share", "samples_per_second", "samples_per_second_median",
    )  # fmt: skip
    return TimingRecord(**(dict.fromkeys(names, UNTIMED) | known))


def unknown_memory(**known):
    names = (
        "rss_main_peak", "rss_tree_peak", "pss_tree_peak", "vram_allocated_peak",
        "vram_reserved_peak", "vram_process_peak", "vram_device_peak",
    )  # fmt: skip
    return MemoryUse(**(dict.fromkeys(names, NO_GPU) | known))


def record(run_id="01-retrieval-oven_train-tinyclip-61m", **changes):
    """A completed run with little known; `identity`, `timing`, … replace whole parts."""
    identity = {
        "suite": "20261121-130500-weekly-1a2b",
        "run_id": run_id,
        "engine": "retrieval",
        "task": "train",
        "subset": "oven_train",
        "model": "tinyclip-61m",
        "params": SETTINGS,
    }
    parts = {
        "identity": Identity(**(identity | changes.pop("identity", {}))),
        "environment": Environment(),
        "timing": untimed(end_to_end_seconds=Reading(value=481.39)),
        "memory": unknown_memory(rss_main_peak=Reading(value=3.15 * GIB)),
        "samples": 339_137,
        "steps": 5_300,
        "planned_steps": 5_300,
        "exit": Exit(cause="completed", code=0),
    }
    return RunRecord(**(parts | changes))


@pytest.fixture
def make():
    """Builders for tests that need records of their own."""
    return SimpleNamespace(
        record=record, untimed=untimed, unknown_memory=unknown_memory, reading=Reading
    )


def weekly_records():
    found = []
    for nn, (subset, samples, steps, wall, gib, loss, r_at_1) in enumerate(WEEKLY, 1):
        found.append(
            record(
                f"{nn:02d}-retrieval-{subset}-tinyclip-61m",
                identity={"subset": subset, "model": TINYCLIP},
                timing=untimed(end_to_end_seconds=Reading(value=wall)),
                memory=unknown_memory(rss_main_peak=Reading(value=gib * GIB, method="VmHWM")),
                train={"loss": loss, "r@1": r_at_1, "batch": 64.0, "lr": 2e-5},
                samples=samples,
                steps=steps,
                planned_steps=steps,
                facts={"layers": "3,7,11"},
            )
        )
    return tuple(found)


@pytest.fixture
def weekly():
    """The weekly report's own four runs as a view."""
    records = weekly_records()
    notes = {r.identity.run_id: (n,) for r, n in zip(records, WEEKLY_NOTES, strict=True)}
    return SuiteView(
        name="weekly-m2kr",
        started_wall=1_795_266_300.0,
        state="ended",
        records=records,
        notes=notes,
        plan_toml='name = "weekly-m2kr"\nengine = "retrieval"\nmodels = ["tinyclip-61m"]\n',
    )


def scores(name, value, n=350, half=0.024, **more):
    return MetricRecord(
        name=name,
        value=value,
        split="emoji_val",
        n=n,
        low=round(value - half, 6),
        high=round(value + half, 6),
        method="bootstrap over queries, 1000, 95%",
        **more,
    )


def _measured(nn, model, label):
    return record(
        f"{nn:02d}-retrieval-emoji_train-{model}",
        identity={
            "subset": "emoji_train",
            "subset_fingerprint": "c0ffee0123456789abcdef",
            "model": model,
            "model_revision": "r1",
            "label": label,
            "params": SETTINGS | {"epochs": 4, "lr": 5e-4 if model == "clip-nano" else 1e-3},
        },
        environment=Environment(
            versions={"torch": "2.15.0", "transformers": "5.23.0"},
            python="3.11.7",
            platform="Linux-6.1-x86_64",
            cpu="Example CPU 2.8 GHz",
            cores=2,
            ram_bytes=16 * GIB,
            device="cpu",
            threads=2,
            gpu_reason="no NVML library on this machine",
            git_commit="6a8cb93f00d5",
            git_dirty=True,
            hostname="bench",
        ),
        timing=TimingRecord(
            end_to_end_seconds=Reading(value=81.254),
            time_to_first_step=Reading(value=9.87),
            epoch_wall_seconds=Reading(value=14.4),
            epoch_steps=120,
            warmup_steps=20,
            step_median=Reading(
                value=0.1183, low=0.1171, high=0.1197,
                method="block bootstrap over steps, blocks of 8, 1000, 95%",
            ),
            step_p95=Reading(value=0.1421, low=0.1390, high=0.1502),
            data_wait_share=Reading(value=0.021),
            samples_per_second=Reading(value=533.3),
            samples_per_second_median=Reading(value=541.0 if nn == 1 else 610.0),
            phases={"import": 3.1, "cache": 2.2, "load": 0.4, "train": 58.0, "eval": 15.5},
        ),
        memory=unknown_memory(
            rss_main_peak=Reading(value=1.21 * GIB, method="VmHWM"),
            rss_tree_peak=Reading(value=1.44 * GIB, method="sampled by the warden"),
            pss_tree_peak=Reading(value=790 * 2**20, method="sampled by the warden"),
        ),
        metrics=(
            scores("recall@1", 0.412),
            scores("recall@10", 0.731),
            scores("recall@1[chance]", 0.0001, half=0),
            scores("recall@1[text only]", 0.113),
            scores("recall@1[image only]", 0.201 if nn == 1 else 0.40),
        ),
        train={"loss": 0.8123, "r@1": 0.7031, "batch": 64.0},
        samples=7_680,
        steps=480,
        planned_steps=480,
        parameters=8_192_000,
        trainable_parameters=8_192_000,
        facts={"precision": "fp32"},
        counters={"notice:image-skipped": 3.0, "warden_cpu_seconds": 0.21},
        notices=("image-skipped: truncated file, 3 images left out",),
    )  # fmt: skip


def _failed():
    gone = Reading(reason="the engine ended before it could say")
    return record(
        "03-retrieval-emoji_mm_train-clip-nano",
        identity={"subset": "emoji_mm_train", "model": "clip-nano", "attempt": 2},
        environment=Environment(
            nvml_stub=True, gpus=(GpuInfo(index=0, name="Stub GPU", memory_bytes=24 * GIB),)
        ),
        timing=untimed(end_to_end_seconds=Reading(value=12.0), epoch_wall_seconds=gone),
        memory=unknown_memory(
            rss_main_peak=Reading(value=900 * 2**20), vram_process_peak=Reading(value=21 * GIB)
        ),
        samples=0,
        steps=17,
        planned_steps=480,
        exit=Exit(
            cause="oom-cuda", code=1, phase="train", step=17,
            detail="CUDA out of memory | tried to allocate 2.00 GiB",
        ),
        counters={"ooms": 2.0, "contaminated": 1.0},
    )  # fmt: skip


@pytest.fixture
def mixed():
    """Two measured runs of different models, and one that failed in every way at once."""
    records = (_measured(1, "clip-nano", "E1-v1"), _measured(2, "effnet-minilm", ""), _failed())
    falling = [(float(step), 4.2 * 0.995**step) for step in range(0, 481, 4)]
    rising = [(t / 2, (0.3 + 1.1 * (1 - 0.97**t)) * GIB) for t in range(160)]
    return SuiteView(
        name="demo",
        started_wall=1_795_266_300.0,
        state="ended",
        records=records,
        pending=("04-retrieval-emoji_mm_train-effnet-minilm",),
        curves={
            r.identity.run_id: RunCurves(curves={"loss": falling, "rss_tree": rising})
            for r in records[:2]
        },
        notes={"": ("Next: the balanced OKVQA.",)},
        plan_toml='name = "demo"\nengine = "retrieval"\n',
    )


STUDY_SETTINGS = {
    "lora_rank": 16, "lora_alpha": 32, "lora_dropout": 0.05, "quantize": "nf4",
    "double_quant": True,
    "frames": 8, "warmup_ratio": 0.1, "schedule": "cosine", "max_grad_norm": 1.0,
    "gradient_accumulation_steps": 2,
    "batch": 16, "num_workers": 4, "pin_memory": True, "gradient_checkpointing": True,
    "feature_cache": True,
    "precision": "bf16", "validate_every_epochs": 1, "max_length": 768, "max_new_tokens": 128,
    "siglip": "hub:google/siglip2-so400m-patch14-384",
}  # fmt: skip
STUDY_RUNS = (
    ("E5-v2", {"epochs": 5, "projector_lr": 1e-4, "lr": 2e-5}, 0.11, 0.113, 0.066),
    ("E5-v3", {"epochs": 10, "projector_lr": 1e-3, "lr": 5e-5, "early_stopping": True,
               "monitor": "siglip", "patience": 3, "min_delta": 0.001}, 0.06, 0.003, 0.068),
)  # fmt: skip
WAITING = (("E1", "linear"), ("E3", "mlp2x"), ("E5", "c_abstractor"), ("E1-v2", "linear"),
           ("E3-v2", "mlp2x"))  # fmt: skip


def _study_run(nn, label, settings, diversity, siglip, meteor):
    params = {**STUDY_SETTINGS, "projector": "c_abstractor", **settings}
    values = {
        "diversity": diversity,
        "SigLIP cosine (google/siglip2-so400m-patch14-384)": siglip,
        "METEOR (exact, kiwi morphemes)": meteor,
    }
    return record(
        f"{nn:02d}-captioning-{label}",
        identity={
            "suite": "20260120-090000-siglip-study-1a2b", "engine": "captioning", "label": label,
            "subset": "siglip_study_train", "model": "qwen3-8b-clip-l14", "params": params,
        },
        environment=Environment(
            device="cuda", gpus=(GpuInfo(index=0, name="A100-SXM4-80GB", memory_bytes=80 * GIB),)
        ),
        timing=untimed(),
        memory=unknown_memory(),
        metrics=tuple(
            MetricRecord(name=name, value=value, split="siglip_study_val", n=97)
            for name, value in values.items()
        ),
        samples=865,
        steps=135,
        planned_steps=135 if label == "E5-v2" else 270,
        parameters=8_000_000_000,
        trainable_parameters=249_487_360,
        facts={
            "vision": "clip at 336 px, frozen; 576 patches of 1024, layer -2",
            "projector": "c_abstractor, 205,840,384 parameters, 64 tokens",
            "llm": "Qwen3-8B, 252 linear layers in NF4, 5,684.1 MiB",
            "schedule": "linear warm-up, then cosine",
            "gradient_checkpointing": "non-reentrant",
        },
    )  # fmt: skip


@pytest.fixture
def study():
    """The projector study with its own numbers, and what its author noted."""
    runs = tuple(_study_run(nn, *known) for nn, known in enumerate(STUDY_RUNS, 1))
    first = runs[0].identity
    planned = tuple(
        first.model_copy(
            update={
                "run_id": f"{nn:02d}-captioning-{label}", "label": label,
                "params": {**STUDY_SETTINGS, "projector": kind},
            }
        )
        for nn, (label, kind) in enumerate(WAITING, 3)
    )  # fmt: skip
    earlier = {one.run_id: "기존 실험" for one in planned if "-v" not in one.label}
    return SuiteView(
        name="20260120-090000-siglip-study-1a2b",
        started_wall=1_768_899_600.0,
        state="ended",
        records=runs,
        planned=planned,
        states={r.identity.run_id: "done" for r in runs} | earlier,
        notes={
            "": (
                "**C-Abstractor Mode Collapse 확인**: LR 감소, Epoch 증가 모두 해결 실패",
                "**SigLIP 단독 평가의 한계**: Diversity와 함께 평가 필수",
            ),
            "01-captioning-E5-v2": ("LR 감소 (1e-4, 2e-5)",),
            "02-captioning-E5-v3": ("Epoch 증가 + Early Stopping (10 epoch 중 6에서 종료)",),
        },
        words=SuiteWords(
            title="SigLIP Study 실험 보고서",
            goal="Vision Projector 아키텍처 비교를 통한 최적 Vision-Language 정렬 달성",
            background="기존 METEOR 평가는 LLM의 언어 능력과 Projector 효과를 분리 불가",
            conclusion="C-Abstractor (206M)는 현재 데이터셋/설정에서 Mode Collapse 발생",
            next_steps=("E1-v2 (Linear), E3-v2 (MLP) 실험으로 가설 검증",),
            events=(
                ("2026-01-20", "Mode Collapse 확인 및 분석"),
                ("다음", "E1-v2, E3-v2 실험 예정"),
            ),
            links=(
                ("01_experiment_results.md", "실험별 상세 결과 및 비교"),
                ("02_optimizations_applied.md", "적용된 최적화 기법 상세"),
            ),
        ),
        plan_toml='name = "siglip-study"\nengine = "captioning"\n',
    )
