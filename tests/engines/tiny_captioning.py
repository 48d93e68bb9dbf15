"""A caption subset, a small CLIP tower and a small language model from scratch, all made here."""

import json
from functools import partial
from pathlib import Path

import torch
from transformers import CLIPVisionConfig, CLIPVisionModel

from engines import model_catalog
from engines.captioning import Params, run
from engines.protocol import RunSpec
from tests.engines import engine_runs
from tests.engines.tiny_retrieval import COLOURS, SHAPES, picture

MODEL = """schema = 1
name = "tiny-captioner"
engines = ["captioning"]
family = "captioner"
[vision]
path = "{tower}"
[llm]
[llm.architecture]
vocabulary = 400
width = 32
inner = 64
layers = 2
heads = 2
key_value_heads = 1
steps = 400
batch = 16
tokens = 16
lr = 5e-3
encyclopedia = false
[settings]
batch = 8
gradient_accumulation_steps = 1
lr = 1e-2
epochs = 2
lora_rank = 4
lora_alpha = 8
projector_hidden = 32
projector_heads = 2
projector_head_width = 16
projector_depth = 1
projector_tokens = 4
precision = "fp32"
max_new_tokens = 8
vision_batch = 8
threads = 1
timing_warmup_steps = 1
evaluate_train = 8
scorers = []
"""


def write_tower(folder: Path) -> None:
    """A CLIP vision tower of 2 layers for 32 px: 4 patches of 8 x 8 a side, 16 in all."""
    config = CLIPVisionConfig(
        hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
        image_size=32, patch_size=8, projection_dim=16,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(0)
        CLIPVisionModel(config).save_pretrained(folder)


def write(folder: Path) -> None:
    """Pictures, captions and recipes of `says_train` and `says_heldout`, and the model's entry."""
    images = folder / "data" / "images"
    for place in (images, folder / "config" / "recipes", folder / "config" / "models"):
        place.mkdir(parents=True)
    rows = []
    for colour in COLOURS:
        for shape in SHAPES:
            name = f"{colour}-{shape}.png"
            picture(colour, shape).save(images / name)
            said = [f"a {colour} {shape}", f"the {shape} is {colour}"]
            rows.append({"image": name, "captions": said, "language": "en"})
    same = [{**row, "captions": ["a red disc"]} for row in rows]
    parts = {"says_train": rows[:18], "says_heldout": rows[18:], "says_the_same": same}
    for name, part in parts.items():
        (folder / "data" / f"{name}.jsonl").write_text(
            "".join(json.dumps(row) + "\n" for row in part)
        )
        text = [
            "schema = 1", f'name = "{name}"', 'title = "Tiny captions"',
            'evaluate_on = ["says_heldout"]' if name == "says_train" else "",
            "[source]", 'adapter = "captions"', f'uri = "{name}.jsonl"',
        ]  # fmt: skip
        (folder / "config" / "recipes" / f"{name}.toml").write_text("\n".join(text))
    bare = [{"image": row["image"]} for row in rows[:3]] + rows[3:5]
    (folder / "data" / "says_nothing.json").write_text(json.dumps(bare))
    text[1:] = [
        'name = "says_nothing"', 'title = "Media"', "[source]", 'adapter = "captions"',
        'uri = "says_nothing.json"', 'dataset = "en"', "captions_optional = true",
    ]  # fmt: skip
    (folder / "config" / "recipes" / "says_nothing.toml").write_text("\n".join(text))
    write_tower(folder / "tower")
    entry = MODEL.format(tower=folder / "tower")
    (folder / "config" / "models" / "tiny-captioner.toml").write_text(entry)


def spec(folder: Path, model: str = "tiny-captioner", **changes) -> RunSpec:
    settings = dict(model_catalog.load("tiny-captioner").settings)
    settings |= {"data_root": str(folder / "data"), **changes.pop("settings", {})}
    base = {
        "suite": "s", "run_id": "01-tiny", "engine": "captioning", "subset": "says_train",
        "model": model, "cache_root": str(folder / "cache"),
        "params": Params.model_validate(settings).model_dump(mode="json"),
    }  # fmt: skip
    return RunSpec.model_validate({**base, **changes})


go = partial(engine_runs.go, run)


def losses(sent: list) -> list[float]:
    return [m.loss for m in sent if m.kind == "step"]


def metric(sent: list, name: str, split: str):
    return next(m for m in sent if m.kind == "metric" and m.name == name and m.split == split)
