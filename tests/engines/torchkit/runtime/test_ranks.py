"""Several processes that train one model, against one process; and resuming after a kill -9.

Losses of interrupted runs are compared bitwise with a run that nobody disturbed, step by step.
"""

import json
import random
from pathlib import Path
from typing import get_args

import pytest
import torch
from safetensors.torch import load_file

from engines import catalog, model_catalog
from engines.emitter import EngineError
from engines.protocol import RunSpec, Task
from engines.retrieval import Params
from engines.torchkit.data.data_loader import rank_share
from engines.torchkit.runtime import distributed
from tests.engines.tiny_retrieval import write_lines
from tests.fixtures.engine_process import engine

NO_DEMO = model_catalog.find_problem(model_catalog.load("effnet-minilm")) is not None

HEADS = """schema = 1
name = "heads"
title = "Trained heads with dropout over frozen towers"
engines = ["retrieval"]
family = "frozen-towers"
[architecture]
projection = 32
hidden = 64
dropout = 0.2
[settings]
image_size = 64
max_length = 16
batch = 8
lr = 2e-3
precision = "fp32"
"""

HARD = {
    "gradient_accumulation_steps": 2, "ema": 0.9, "modality_dropout": 0.5, "epochs": 100,
    "max_steps": 20,
    "checkpoint_every": 3, "evaluate_on": [],
}  # fmt: skip
"""60 records in steps of 2 x 8: epochs of 4 steps, the last of 12 records as 8 and 4."""


@pytest.fixture(scope="module")
def tiny_with_heads(tiny):
    (tiny / "config" / "models" / "heads.toml").write_text(HEADS)
    return tiny


@pytest.fixture(scope="module")
def tiny_odd(tiny):
    """A subset of 33 records, 11 of which come twice and so share their positives."""
    recipe = (tiny / "config/recipes/tiny_train.toml").read_text().replace("tiny_train", "tiny_odd")
    (tiny / "config/recipes/tiny_odd.toml").write_text(recipe)
    lines = (tiny / "data/tiny_train.jsonl").read_text().splitlines()[:22]
    records = [json.loads(line) for line in lines]
    twice = [{**record, "data_id": record["data_id"] + "+"} for record in records[:11]]
    write_lines(tiny / "data/tiny_odd.jsonl", records + twice)
    return "tiny_odd"


@pytest.fixture(scope="module")
def start(tiny, tmp_path_factory):
    """Makes run folders: `start(model, **settings)`."""

    def make(model: str, subset: str = "tiny_train", **changes) -> Path:
        settings = dict(model_catalog.load(model).settings) | {
            "data_root": str(tiny / "data"), "threads": 1, "timing_warmup_steps": 1, **changes,
        }  # fmt: skip
        spec = RunSpec(
            suite="s", run_id="01-tiny", engine="retrieval", subset=subset, model=model,
            cache_root=str(tiny / "cache"),
            params=Params.model_validate(settings).model_dump(mode="json"),
        )  # fmt: skip
        folder = tmp_path_factory.mktemp("run")
        (folder / "spec.json").write_text(spec.model_dump_json())
        return folder

    return make


def weights(folder: Path, name: str = "model") -> dict[str, torch.Tensor]:
    return load_file(folder / "checkpoints" / "last" / f"{name}.safetensors")


def same_weights(first: Path, second: Path) -> None:
    for name in ("model", "ema"):
        found = weights(second, name)
        for key, tensor in weights(first, name).items():
            assert torch.equal(tensor, found[key]), (name, key)


def saved(folder: Path, step: int, name: str) -> dict[str, torch.Tensor]:
    """Tensors of the checkpoint of a step, in the order in which they were written."""
    path = folder / "checkpoints" / f"step-{step:09d}" / f"{name}.safetensors"
    data = path.read_bytes()
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    tensors = load_file(path)
    return {key: tensors[key] for key in header if key != "__metadata__"}


def moments(folder: Path, step: int) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """Adam's two moments by parameter; the optimizer counts matrices first, then vectors.

    A parameter that no loss depends on has none.
    """
    model, state = saved(folder, step, "model"), saved(folder, step, "optimizer")
    order = sorted(model, key=lambda key: model[key].ndim < 2)
    pairs = {
        key: (state[f"{i}.exp_avg"], state[f"{i}.exp_avg_sq"])
        for i, key in enumerate(order)
        if f"{i}.exp_avg" in state
    }
    assert len(pairs) == len(state) // 3
    assert all(first.shape == model[key].shape for key, (first, _) in pairs.items())
    return pairs


