"""Late interaction, recurrent fusion, sigmoid loss and chunked gradients, each by hand."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from engines import model_catalog
from engines.emitter import Emitter
from engines.protocol import RunSpec
from engines.retrieval import Params, run
from engines.retrieval.data.pairs import ItemInputs
from engines.retrieval.index import exact
from engines.retrieval.loss import contrastive, sigmoid
from engines.retrieval.models import clip, factory, max_sim, tokenizer
from engines.retrieval.models.encoder import DualEncoder, count_parameters, split_inputs
from engines.retrieval.models.fusion import FusionSizes, LayerStates, RecurrentFusion
from engines.torchkit.checkpointing.trained_tensors import trainable_tensors
from engines.torchkit.data.prefetch import map_tensors


def tokens(items: int, length: int, width: int, seed: int) -> torch.Tensor:
    """Unit rows [items, length, width]; of item i some at the end are zeros, as padding is."""
    generator = torch.Generator().manual_seed(seed)
    made = torch.randn(items, length, width, generator=generator)
    made = nn.functional.normalize(made, dim=-1)
    for item in range(items):
        made[item, length - item % length :] = 0
    return made


def max_sim_by_hand(q: list, p: list) -> float:
    """Sum over query tokens of the best passage token, zeros left out."""
    asked = [t for t in q if any(t)]
    there = [t for t in p if any(t)]
    return sum(max(sum(a * b for a, b in zip(t, u, strict=True)) for u in there) for t in asked)


# Late interaction


def test_max_sim_is_that_of_loops(monkeypatch):
    queries, passages = tokens(7, 4, 6, 0), tokens(5, 3, 6, 1)
    passages[1, 0] = -queries[0, 0]  # best cosines may be negative: padding must not win
    expected = [[max_sim_by_hand(q, p) for p in passages.tolist()] for q in queries.tolist()]
    found = max_sim.max_sim(queries, passages)
    torch.testing.assert_close(found, torch.tensor(expected), atol=1e-5, rtol=1e-5)
    monkeypatch.setattr(max_sim, "SIMILARITIES_AT_ONCE", 1)
    torch.testing.assert_close(max_sim.max_sim(queries, passages), found)
    counts = torch.tensor([sum(any(t) for t in q) for q in queries.tolist()])
    means = max_sim.mean_max_sim(queries, passages)
    torch.testing.assert_close(means, found / counts[:, None])


def test_padding_loses_against_the_worst_cosine():
    query = torch.tensor([[[1.0, 0.0]]])
    passage = torch.tensor([[[-1.0, 0.0], [0.0, 0.0]]])
    assert max_sim.max_sim(query, passage).item() == -1.0


def test_search_by_max_sim_is_the_full_sort():
    queries, passages = tokens(6, 4, 8, 0), tokens(300, 5, 8, 1)
    passages[200] = passages[100]  # a tie, ordered by row
    scores, rows = exact.top_k(queries, passages, 300, max_sim.score)
    full = max_sim.max_sim(queries, passages)
    expected = full.argsort(dim=1, descending=True, stable=True)
    assert torch.equal(rows, expected)
    torch.testing.assert_close(scores, full.gather(1, expected))
    half, _ = exact.top_k(queries, passages.half(), 10, max_sim.score)
    torch.testing.assert_close(half, scores[:, :10], atol=5e-3, rtol=0)


def test_the_late_loss_is_that_of_loops_and_its_gradients_that_of_differences():
    queries, passages = tokens(4, 3, 5, 2).double(), tokens(4, 3, 5, 3).double()
    positive = torch.eye(4, dtype=torch.bool)
    positive[0, 2] = True
    scale = 5.0
    s = [[scale * max_sim_by_hand(q, p) / sum(any(t) for t in q) for p in passages.tolist()]
         for q in queries.tolist()]  # fmt: skip
    rows = columns = 0.0
    for i in range(4):
        others = [j for j in range(4) if j == i or not positive[i][j]]
        rows -= s[i][i] - math.log(sum(math.exp(s[i][j]) for j in others))
        others = [k for k in range(4) if k == i or not positive[k][i]]
        columns -= s[i][i] - math.log(sum(math.exp(s[k][i]) for k in others))
    found, _ = contrastive(queries, passages, positive, torch.tensor(scale))
    assert found.item() == pytest.approx((rows + columns) / 8, rel=1e-5)
    leaf = queries[:, :1].clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda q: max_sim.max_sim(q, passages), (leaf,))


# Sigmoid


def test_the_sigmoid_loss_is_that_of_loops():
    generator = torch.Generator().manual_seed(0)
    q, p = (nn.functional.normalize(torch.randn(5, 6, generator=generator), dim=1) for _ in "qp")
    positive = torch.eye(5, dtype=torch.bool)
    positive[1, 3] = True
    loss, found = sigmoid(q, p, positive, torch.tensor([8.0, -3.0]))
    total = 0.0
    for i in range(5):
        for j in range(5):
            logit = 8 * sum(a * b for a, b in zip(q[i].tolist(), p[j].tolist(), strict=True)) - 3
            total += math.log1p(math.exp(-logit if positive[i][j] else logit))
    assert loss.item() == pytest.approx(total / 5, rel=1e-5)
    assert found["temperature"].item() == pytest.approx(1 / 8)
    assert found["bias"].item() == -3
    assert found["duplicate_rate"].item() == pytest.approx(0.2)


# Recurrent fusion


def published_parameters(layers: int, text: int, vision: int) -> int:
    """Of ReT's fusion at hidden 1024, 32 queries, late projection 128, by the paper's parts."""
    d, queries, out = 1024, 32, 128
    itself = 4 * d * d + 4 * d
    crossed = 2 * 4 * d * d
    gates = 4 * (d * d + d)
    mlp = (d * 4 * d + 4 * d) + (4 * d * d + d)
    norms = 5 * 2 * d
    adapters = layers * (text * d + d) + layers * (vision * d + d)
    return queries * d + itself + crossed + gates + mlp + norms + adapters + d * out


@pytest.mark.parametrize(
    ("layers", "text", "vision", "known"),
    [(12, 512, 768, 41_106_432), (12, 768, 1024, 47_397_888), (12, 1024, 1280, 53_689_344)],
    ids=["CLIP ViT-B", "CLIP ViT-L", "OpenCLIP ViT-H"],
)
def test_sizes_are_those_of_the_published_configuration(layers, text, vision, known):
    """`known`: counted on the authors' code, which has one more LayerNorm that it never uses."""
    with torch.device("meta"):
        fusion = RecurrentFusion(text, vision, layers, FusionSizes())
    assert published_parameters(layers, text, vision) == known
    assert count_parameters(fusion)[0] == known - 2 * 1024
    assert (fusion.queries.shape, fusion.project.weight.shape) == ((32, 1024), (128, 1024))
    assert fusion.cell.itself.num_heads == 16


