"""Four-choice questions about drawings, and a very small Qwen2.5-VL, made here."""

import csv
import json
from functools import partial
from pathlib import Path

import torch

from engines import model_catalog
from engines.protocol import RunSpec
from engines.vqa import Params, run
from engines.vqa.nano import model
from tests.engines import engine_runs
from tests.engines.tiny_retrieval import COLOURS, SHAPES, picture

SIZES = {
    "vocabulary": 400, "width": 32, "inner": 64, "layers": 2, "heads": 2, "key_value_heads": 1,
    "vision_width": 32, "vision_inner": 64, "vision_depth": 2, "vision_heads": 2, "patch": 14,
    "long_side": 56, "steps": 3, "batch": 4, "lr": 1e-3,
}  # fmt: skip
SETTINGS = {
    "long_side": 56, "batch": 4, "gradient_accumulation_steps": 1, "epochs": 1, "lr": 1e-2,
    "lora_rank": 4,
    "lora_alpha": 8, "gradient_checkpointing": False, "precision": "fp32", "threads": 1,
    "timing_warmup_steps": 1, "eval_batch_size": 8, "written": 0, "blank": False, "evaluate_on": [],
}  # fmt: skip
ENTRY = """schema = 1
name = "tiny-vlm"
engines = ["vqa"]
family = "vlm"
path = "{folder}"
"""
SCRATCH = """schema = 1
name = "tiny-scratch"
engines = ["vqa"]
family = "vlm"
[architecture]
"""


def rows() -> list[dict[str, str]]:
    """One question about the colour of each of 24 drawings."""
    found = []
    for number, colour in enumerate(COLOURS):
        for shape in SHAPES:
            others = [COLOURS[(number + step) % len(COLOURS)] for step in (1, 2, 3)]
            turn = len(found) % 4
            options = [*others[:turn], colour, *others[turn:]]
            found.append(
                {
                    "id": f"q{len(found):02}", "image": f"images/{colour}-{shape}.png",
                    "question": f"what colour is the {shape}?",
                    **dict(zip("abcd", options, strict=True)), "answer": "abcd"[turn],
                }
            )  # fmt: skip
    return found


def write_rows(path: Path, found: list[dict[str, str]]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(found[0]))
        writer.writeheader()
        writer.writerows(found)


def write_model(folder: Path) -> None:
    """Model and processor in transformers' layout, random weights."""
    said = [" ".join(row.values()) for row in rows()]
    processor = model.build_processor(said, SIZES["vocabulary"], SIZES["patch"])
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model.build_model(processor, SIZES).save_pretrained(folder)
    processor.save_pretrained(folder)


def write(folder: Path) -> None:
    """Data of `asks` (18 pictures) and `asks_more` (6 others), and the models' entries."""
    images = folder / "data" / "images"
    for place in (images, folder / "config" / "recipes", folder / "config" / "models"):
        place.mkdir(parents=True)
    for colour in COLOURS:
        for shape in SHAPES:
            picture(colour, shape).save(images / f"{colour}-{shape}.png")
    for name, part in (("asks", rows()[:18]), ("asks_more", rows()[18:])):
        write_rows(folder / "data" / f"{name}.csv", part)
        text = [
            "schema = 1", f'name = "{name}"', 'title = "Tiny questions"', "[source]",
            'adapter = "challenge"', 'dataset = "train"', f'uri = ["{name}.csv"]', 'images = "."',
        ]  # fmt: skip
        (folder / "config" / "recipes" / f"{name}.toml").write_text("\n".join(text))
    write_model(folder / "model")
    entries = folder / "config" / "models"
    (entries / "tiny-vlm.toml").write_text(ENTRY.format(folder=folder / "model"))
    sizes = "\n".join(f"{name} = {value}" for name, value in SIZES.items())
    (entries / "tiny-scratch.toml").write_text(SCRATCH + sizes)


def spec(folder: Path, **changes) -> RunSpec:
    settings = SETTINGS | {"data_root": str(folder / "data"), **changes.pop("settings", {})}
    base_spec = {
        "suite": "s", "run_id": "01-tiny", "engine": "vqa", "subset": "asks", "model": "tiny-vlm",
        "cache_root": str(folder / "cache"),
        "params": Params.model_validate(settings).model_dump(mode="json"),
    }  # fmt: skip
    model_catalog.load(changes.get("model", "tiny-vlm"))
    return RunSpec.model_validate({**base_spec, **changes})


go = partial(engine_runs.go, run)


def lines(run_dir: Path, split: str) -> list[dict]:
    text = (run_dir / "predictions" / f"{split}.jsonl").read_text("utf-8")
    return [json.loads(line) for line in text.splitlines()]
