"""VQA with what all training engines share: cost probes, several processes, torch.compile."""

import pytest
import torch
from torch._dynamo.utils import counters

from engines.protocol import Probe
from tests.engines import engine_runs, jointly, tiny_vqa, vlm_kinds
from tests.engines.tiny_vqa import go, lines, spec
from tests.fixtures.engine_process import engine

pytest.importorskip("bitsandbytes")
pytest.importorskip("peft")

QUIET = {"epochs": 2, "lora_dropout": 0.0, "validation_share": 0.05, "validate_every_epochs": 0}


def write(place):
    """Qwen's tiny model, which reads patches, and LLaVA's, whose processor is asked."""
    tiny_vqa.write(place)
    vlm_kinds.KINDS["llava"](place / "other")


folder = engine_runs.subset_fixture(write)


@pytest.fixture(params=["patches", "processor"])
def model(request, folder) -> str:
    return "tiny-vlm" if request.param == "patches" else f"path:{folder / 'other'}"


def losses(sent: list) -> list[float]:
    return [message.loss for message in sent if message.kind == "step"]


@pytest.mark.usefixtures("single_steps")
def test_a_costing_run_is_the_start_of_the_run_and_leaves_nothing(folder, model, tmp_path):
    settings = {"epochs": 4, "batch": 1, "early_stopping": True}
    whole = go(spec(folder, model=model, settings=settings), tmp_path / "whole")
    asked = spec(folder, model=model, settings=settings, task="probe", probe=Probe(steps=6))
    sent = go(asked, tmp_path / "probe")
    forecast = next(m for m in sent if m.kind == "forecast")
    assert (forecast.steps, forecast.run_steps) == (6, 64)
    assert forecast.run_seconds > forecast.start_seconds
    assert forecast.disk["picture cache"] == 18 * 56 * 56 * 3
    kept = (tmp_path / "whole/checkpoints/last/model.safetensors").read_bytes()
    header = 8 + int.from_bytes(kept[:8], "little")
    assert forecast.disk["weights kept"] == len(kept) - header
    assert not [m for m in sent if m.kind == "metric" or (m.kind == "phase" and m.name == "eval")]
    left = [p.parent.name for p in (tmp_path / "probe").rglob("*") if p.is_file()]
    assert left == ["folds"], "nothing but which rows were held out"
    assert losses(sent)[0] == losses(whole)[0]


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_two_ranks_equal_one_process_with_the_joint_batch(folder, tmp_path):
    """17 questions and 1 held out: steps of 8, 8 and then 1, where rank 1 has nothing to do.

    With checkpointing, as is usual: the model is run again within DDP's backward pass. Not with
    the processor's batches: ranks differ in which rows they take, and that is the same code.
    """
    quiet = {**QUIET, "gradient_checkpointing": True}
    ends = jointly.trained(
        tmp_path, 8, lambda more: spec(folder, model="tiny-vlm", settings={**quiet, **more})
    )
    jointly.check_same(tmp_path, ends, steps=6, samples={8, 1})
    one, two = (lines(tmp_path / name, "validation") for name in ("one", "two"))
    assert len(one) == len(two) == 1
    assert two[0]["probabilities"] == pytest.approx(one[0]["probabilities"], abs=1e-3)


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_two_ranks_share_the_answers_of_a_submission(folder, tmp_path):
    """18 questions in blocks of 4; rank 0 has the whole file, and its answers are one process's."""
    settings = {"eval_batch_size": 1, "written": 3, "blank": True}
    go(spec(folder, task="evaluate", settings=settings), tmp_path / "one")
    two = tmp_path / "two"
    two.mkdir()
    shared = spec(folder, task="evaluate", settings={**settings, "nproc_per_node": 2})
    (two / "spec.json").write_text(shared.model_dump_json())
    assert engine(two).code == 0
    assert (two / "predictions/.asks.rank1.jsonl").is_file()
    texts = [(tmp_path / n / "predictions/asks.jsonl").read_bytes() for n in ("one", "two")]
    assert sorted(texts[0].splitlines()) == sorted(texts[1].splitlines())


@pytest.mark.usefixtures("single_steps")
@pytest.mark.filterwarnings("ignore")  # torch's compiler warns of itself
def test_a_compiled_model_trains_alike(folder, tmp_path, monkeypatch):
    """Sequences of several lengths, traced forward and backward; test_compilation.py has
    the real compiler behind that."""
    compiled = []

    def traced(module, **how):
        compiled.append(how)
        inner(module, **how, backend="aot_eager")

    inner = torch.nn.Module.compile
    monkeypatch.setattr(torch.nn.Module, "compile", traced)
    torch._dynamo.reset()
    plain, fast = (
        go(spec(folder, settings={**QUIET, "max_steps": 3, "compile": it}), tmp_path / str(it))
        for it in (False, True)
    )
    assert compiled == [{"dynamic": True}]
    assert counters["stats"]["unique_graphs"] > 0
    names = [[m.name for m in sent if m.kind == "phase"] for sent in (plain, fast)]
    assert names[1][names[1].index("compile") + 1] in ("warmup", "train")
    assert "compile" not in names[0]
    assert losses(fast) == pytest.approx(losses(plain), rel=1e-4)
    assert len(losses(plain)) == 3
    one, two = (lines(tmp_path / str(it), "validation") for it in (False, True))
    assert two[0]["probabilities"] == pytest.approx(one[0]["probabilities"], abs=1e-3)
    torch._dynamo.reset()