def some_layers(count: int, length: int, width: int, present: list[int]) -> LayerStates:
    """`present[i]` tokens of item i are there; what is beyond them is not zero."""
    states = [torch.randn(len(present), length, width) for _ in range(count)]
    return LayerStates(states, torch.arange(length) < torch.tensor(present)[:, None])


def test_fusion_neither_reads_padding_nor_missing_modalities():
    torch.manual_seed(0)
    fusion = RecurrentFusion(6, 10, 3, FusionSizes(16, 4, 5)).eval()
    text, vision = some_layers(3, 7, 6, [7, 2, 0]), some_layers(3, 9, 10, [9, 0, 9])
    found = fusion(text, vision, pool=False)
    assert found.shape == (3, 4, 5)
    assert fusion(text, vision, pool=True).shape == (3, 5)
    assert found.isfinite().all()
    other = LayerStates([s.masked_fill(~text.present[:, :, None], 99.0) for s in text.states],
                   text.present)  # fmt: skip
    dark = LayerStates([s.masked_fill(~vision.present[:, :, None], -9.0) for s in vision.states],
                  vision.present)  # fmt: skip
    torch.testing.assert_close(fusion(other, dark, pool=False), found)
    short = LayerStates([s[:2, :2] for s in text.states], text.present[:2, :2])
    alone = fusion(
        short, LayerStates([s[:2] for s in vision.states], vision.present[:2]), pool=False
    )
    torch.testing.assert_close(alone[1], found[1])
    assert not torch.allclose(alone[0], found[0]), "item 0 had seven tokens"


def test_the_cell_is_the_papers_equations():
    """One layer, one head, by single steps from the cell's weights."""
    torch.manual_seed(1)
    fusion = RecurrentFusion(6, 10, 1, FusionSizes(8, 3, 4)).eval()
    text, vision = some_layers(1, 5, 6, [5]), some_layers(1, 2, 10, [2])
    cell = fusion.cell

    def attend(module: nn.MultiheadAttention, q: torch.Tensor, kv: torch.Tensor) -> torch.Tensor:
        weights = module.in_proj_weight.chunk(3)
        biases = module.in_proj_bias.chunk(3) if module.in_proj_bias is not None else [0, 0, 0]
        a, b, c = (x @ w.T + v for x, w, v in zip((q, kv, kv), weights, biases, strict=True))
        return module.out_proj((a @ b.T / math.sqrt(8)).softmax(-1) @ c)

    state = fusion.queries + fusion.positions
    asked = cell.query_norm(state)
    residual = state + attend(cell.itself, asked, asked)
    read, forget = [], 0
    for reading, adapter, source in (
        (cell.text, fusion.from_text[0], text), (cell.vision, fusion.from_vision[0], vision),
    ):  # fmt: skip
        hidden = attend(reading.attention, asked, reading.norm(adapter(source.states[0][0])))
        read.append(hidden * reading.input_gate(hidden).sigmoid())
        forget = forget + reading.forget_gate(hidden)
    mixed = residual * forget.sigmoid() + read[0] + read[1]
    expected = fusion.project(mixed + cell.mlp(cell.mlp_norm(mixed)))
    torch.testing.assert_close(fusion(text, vision, pool=False)[0], expected, atol=1e-5, rtol=1e-4)


