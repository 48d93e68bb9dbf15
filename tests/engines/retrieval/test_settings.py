"""Every setting of the retrieval engine does what it promises, and a new one must say here how.

Small runs on the tiny subset: a setting either changes what is learned, or changes something else
and leaves the losses as they are to the last bit.
"""

from pathlib import Path

import pytest

from engines import model_catalog
from engines.emitter import Emitter
from engines.protocol import RunSpec
from engines.retrieval import Params, run

BASE = {
    "epochs": 10, "max_steps": 3, "evaluate_on": (), "threads": 1, "batch": 16, "lr": 3e-3,
    "precision": "fp32", "image_size": 32, "max_length": 24,
}  # fmt: skip

CHANGES_LEARNING = {
    "batch": 8,
    "gradient_accumulation_steps": 2,
    "lr": 1e-3,
    "weight_decay": 0.9,
    "beta2": 0.5,
    "warmup_ratio": 1.0,
    "warmup_steps": 3,
    "max_grad_norm": 1e-3,
    "temperature": 0.5,
    "modality_dropout": 0.9,
    "image_size": 48,
    "max_length": 8,
    "use_instruction": False,
    "layers": (0,),
    "text_layers": (0,),
    "vision_layers": (0,),
    "layer_fusion": "recurrent",
    "scoring": "late",
    "loss": "sigmoid",
    "precision": "bf16",
}

NEEDS_MORE = {"layer_fusion": {"layers": (0, 11), "fusion_width": 16, "fusion_queries": 2}}

ELSEWHERE = {
    "data_root": "every test of the tiny subset",
    "base_model": "test_trained",
    "image_root": "tests of the data room",
    "fusion_width": "test_retrieval_families",
    "fusion_queries": "test_retrieval_families",
    "late_width": "test_retrieval_families",
    "freeze_towers": "test_retrieval_families",
    "grad_cache_chunk": "test_retrieval_families, test_ranks",
    "nproc_per_node": "test_ranks",
    "nnodes": "tests/cluster, test_rank_nodes",
    "tf32": "needs a GPU",
    "mixed_precision": "test_retrieval_masters",
    "compile": "test_retrieval_compiled",
    "cuda_graphs": "test_retrieval_compiled",
    "pin_memory": "needs a GPU",
    "search": "test_retrieval_search",
    "search_depth": "test_retrieval_evaluation",
    "search_precision": "test_retrieval_search",
    "search_probes": "test_retrieval_search",
    "corpus_memory_gib": "test_retrieval_evaluation",
}
"""Settings whose effect other tests show, or that do nothing on a CPU."""


@pytest.fixture(scope="module")
def go(tiny, tmp_path_factory):
    def start(**settings) -> tuple[list, Path]:
        every = dict(model_catalog.load("pico").settings) | BASE | settings
        spec = RunSpec(
            suite="s", run_id="01-tiny", engine="retrieval", subset="tiny_train", model="pico",
            cache_root=str(tiny / "cache"),
            params=Params.model_validate(
                {**every, "data_root": str(tiny / "data")}
            ).model_dump(mode="json"),
        )  # fmt: skip
        folder, emit = tmp_path_factory.mktemp("run"), Emitter()
        run(spec, emit, folder)
        emit.close()
        return emit.sent, folder

    return start


@pytest.fixture(scope="module")
def base(go):
    return go()


def learned(done: tuple[list, Path]) -> bytes:
    return (done[1] / "checkpoints/last/model.safetensors").read_bytes()


def kinds(done: tuple[list, Path], kind: str) -> list:
    return [m for m in done[0] if m.kind == kind]


def names(done: tuple[list, Path]) -> set[str]:
    return {m.name for m in kinds(done, "metric")}


def test_equal_settings_learn_the_same(go, base):
    assert learned(go()) == learned(base)


@pytest.mark.parametrize("name", CHANGES_LEARNING)
def test_a_setting_changes_what_is_learned(go, base, name):
    done = go(**{**NEEDS_MORE.get(name, {}), name: CHANGES_LEARNING[name]})
    assert learned(done) != learned(base)


CHANGES_ELSE = {
    "num_workers": (2, lambda done: kinds(done, "plan")[0].facts["num_workers"] == "2"),
    "ema": (0.5, lambda done: (done[1] / "checkpoints/last/ema.safetensors").exists()),
    "timing_warmup_steps": (2, lambda done: kinds(done, "plan")[0].warmup_steps == 2),
    "checkpoint_every": (1, lambda done: sum(m.count == 1 for m in kinds(done, "step")) >= 1),
    "checkpoint_minutes": (1e-6, lambda done: True),
    "export_model": (False, lambda done: not (done[1] / "checkpoints/encoder").exists()),
    "evaluate_on": (("tiny_val",), lambda done: "recall@1" in names(done)),
    "threads": (1, lambda done: kinds(done, "hello")[-1].threads == 1),
}
"""Other value, and what must then be seen; weights stay as they are."""


@pytest.mark.parametrize("name", CHANGES_ELSE)
def test_a_setting_changes_something_else_only(go, base, name):
    value, seen = CHANGES_ELSE[name]
    done = go(**{name: value})
    assert seen(done)
    assert learned(done) == learned(base)


@pytest.mark.parametrize("name", ["checkpoint_every", "checkpoint_minutes"])
def test_checkpoints_are_written_on_the_way(go, monkeypatch, name):
    from engines.torchkit.training import job_checkpoints

    saved = []
    monkeypatch.setattr(job_checkpoints, "save_checkpoint", lambda _job, step: saved.append(step))
    go(**{name: {"checkpoint_every": 2, "checkpoint_minutes": 1e-6}[name]})
    assert saved == ([2] if name == "checkpoint_every" else [1, 2, 3])


def test_lengths_of_training(go, base):
    assert kinds(base, "plan")[0].steps == 3
    done = go(max_steps=None, epochs=0.5)
    assert kinds(done, "plan")[0].steps == 2, "half of 60 records by 16"


def test_what_is_kept_and_how_the_optimizer_steps(go):
    done = go(save_model=False, fused=False)
    assert not (done[1] / "checkpoints/last").exists()
    assert kinds(done, "artifact") == []
    assert kinds(done, "plan")[0].facts["optimizer"] == "AdamW"


def test_settings_of_evaluation(go):
    few = go(evaluate_on=("tiny_val",), evaluate_modalities=("both",), pseudo_recall=False)
    all_ = go(evaluate_on=("tiny_val",), eval_batch_size=7)
    assert "recall@1[text only]" in names(all_) - names(few)
    assert any(n.startswith("pseudo_recall") for n in names(all_) - names(few))
    values = [{m.name: m.value for m in kinds(done, "metric")} for done in (few, all_)]
    assert values[0]["mrr@10"] == pytest.approx(values[1]["mrr@10"], abs=1e-6)


ABOVE = {
    "epochs", "max_steps", "fused", "save_model", "evaluate_modalities",
    "eval_batch_size", "pseudo_recall",
}  # fmt: skip


def test_no_setting_is_forgotten():
    shown = {*CHANGES_LEARNING, *CHANGES_ELSE, *ELSEWHERE, *ABOVE}
    assert set(Params.model_fields) - shown == set(), "say how the new setting is tested"
