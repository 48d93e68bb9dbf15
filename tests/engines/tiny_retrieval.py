"""A small subset whose questions need both modalities, as files."""

import json
import random
from pathlib import Path

from PIL import Image, ImageDraw

COLOURS = ["red", "green", "blue", "orange", "purple", "black", "teal", "gold"]
SHAPES = ["disc", "square", "cross"]
KINDS = {"sound": "What noise does this make?", "taste": "Which flavour has it?",
         "weight": "How heavy is the thing shown?"}  # fmt: skip


def picture(colour: str, shape: str) -> Image.Image:
    image = Image.new("RGB", (48, 48), "white")
    drawing = ImageDraw.Draw(image)
    if shape == "disc":
        drawing.ellipse((6, 6, 42, 42), colour)
    elif shape == "square":
        drawing.rectangle((8, 8, 40, 40), colour)
    else:
        drawing.rectangle((19, 2, 29, 46), colour)
        drawing.rectangle((2, 19, 46, 29), colour)
    return image


def records() -> list[dict]:
    found = []
    for colour in COLOURS:
        for shape in SHAPES:
            thing = f"{colour}-{shape}"
            for kind, question in KINDS.items():
                answer = f"{kind[:3]}{len(thing)}{thing[0]}{shape[0]}"
                found.append(
                    {
                        "data_id": f"{thing}.{kind}",
                        "dataset_id": f"tiny.{kind}",
                        "instruction": "Find it:",
                        "question": question,
                        "image_path": f"{thing}.png",
                        "answer": [answer],
                        "passage_id": [f"{kind}:{thing}", f"more:{kind}:{thing}"],
                        "passage_text": [
                            f"The {kind} of the {colour} {shape} is {answer}.",
                            f"About {colour} {shape}: {kind} {answer}, they say.",
                        ],
                        "passage_image_path": [f"{thing}.png", ""],
                    }
                )
    return found


def write_tiny_subset(folder: Path) -> None:
    """Data root and recipes of `tiny_train` and `tiny_val`: new pairs of known things, kinds."""
    (folder / "data" / "images").mkdir(parents=True)
    (folder / "config" / "recipes").mkdir(parents=True)
    for colour in COLOURS:
        for shape in SHAPES:
            picture(colour, shape).save(folder / "data" / "images" / f"{colour}-{shape}.png")
    rows = records()
    random.Random(0).shuffle(rows)
    parts = {"tiny_train": rows[12:], "tiny_val": rows[:12]}
    passages = [
        {"passage_id": i, "passage_text": t, "passage_image_path": p}
        for row in rows
        for i, t, p in zip(
            row["passage_id"], row["passage_text"], row["passage_image_path"], strict=True
        )
    ]
    write_lines(folder / "data" / "passages.jsonl", passages)
    for name, part in parts.items():
        write_lines(folder / "data" / f"{name}.jsonl", part)
        text = [
            "schema = 1", f'name = "{name}"', 'title = "Tiny"',
            'evaluate_on = ["tiny_val"]' if name == "tiny_train" else "",
            "[source]", 'adapter = "jsonl"', f'uri = "{name}.jsonl"', 'passages = "passages.jsonl"',
        ]  # fmt: skip
        (folder / "config" / "recipes" / f"{name}.toml").write_text("\n".join(text))
    (folder / "config" / "models").mkdir()
    (folder / "config" / "models" / "pico.toml").write_text(
        """schema = 1
name = "pico"
title = "The smallest CLIP"
engines = ["retrieval"]
family = "clip-scratch"
[architecture]
width = 32
layers = 2
heads = 2
patch_size = 16
projection = 32
vocabulary = 300
[settings]
image_size = 32
max_length = 24
batch = 16
lr = 3e-3
precision = "fp32"
"""
    )


def write_lines(path: Path, rows: list[dict]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