# Chunked gradients

SIZES = {"width": 32, "layers": 3, "heads": 2, "patch_size": 16, "vocabulary": 50,
         "projection": 24}  # fmt: skip


def encoder(chunk: int, dropout: float = 0.0, **settings) -> DualEncoder:
    torch.manual_seed(0)
    model = clip.from_scratch(SIZES, 32, 12, 0.07)
    for module in (model.clip.text_model, model.clip.vision_model):
        for layer in module.encoder.layers:
            layer.self_attn.dropout = dropout
    params = Params(image_size=32, max_length=12, fusion_width=64, fusion_queries=4, late_width=16,
                    grad_cache_chunk=chunk, **settings)  # fmt: skip
    entry = model_catalog.load("clip-nano")
    words = tokenizer.TextTokenizer(None, 0)
    factory.configure_model(model, entry, params, words)
    if not dropout:
        for part in model.modules():
            if isinstance(part, nn.Dropout):
                part.p = 0.0
            if isinstance(part, nn.MultiheadAttention):
                part.dropout = 0.0
    return model.train()


def side(size: int, seed: int) -> ItemInputs:
    """Items with a text, an image, or both."""
    generator = torch.Generator().manual_seed(seed)
    text_at = torch.tensor([i for i in range(size) if i % 3 != 1])
    image_at = torch.tensor([i for i in range(size) if i % 3 != 2])
    texts = torch.randint(5, 50, (len(text_at), 12), generator=generator)
    texts[torch.arange(len(texts)), torch.arange(len(texts)) % 11 + 1] = 4  # the end token
    images = torch.randint(0, 256, (len(image_at), 32, 32, 3), generator=generator)
    return ItemInputs(size, texts, text_at, images.to(torch.uint8), image_at)


def gradients(
    model: DualEncoder, size: int, device: str = "cpu"
) -> tuple[float, dict[str, torch.Tensor]]:
    positive = torch.eye(size, dtype=torch.bool, device=device)
    positive[0, size - 1] = True
    queries, passages = (
        map_tensors(side(size, seed), lambda tensor: tensor.to(device)) for seed in (1, 2)
    )
    torch.manual_seed(5)
    loss, _ = contrastive(*model.to(device)(queries, passages)[:2], positive, model.scale())
    loss.backward()
    grads = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
    return loss.item(), grads


WAYS = {
    "pooled": {}, "late": {"scoring": "late"},
    "recurrent": {"layer_fusion": "recurrent", "scoring": "late", "layers": [3, 11]},
}  # fmt: skip


@pytest.mark.parametrize("chunk", [4, 7, 64])
@pytest.mark.parametrize("way", WAYS)
def test_chunks_give_the_loss_and_gradients_of_the_whole_batch(way, chunk):
    whole, expected = gradients(encoder(0, **WAYS[way]), 19)
    loss, found = gradients(encoder(chunk, **WAYS[way]), 19)
    assert loss == pytest.approx(whole, rel=1e-6)
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, atol=1e-6, rtol=1e-4, msg=name)


@pytest.mark.parametrize("way", WAYS)
def test_with_dropout_the_second_pass_sees_the_first_ones_masks(way, monkeypatch):
    """Against the same chunks computed once, with everything kept: equal to the last bit."""
    replayed = gradients(encoder(4, 0.5, **WAYS[way]), 11)
    again = gradients(encoder(4, 0.5, **WAYS[way]), 11)
    monkeypatch.setattr(
        "engines.retrieval.models.encoder.checkpoint", lambda function, *args, **_: function(*args)
    )
    kept = gradients(encoder(4, 0.5, **WAYS[way]), 11)
    without = gradients(encoder(4, 0.0, **WAYS[way]), 11)
    assert replayed[0] == kept[0] == again[0] != without[0]
    for name, gradient in kept[1].items():
        assert torch.equal(replayed[1][name], gradient), name


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
@pytest.mark.parametrize("way", WAYS)
def test_with_dropout_on_a_gpu_the_second_pass_sees_the_first_ones_masks(way, monkeypatch):
    """The device's own random state is replayed too."""
    replayed = gradients(encoder(4, 0.5, **WAYS[way]), 11, "cuda")
    monkeypatch.setattr(
        "engines.retrieval.models.encoder.checkpoint", lambda function, *args, **_: function(*args)
    )
    kept = gradients(encoder(4, 0.5, **WAYS[way]), 11, "cuda")
    assert replayed[0] == pytest.approx(kept[0], rel=1e-5)
    for name, gradient in kept[1].items():
        torch.testing.assert_close(replayed[1][name], gradient, atol=1e-4, rtol=1e-3, msg=name)


