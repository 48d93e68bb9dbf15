"""What a training leaves is used by later suites, where nothing of the first machine is left."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from PIL import Image
from safetensors.torch import load_file, save_file

from engines import captioning, model_catalog, retrieval, vqa
from engines.emitter import EngineError
from engines.protocol import RunSpec
from engines.torchkit.training import trained_model
from tests.engines import engine_runs, tiny_captioning, tiny_vqa
from tests.engines.engine_runs import weights

EARLY, LATE = "20260101-000000-week-1a2b", "20260108-000000-week-3c4d"
captions = engine_runs.subset_fixture(tiny_captioning.write)
quiz = engine_runs.subset_fixture(tiny_vqa.write)


@pytest.fixture(autouse=True)
def config(request, monkeypatch):
    """The models and subsets of the test's data: several of them are set up in this module."""
    name = next(one for one in ("quiz", "captions", "tiny") if one in request.fixturenames)
    folder = request.getfixturevalue(name)
    monkeypatch.setenv("WORKBENCH_CONFIG", str(folder / "config"))


def place(logs: Path, suite: str, run_id: str) -> Path:
    return logs / suite / "runs" / run_id


def retrieval_spec(folder: Path, model: str = "pico", **changes) -> RunSpec:
    settings = {**model_catalog.load("pico").settings, "data_root": str(folder / "data"),
                "threads": 1, "timing_warmup_steps": 1, **changes.pop("settings", {})}  # fmt: skip
    base = {
        "suite": "s", "run_id": "01-tiny", "engine": "retrieval", "subset": "tiny_train",
        "model": model, "cache_root": str(folder / "cache"),
        "params": retrieval.Params.model_validate(settings).model_dump(mode="json"),
    }  # fmt: skip
    return RunSpec.model_validate({**base, **changes})


def metrics(sent: list, split: str) -> dict[str, float]:
    return {m.name: m.value for m in sent if m.kind == "metric" and m.split == split}


def facts(sent: list) -> dict[str, str]:
    return next(m.facts for m in sent if m.kind == "plan")


@pytest.fixture(scope="module")
def early(tiny, tmp_path_factory):
    """A log root with one training."""
    logs = tmp_path_factory.mktemp("logs")
    asked = retrieval_spec(tiny, suite=EARLY, label="E1", settings={"epochs": 4, "ema": 0.5})
    return engine_runs.go(retrieval.run, asked, place(logs, EARLY, "01-tiny")), logs


def test_a_later_suite_on_another_machine_evaluates_what_was_copied(tiny, early, tmp_path):
    sent, logs = early
    shutil.copytree(logs, tmp_path / "copied")
    cache = str(tmp_path / "other cache")
    named = [f"run:{EARLY}/01-tiny", f"path:{place(tmp_path / 'copied', EARLY, '01-tiny')}"]
    for number, name in enumerate(named):
        asked = retrieval_spec(tiny, name, task="evaluate", subset="tiny_val", cache_root=cache)
        again = engine_runs.go(
            retrieval.run, asked, place(tmp_path / "copied", LATE, f"0{number}-e")
        )
        assert metrics(again, "tiny_val") == metrics(sent, "tiny_val")
        said = facts(again)
        assert said["trained_by"].startswith(f"{EARLY}/01-tiny (E1), trained on tiny_train (")
        assert said["trained_by"].endswith("16 steps, seed 42")
        assert said["base_model"] == "pico"


def test_training_goes_on_from_what_an_earlier_suite_learned(tiny, early, tmp_path):
    _, logs = early
    settings = {"max_steps": 1, "lr": 1e-9, "evaluate_on": ["tiny_val"]}
    asked = retrieval_spec(tiny, f"run:{EARLY}/01-tiny", suite=LATE, settings=settings)
    engine_runs.go(retrieval.run, asked, place(logs, LATE, "01-tiny"))
    kept = "checkpoints/last"
    before = load_file(place(logs, EARLY, "01-tiny") / kept / "ema.safetensors")
    after = load_file(place(logs, LATE, "01-tiny") / kept / "model.safetensors")
    assert all(after[name].allclose(tensor, atol=1e-6) for name, tensor in before.items())
    state = json.loads((place(logs, LATE, "01-tiny") / kept / "state.json").read_text())
    assert (state["base_model"], state["entry"]["name"]) == ("pico", "pico")
    assert [one.split()[0] for one in state["parents"]] == [f"{EARLY}/01-tiny"]
    third = retrieval_spec(tiny, f"run:{LATE}/01-tiny", task="evaluate", subset="tiny_val")
    assert metrics(engine_runs.go(retrieval.run, third, place(logs, LATE, "02-e")), "tiny_val")