def assert_equal_training(one: Path, two: Path, step: int, lr: float, beta2: float) -> None:
    """Gradients equal to 1e-5 of their tensor's largest, weights to 2e-5 and Adam's own error.

    Two orders of a sum differ by about 1e-6 of the largest gradient. Adam divides that by
    sqrt(v) + 1e-8: where the gradient itself is rounding (4.1e-9 against 4.2e-9 for one patch
    weight, the median is 2e-4), the weight moves by lr times noise. The bound follows v of each
    element; for a gradient of median size it adds 1e-8. It is the v of the last step: where an
    early one was smaller, one weight of a thousand moved by 1.3e-5 (on an Intel Xeon).
    """
    first, second = moments(one, step), moments(two, step)
    rounding: dict[str, torch.Tensor] = {}
    for key, (mean, square) in first.items():
        if key.endswith("k_proj.bias"):  # its true gradient is 0: all of it is rounding
            continue
        largest = float(mean.abs().max())
        torch.testing.assert_close(second[key][0], mean, rtol=0, atol=1e-5 * largest, msg=key)
        size = (square / (1 - beta2**step)).sqrt() + 1e-8
        rounding[key] = lr * step * 1e-6 * largest / size * (square > 0)
        assert float(rounding[key][square > 0].median()) < 1e-6, key
    for name in ("model", "ema"):
        other = saved(two, step, name)
        for key, tensor in saved(one, step, name).items():
            if not key.endswith("k_proj.bias"):
                bound = 2e-5 + 1e-4 * tensor.abs() + rounding.get(key, 0)
                assert bool(((other[key] - tensor).abs() <= bound).all()), (name, key)


@pytest.mark.parametrize("size", [1, 2, 3, 8])
@pytest.mark.parametrize("rows", [0, 1, 7, 8, 64])
def test_shares_are_a_partition_in_order(rows, size):
    bounds = [rank_share(rows, rank, size) for rank in range(size)]
    assert [i for a, b in bounds for i in range(a, b)] == list(range(rows))
    sizes = [b - a for a, b in bounds]
    assert max(sizes) - min(sizes) <= 1


@pytest.mark.slow
@pytest.mark.parametrize(
    "extra",
    [
        {"gradient_accumulation_steps": 2},
        {"grad_cache_chunk": 3, "layers": [0], "modality_dropout": 0},
    ],
)
def test_two_ranks_equal_one_process_with_the_joint_batch(tiny_odd, start, extra):
    """33 records, 11 of them twice: 32 and then 1, so that rank 1 has nothing to do."""
    settings = {**HARD, "checkpoint_every": 1, **extra}
    batch = 16 // settings["gradient_accumulation_steps"]
    one = start("pico", subset=tiny_odd, batch=2 * batch, **settings)
    two = start("pico", subset=tiny_odd, batch=batch, nproc_per_node=2, **settings)
    # Killed, so that the optimizer's moments of step 6 are still there.
    alone, together = engine(one, "7 self SIGKILL"), engine(two, "7 0 SIGKILL")
    losses = {step: alone.losses[step] for step in range(1, 7)}
    assert {step: together.losses[step] for step in losses} == pytest.approx(losses, rel=1e-6)
    for first, second in zip(alone.kinds("step")[:6], together.kinds("step")[:6], strict=True):
        assert first.samples == second.samples
        assert second.metrics == pytest.approx(first.metrics, rel=1e-5)
        assert second.grad_norm == pytest.approx(first.grad_norm, rel=1e-4)
    params = Params.model_validate(dict(model_catalog.load("pico").settings))
    assert_equal_training(one, two, 6, params.lr, params.beta2)
    assert {m.samples for m in alone.kinds("step")} == {32, 1}
    assert alone.kinds("step")[0].metrics["duplicate_rate"] > 0
    plan = together.kinds("plan")[0]
    assert (plan.micro_batch, plan.effective_batch) == (2 * batch, 32)
    assert f"chance of r@1 is 1/{2 * batch}" in plan.facts["negatives"]
    assert f"2 ranks of {batch} each" in plan.facts["negatives"]
    assert together.kinds("hello")[-1].threads == 1


@pytest.mark.slow
def test_two_ranks_with_master_weights_learn_what_one_process_does(tiny_odd, start):
    """Gradients are averaged in bf16, so losses are equal within its rounding."""
    settings = {**HARD, "max_steps": 4, "precision": "bf16", "mixed_precision": "master_weights"}
    one = start("pico", subset=tiny_odd, batch=16, **settings)
    two = start("pico", subset=tiny_odd, batch=8, nproc_per_node=2, **settings)
    alone, together = engine(one), engine(two)
    assert alone.code == together.code == 0
    assert together.losses == pytest.approx(alone.losses, rel=0.02)
    assert {tensor.dtype for tensor in weights(two).values()} == {torch.float32}