def test_chunks_keep_no_activations():
    """Bytes that wait for the backward pass: vectors and inputs only, whatever the depth."""

    def kept(chunk: int) -> int:
        found = 0

        def pack(tensor: torch.Tensor) -> torch.Tensor:
            nonlocal found
            found += tensor.numel() * tensor.element_size()
            return tensor

        model = encoder(chunk)
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            model(side(24, 1), side(24, 2))
        return found

    assert kept(4) < 0.1 * kept(0)


def test_parts_of_a_side_are_its_items_in_order():
    whole = side(11, 3)
    parts = split_inputs(whole, 4)
    assert [p.size for p in parts] == [4, 4, 3]
    assert torch.equal(torch.cat([p.texts for p in parts]), whole.texts)
    at = torch.cat([p.image_at + 4 * i for i, p in enumerate(parts)])
    assert torch.equal(at, whole.image_at)


# Checkpoints and whole runs


def test_running_statistics_are_saved_with_the_trained_weights():
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Linear(4, 4))
    model[2].requires_grad_(False)
    names = set(trainable_tensors(model))
    assert {"0.weight", "1.weight", "1.running_mean", "1.running_var"} <= names
    assert not any(name.startswith("2.") for name in names)


RUNS = {
    "late": {"scoring": "late", "layers": [3, 11]},
    "ret": {"scoring": "late", "layers": [3, 11], "layer_fusion": "recurrent", "fusion_width": 64,
            "fusion_queries": 4, "late_width": 16, "grad_cache_chunk": 5},
    "sigmoid": {"loss": "sigmoid", "ema": 0.9},
    "pooled-ret": {"layers": [3, 11], "layer_fusion": "recurrent", "fusion_width": 64,
                   "fusion_queries": 4, "late_width": 16},
}  # fmt: skip


@pytest.mark.parametrize("name", RUNS)
def test_a_run_trains_evaluates_and_is_evaluated_again(tiny: Path, tmp_path: Path, name: str):
    settings = {
        **model_catalog.load("pico").settings, "data_root": str(tiny / "data"), "threads": 1,
        "max_steps": 6, "timing_warmup_steps": 1, **RUNS[name],
    }  # fmt: skip
    base = {"suite": "s", "engine": "retrieval", "subset": "tiny_train", "model": "pico",
            "cache_root": str(tiny / "cache")}  # fmt: skip

    def go(run_id: str, **changes) -> list:
        params = Params(**{**settings, **changes.pop("settings", {})}).model_dump(mode="json")
        emit, folder = Emitter(), tmp_path / run_id
        folder.mkdir()
        run(RunSpec(**{**base, "run_id": run_id, "params": params, **changes}), emit, folder)
        emit.close()
        return emit.sent

    sent = go("01-train")
    steps = [m for m in sent if m.kind == "step"]
    assert all(math.isfinite(m.loss) for m in steps)
    plan = next(m for m in sent if m.kind == "plan")
    assert f"{plan.parameters:,}: text " in plan.facts["parameters"]
    scores = {m.name: m.value for m in sent if m.kind == "metric"}
    assert {"recall@1", "recall@5[text only]", "recall@5[image only]"} <= scores.keys()
    # What shapes the model comes from the run that trained it.
    shaping = dict.fromkeys(("scoring", "layer_fusion", "layers", "loss", "fusion_width"))
    defaults = {key: Params().model_dump()[key] for key in shaping}
    again = go("02-evaluate", task="evaluate", model="run:01-train", subset="tiny_val",
               settings={**defaults, "evaluate_modalities": ["both", "shuffled"]})  # fmt: skip
    repeated = {m.name: m.value for m in again if m.kind == "metric"}
    assert repeated["recall@1"] == scores["recall@1"]
    assert repeated["mrr@10"] == pytest.approx(scores["mrr@10"])
    assert "recall@1[shuffled images]" in repeated
    assert np.isfinite(list(repeated.values())).all()