def test_weights_that_a_later_training_freezes_are_kept_all_the_same(tiny, early):
    from engines.retrieval.models.clip import from_scratch
    from engines.trained_weights import TrainedWeights

    _, logs = early
    run_dir = place(logs, EARLY, "01-tiny")
    parent = TrainedWeights.read(run_dir, "run:x")
    model = from_scratch(
        model_catalog.load("pico").architecture | {"vocabulary": 300}, 32, 24, 0.07
    )
    for parameter in model.text_tower.parameters():
        parameter.requires_grad_(False)
    names = load_file(run_dir / "checkpoints/last/model.safetensors").keys()
    assert trained_model.all_trained_tensors(model, None).keys() < names
    assert trained_model.all_trained_tensors(model, parent).keys() == names


def test_a_damaged_copy_is_refused(tiny, early, tmp_path):
    _, logs = early
    shutil.copytree(place(logs, EARLY, "01-tiny"), tmp_path / "run")
    file = tmp_path / "run/checkpoints/last/model.safetensors"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    asked = retrieval_spec(tiny, f"path:{tmp_path / 'run'}", task="evaluate")
    with pytest.raises(EngineError, match="is not the file that was saved; copy the run"):
        engine_runs.go(retrieval.run, asked, place(tmp_path, LATE, "01-e"))


def test_a_checkpoint_of_version_0_1_still_opens(tiny, early, tmp_path):
    sent, logs = early
    run_dir = place(tmp_path, EARLY, "01-tiny")
    shutil.copytree(place(logs, EARLY, "01-tiny"), run_dir)
    file = run_dir / "checkpoints/last/state.json"
    kept = ("step", "model", "params", "seed", "identity", "files")
    state = json.loads(file.read_text())
    file.write_text(json.dumps({name: state[name] for name in kept}))
    (run_dir / "spec.json").write_text(retrieval_spec(tiny, suite=EARLY).model_dump_json())
    asked = retrieval_spec(tiny, f"run:{EARLY}/01-tiny", task="evaluate", subset="tiny_val")
    again = engine_runs.go(retrieval.run, asked, place(tmp_path, LATE, "01-e"))
    assert metrics(again, "tiny_val") == metrics(sent, "tiny_val")
    assert facts(again)["trained_by"].startswith(f"{EARLY}/01-tiny, trained on tiny_train, 16")


def test_a_captioner_is_used_elsewhere_without_the_cache_of_its_base(captions, tmp_path):
    asked = tiny_captioning.spec(captions, suite=EARLY, settings={"epochs": 4})
    sent = tiny_captioning.go(asked, place(tmp_path / "logs", EARLY, "01-tiny"))
    moved = tmp_path / "moved"
    (tmp_path / "logs").rename(moved)
    (captions / "cache" / "bases").rename(tmp_path / "gone")
    name = f"run:{EARLY}/01-tiny"
    other = tiny_captioning.spec(captions, name, task="evaluate", subset="says_heldout",
                                suite=LATE)  # fmt: skip
    again = tiny_captioning.go(other, place(moved, LATE, "01-tiny"))
    for metric in ("loss", "picture gap", "diversity"):
        assert metrics(again, "says_heldout")[metric] == metrics(sent, "says_heldout")[metric]
    settings = {"epochs": 1, "lr": 1e-9, "evaluate_on": [], "evaluate_train": 0}
    further = tiny_captioning.spec(captions, name, suite=LATE, settings=settings)
    tiny_captioning.go(further, place(moved, LATE, "02-tiny"))
    kept = "checkpoints/last/model.safetensors"
    before, after = (
        load_file(place(moved, suite, run) / kept)
        for suite, run in ((EARLY, "01-tiny"), (LATE, "02-tiny"))
    )
    assert before.keys() == after.keys()
    assert all(after[key].allclose(tensor, atol=1e-6) for key, tensor in before.items())
    assert after["feature_scale"].equal(before["feature_scale"]), "not calibrated again"
    shutil.rmtree(place(moved, EARLY, "01-tiny") / "checkpoints" / "base")
    with pytest.raises(EngineError, match="the base that 'tiny-captioner' began with is not here"):
        tiny_captioning.go(other, place(moved, LATE, "03-tiny"))


