"""Cost of GradCache: seconds a step and bytes kept, compared with the whole batch at once.

    python benchmarks/grad_cache.py --batch 256 --chunks 0 32 128 --rounds 5
    python benchmarks/grad_cache.py --batch 4096 --chunks 0 256 1024 --width 512 --layers 9 \\
        --image-size 224 --precision bf16                                        (on a GPU)

One CLIP-shaped model with fresh weights, one batch of pairs with a text and an image on both sides.
Forward, contrastive loss and backward, rounds interleaved over chunk sizes (0: the whole batch).
Kept: on a GPU the allocator's peak above the model; on a CPU the bytes that autograd saves of the
forward pass, to which the backward pass adds one chunk's. Losses are printed: they must agree.
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch

from engines.retrieval.data.pairs import ItemInputs
from engines.retrieval.loss import contrastive
from engines.retrieval.models import clip
from engines.retrieval.models.encoder import DualEncoder
from engines.torchkit.data.prefetch import to_device
from engines.torchkit.runtime.precision import Precision

TOKENS = 32


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    add = parser.add_argument
    add("--batch", type=int, default=256)
    add("--chunks", type=int, nargs="+", default=[0, 32, 128])
    add("--rounds", type=int, default=5)
    add("--width", type=int, default=128)
    add("--layers", type=int, default=2)
    add("--image-size", type=int, default=64)
    add("--patch-size", type=int, default=16)
    add("--threads", type=int, default=2)
    add("--precision", choices=("fp32", "bf16"), default="fp32")
    return parser.parse_args()


def side(args: argparse.Namespace, device: torch.device, seed: int) -> ItemInputs:
    generator = torch.Generator().manual_seed(seed)
    texts = torch.randint(5, 1000, (args.batch, TOKENS), generator=generator)
    texts[:, -1] = 4  # the end token
    shape = (args.batch, args.image_size, args.image_size, 3)
    images = torch.randint(0, 256, shape, generator=generator).to(torch.uint8)
    at = torch.arange(args.batch)
    return to_device(ItemInputs(args.batch, texts, at, images, at), device)


def kept_bytes(model: DualEncoder, forward) -> int:
    """Bytes that wait for the backward pass, each storage once, without the weights."""
    parameters = {p.untyped_storage().data_ptr() for p in model.parameters()}
    sizes: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in parameters:
            sizes[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        forward()
    return sum(sizes.values())


def main() -> None:
    args = parse()
    torch.set_num_threads(args.threads)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    precision = Precision(args.precision, device)
    torch.manual_seed(0)
    sizes = {"width": args.width, "layers": args.layers, "heads": max(1, args.width // 64),
             "patch_size": args.patch_size, "projection": 128, "vocabulary": 1000}  # fmt: skip
    model = clip.from_scratch(sizes, args.image_size, TOKENS, 0.07).to(device).train()
    queries, passages = side(args, device, 1), side(args, device, 2)
    positive = torch.eye(args.batch, dtype=torch.bool, device=device)

    def forward() -> torch.Tensor:
        with precision.autocast():
            return contrastive(*model(queries, passages)[:2], positive, model.scale())[0]

    def step(chunk: int) -> tuple[float, int, float]:
        model.chunk = chunk
        model.zero_grad(set_to_none=True)
        cuda = device.type == "cuda"
        if cuda:
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated() if cuda else 0
        began = time.perf_counter()
        loss = forward()
        loss.backward()
        if cuda:
            torch.cuda.synchronize()
        seconds = time.perf_counter() - began
        peak = torch.cuda.max_memory_allocated() - before if cuda else kept_bytes(model, forward)
        return seconds, peak, loss.item()

    timings: dict[int, list[tuple[float, int, float]]] = {chunk: [] for chunk in args.chunks}
    for _ in range(args.rounds + 1):
        for chunk in args.chunks:
            timings[chunk].append(step(chunk))
    first = statistics.median(s for s, _, _ in timings[args.chunks[0]][1:])
    print(f"{device}, batch {args.batch}, {args.precision}; the first round is left out\n")
    print("| chunk | s/step, median | of the first | MiB kept | loss |\n|---:|---:|---:|---:|---:|")
    for chunk, rounds in timings.items():
        seconds = statistics.median(s for s, _, _ in rounds[1:])
        _, peak, loss = rounds[-1]
        name = chunk or "whole"
        print(
            f"| {name} | {seconds:.3f} | {seconds / first:.2f} | {peak / 2**20:.1f} | {loss:.6f} |"
        )


if __name__ == "__main__":
    main()