@pytest.mark.skipif(NO_DEMO, reason="needs the demo extra")
def test_a_killed_run_resumes_bitwise(tiny_with_heads, undisturbed, start):
    """kill -9 at a step drawn at random, in the middle of an epoch or not; dropout and all.

    With two loader workers, which `undisturbed` has not.
    """
    at = random.Random("alone 2").randrange(4, 18)
    folder = start("heads", num_workers=2, **HARD)
    killed = engine(folder, f"{at} self SIGKILL")
    assert (killed.code, killed.failed) == (-9, None)
    assert len(killed.losses) >= at - 1, "the last window may not have been closed"
    resumed = engine(folder, attempt=2)
    assert resumed.code == 0
    continues(resumed, killed, undisturbed[1])
    same_weights(folder, undisturbed[0])


@pytest.fixture(scope="module")
def undisturbed(tiny_with_heads, start):
    """Folder and end of a run of one process that nobody disturbed."""
    folder = start("heads", num_workers=0, **HARD)
    ended = engine(folder)
    assert ended.code == 0
    assert len(ended.losses) == HARD["max_steps"]
    return folder, ended


def continues(resumed, before, whole) -> None:
    """Whether both attempts together did what the whole run did, to the last bit."""
    first = min(resumed.losses)
    assert 1 < first <= max(before.losses) + 2, "it went on from a checkpoint"
    assert (first - 1) % HARD["checkpoint_every"] == 0 or before.failed
    for part in (before, resumed):
        assert part.losses == {step: whole.losses[step] for step in part.losses}
    assert max(resumed.losses) == max(whole.losses) or resumed.failed


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.skipif(NO_DEMO, reason="needs the demo extra")
def test_two_ranks_survive_what_kills_them(tiny_with_heads, start):
    """A rank is killed, then all are stopped; losses as if nothing had been.

    With dropout, so generators of both ranks must come back.
    """
    settings = {**HARD, "batch": 4, "nproc_per_node": 2}
    quiet, folder = start("heads", **settings), start("heads", **settings)
    whole = engine(quiet)
    assert whole.code == 0

    no_rank = engine(folder, "7 rank1 SIGKILL")
    assert no_rank.code == 1
    assert no_rank.failed.error == "rank 1 was ended by SIGKILL; see ranks/rank1.log"

    stopped = engine(folder, "4 parent SIGTERM", attempt=2)
    assert (stopped.code, stopped.failed.hint) == (143, "stopped")
    continues(stopped, no_rank, whole)
    saved = [p.name for p in (folder / "checkpoints").glob("step-*")]
    assert saved == [f"step-{max(stopped.losses):09d}"], "one checkpoint, of the last step done"

    rest = engine(folder, attempt=3)
    assert rest.code == 0
    continues(rest, stopped, whole)
    assert min(rest.losses) == max(stopped.losses) + 1, "nothing is done twice after a stop"
    same_weights(folder, quiet)


@pytest.mark.skipif(NO_DEMO, reason="needs the demo extra")
def test_usage_errors_are_told_once_and_not_of_a_rank(tiny_with_heads, undisturbed, start):
    folder = start("heads", nproc_per_node=2, text_layers=[7])
    ended = engine(folder)
    assert (ended.code, ended.failed.hint) == (1, "usage")
    assert ended.failed.error.startswith("text_layers = [7]")
    assert "rank" not in ended.failed.error


def test_more_ranks_than_places_are_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    distributed.check_ranks(8, ())
    with pytest.raises(EngineError, match="nproc_per_node = 9: without a GPU at most 8"):
        distributed.check_ranks(9, ())
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    distributed.check_ranks(2, (0, 1))
    with pytest.raises(EngineError, match="nproc_per_node = 3: torch sees 2 GPUs"):
        distributed.check_ranks(3, (0, 1))


def test_only_training_is_shared():
    spec = RunSpec(
        suite="s", run_id="01-tiny", engine="retrieval", subset="tiny_train", model="pico",
        cache_root="/nonexistent", params={"nproc_per_node": 4},
    )  # fmt: skip
    found = {
        t: catalog.count_local_ranks(spec.model_copy(update={"task": t})) for t in get_args(Task)
    }
    assert found == {"train": 4, "probe": 4, "evaluate": 1, "infer": 1, "ensemble": 1}
    assert catalog.count_local_ranks(spec.model_copy(update={"params": {}})) == 1