def test_a_vqa_model_is_submitted_with_and_trained_further(quiz, tmp_path):
    settings = {"tta_options": True}
    asked = tiny_vqa.spec(quiz, suite=EARLY, settings={"max_steps": 3})
    tiny_vqa.go(asked, place(tmp_path, EARLY, "01-tiny"))
    name = f"run:{EARLY}/01-tiny"
    infer = tiny_vqa.spec(quiz, model=name, task="infer", subset="asks_more", settings=settings)
    tiny_vqa.go(infer, place(tmp_path, LATE, "01-tiny"))
    assert (place(tmp_path, LATE, "01-tiny") / "submission.csv").read_text().count("\n") == 7
    further = tiny_vqa.spec(quiz, model=name, settings={"max_steps": 1, "lr": 1e-9})
    tiny_vqa.go(further, place(tmp_path, LATE, "02-tiny"))
    before, after = (
        load_file(place(tmp_path, suite, run) / "checkpoints/last/model.safetensors")
        for suite, run in ((EARLY, "01-tiny"), (LATE, "02-tiny"))
    )
    assert all(after[key].allclose(tensor, atol=1e-6) for key, tensor in before.items())


def test_other_base_weights_than_those_of_the_training_are_refused(quiz, tmp_path):
    asked = tiny_vqa.spec(quiz, suite=EARLY, settings={"max_steps": 1})
    tiny_vqa.go(asked, place(tmp_path, EARLY, "01-tiny"))
    shutil.copytree(quiz / "model", tmp_path / "other")
    tensors = load_file(tmp_path / "other/model.safetensors")
    changed = {name: tensor + 1e-3 for name, tensor in tensors.items()}
    save_file(changed, tmp_path / "other/model.safetensors", metadata={"format": "pt"})
    name = f"run:{EARLY}/01-tiny"
    settings = {"base_model": f"path:{tmp_path / 'other'}"}
    other = tiny_vqa.spec(quiz, model=name, task="infer", subset="asks_more", settings=settings)
    with pytest.raises(EngineError, match="the weights of its model are not those that the run"):
        tiny_vqa.go(other, place(tmp_path, LATE, "01-tiny"))
    same = {"base_model": f"path:{quiz / 'model'}"}
    other = tiny_vqa.spec(quiz, model=name, task="infer", subset="asks_more", settings=same)
    tiny_vqa.go(other, place(tmp_path, LATE, "02-tiny"))


def test_runs_of_another_engine_and_unused_weights_are_refused(tiny, early, quiz, tmp_path):
    _, logs = early
    asked = tiny_vqa.spec(quiz, model=f"run:{EARLY}/01-tiny", task="infer", subset="asks_more")
    with pytest.raises(EngineError, match="was trained by engine retrieval, not vqa"):
        tiny_vqa.go(asked, place(logs, LATE, "09-tiny"))
    assert weights(place(logs, EARLY, "01-tiny")), "left as they were"
    assert captioning.ARCHITECTURE_PARAMS
    assert vqa.ARCHITECTURE_PARAMS


def test_an_encoder_from_scratch_is_loaded_by_transformers(tiny, early):
    import torch
    from transformers import AutoTokenizer, CLIPImageProcessor, CLIPModel

    sent, logs = early
    folder = place(logs, EARLY, "01-tiny") / "checkpoints/encoder"
    assert {m.role for m in sent if m.kind == "artifact"} >= {"checkpoint", "encoder"}
    model, found = CLIPModel.from_pretrained(folder, output_loading_info=True)
    assert not found["missing_keys"]
    assert not found["unexpected_keys"]
    words, pictures = (
        AutoTokenizer.from_pretrained(folder),
        CLIPImageProcessor.from_pretrained(folder),
    )
    known = load_file(place(logs, EARLY, "01-tiny") / "checkpoints/last/ema.safetensors")
    table = model.text_model.embeddings.token_embedding.weight
    assert table.equal(known["clip.text_model.embeddings.token_embedding.weight"]), "the average"
    ids = words("The sound of the red disc", return_tensors="pt")["input_ids"]
    assert ids[0, -1] == model.config.text_config.eos_token_id
    seen = pictures(Image.open(tiny / "data/images/red-disc.png"), return_tensors="pt")
    with torch.no_grad():
        assert model(input_ids=ids, **seen).logits_per_text.isfinite().all()
    name = f"path:{folder}"
    asked = retrieval_spec(tiny, name, task="evaluate", subset="tiny_val")
    again = engine_runs.go(retrieval.run, asked, place(logs, LATE, "08-e"))
    assert metrics(again, "tiny_val") == metrics(sent, "tiny_val"), "as a model like any other"


def test_an_encoder_takes_the_place_of_weights_that_are_not_here(tiny, early, tmp_path):
    """Trained from a folder of another machine, with all its parameters: the run has them all."""
    sent, logs = early
    shutil.copytree(place(logs, EARLY, "01-tiny") / "checkpoints/encoder", tmp_path / "clip")
    settings = {"max_steps": 2, "freeze_towers": False}
    asked = retrieval_spec(tiny, f"path:{tmp_path / 'clip'}", suite=EARLY, settings=settings)
    sent = engine_runs.go(retrieval.run, asked, place(tmp_path, EARLY, "01-tiny"))
    (tmp_path / "clip").rename(tmp_path / "unmounted")
    other = retrieval_spec(tiny, f"run:{EARLY}/01-tiny", task="evaluate", subset="tiny_val")
    again = engine_runs.go(retrieval.run, other, place(tmp_path, LATE, "01-e"))
    assert metrics(again, "tiny_val") == metrics(sent, "tiny_val")


def test_heads_over_packages_say_why_no_library_loads_them(tiny):
    from engines.retrieval.models import export

    assert "heads over frozen towers" in export.find_refusal(model_catalog.load("effnet-minilm"))
    for name in ("clip-nano", "tinyclip-61m", "siglip2-b16", "mobileclip2-s0"):
        assert not export.find_refusal(model_catalog.load(name))


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")
@pytest.mark.parametrize("quantize", ["none", "nf4"])
def test_peft_loads_the_adapter_of_a_vqa_run(quiz, tmp_path, quantize):
    import torch
    from peft import PeftModel
    from transformers import AutoModelForImageTextToText

    from engines.torchkit.modeling import lora, pretrained
    from engines.torchkit.runtime.precision import Precision

    asked = tiny_vqa.spec(quiz, suite=EARLY, settings={"max_steps": 3, "quantize": quantize})
    sent = tiny_vqa.go(asked, place(tmp_path, EARLY, "01-tiny"))
    kept = place(tmp_path, EARLY, "01-tiny") / "checkpoints"
    assert {m.role for m in sent if m.kind == "artifact"} >= {"checkpoint", "adapter"}
    said = json.loads((kept / "adapter/adapter_config.json").read_text())
    assert (said["peft_type"], said["r"], said["inference_mode"]) == ("LORA", 4, True)
    assert said["base_model_name_or_path"] == str(quiz / "model")
    cpu = Precision("fp32", torch.device("cpu"))
    own = pretrained.load(
        quiz / "model", pretrained.VISION_LANGUAGE, cpu, four_bit=quantize == "nf4", double=True
    )
    own = lora.add_lora(
        own, 4, 8, 0.0, tuple(asked.params["lora_targets"]), pretrained.language_module_name(own)
    )
    trained_by_us = load_file(kept / "last/model.safetensors")
    named = {name.removeprefix("model."): tensor for name, tensor in trained_by_us.items()}
    assert not own.load_state_dict(named, strict=False).unexpected_keys
    ids = torch.arange(8, 20)[None]
    if quantize == "none":
        base = AutoModelForImageTextToText.from_pretrained(quiz / "model", dtype=torch.float32)
    else:
        base = pretrained.load(
            quiz / "model", pretrained.VISION_LANGUAGE, cpu, four_bit=True, double=True
        )
    with torch.no_grad():
        before = base(input_ids=ids).logits.clone()
        loaded = PeftModel.from_pretrained(base, kept / "adapter")
        after, expected = (m.eval()(input_ids=ids).logits for m in (loaded, own))
    torch.testing.assert_close(after, expected, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(after, before, atol=1e-4)


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")
def test_peft_loads_the_adapter_of_a_captioner(captions, tmp_path):
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    settings = {"epochs": 2, "quantize": "none", "evaluate_on": [], "evaluate_train": 0}
    asked = tiny_captioning.spec(captions, suite=EARLY, settings=settings)
    tiny_captioning.go(asked, place(tmp_path, EARLY, "01-tiny"))
    kept = place(tmp_path, EARLY, "01-tiny") / "checkpoints"
    base = AutoModelForCausalLM.from_pretrained(kept / "base", dtype=torch.float32)
    loaded = PeftModel.from_pretrained(base, kept / "adapter")
    ours = load_file(kept / "last/model.safetensors")
    theirs = {name: p for name, p in loaded.named_parameters() if ".lora_" in name}
    assert len(theirs) == 2 * 7 * 2
    assert all(ours[f"llm.{name}"].equal(tensor) for name, tensor in theirs.items())
    said = json.loads((kept / "adapter/adapter_config.json").read_text())
    assert said["base_model_name_or_path"] == "../base"


def test_folders_of_other_libraries_can_be_left_out(tiny, tmp_path):
    settings = {"max_steps": 1, "evaluate_on": [], "export_model": False}
    engine_runs.go(retrieval.run, retrieval_spec(tiny, settings=settings), tmp_path / "run")
    assert [p.name for p in (tmp_path / "run/checkpoints").iterdir()] == ["last"]
