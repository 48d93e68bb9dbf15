"""Master weights: what the replica computes, what the masters learn, and how far from float32."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from engines import model_catalog
from engines.emitter import Emitter, Stopped
from engines.protocol import RunSpec
from engines.retrieval import Params, run, tasks
from engines.retrieval.data.items import ArrayItems, TokenItems
from engines.retrieval.data.pairs import ItemRows, PairBatch, gather_inputs
from engines.retrieval.loss import contrastive
from engines.retrieval.models import clip, factory, master_weights, tokenizer
from engines.retrieval.models.encoder import DualEncoder
from engines.torchkit.modeling.master_weights import Replica
from engines.torchkit.runtime.distributed import ProcessGroup
from engines.torchkit.runtime.precision import Precision
from engines.torchkit.training.optimization import adamw
from tests.engines import families

MASTERS = Params(precision="bf16", mixed_precision="master_weights")
RECURRENT = {"layer_fusion": "recurrent", "layers": (3, 7, 11), "fusion_width": 64,
             "fusion_queries": 4, "late_width": 24}  # fmt: skip
CPU = torch.device("cpu")
SIZES = {
    "width": 32,
    "layers": 3,
    "heads": 2,
    "patch_size": 16,
    "projection": 32,
    "vocabulary": 200,
}


def replica_of(model: DualEncoder) -> Replica[DualEncoder]:
    replica = master_weights.make_replica(model, MASTERS, "bf16")
    assert replica is not None
    return replica


def batches(count: int, size: int = 8) -> list[PairBatch]:
    """Queries and passages that share what they are about, in pixels and tokens."""
    rng = np.random.default_rng(0)
    things = rng.integers(0, 256, (64, 32, 32, 3), dtype=np.uint8)
    made = []
    for _ in range(count):
        rows = rng.choice(64, size, replace=False)
        sides = []
        for length in (12, 20):
            noisy = things[rows] // 2 + rng.integers(0, 128, (size, 32, 32, 3), dtype=np.uint8)
            tokens = (rows[:, None] * 7 + np.arange(length)) % 190 + 5
            flat = np.concatenate([tokens, np.full((size, 1), 4)], 1).astype(np.int32)
            texts = TokenItems(flat.ravel(), np.arange(size + 1) * (length + 1), 0)
            everything = ItemRows(np.arange(size), np.arange(size))
            sides.append(gather_inputs(everything, texts, ArrayItems([noisy])))
        made.append(PairBatch(*sides, torch.eye(size, dtype=torch.bool)))
    return made


class Training:
    """A small CLIP in fp32, in bf16 by autocast, or in bf16 with master weights."""

    def __init__(self, kind: str) -> None:
        torch.manual_seed(0)
        self.model = clip.from_scratch(SIZES, 32, 24, 0.07).train()
        self.precision = Precision("fp32" if kind == "fp32" else "bf16", CPU)
        self.replica = replica_of(self.model) if kind == "master_weights" else None
        encode = self.model
        if self.replica is not None:
            encode = master_weights.without_autocast(self.replica.model.train(), "cpu")
        self.forward = tasks.make_forward(encode, contrastive, ProcessGroup())
        self.optimizer = adamw(self.model, 3e-3, 0.01, (0.9, 0.98), fused=True)

    def backward(self, batch: PairBatch) -> float:
        """The loss; gradients are in the masters."""
        with self.precision.autocast():
            loss = self.forward(batch).loss
        loss.backward()
        if self.replica is not None:
            self.replica.collect_gradients()
        return loss.item()

    def step(self, batch: PairBatch) -> float:
        """The loss before the weights changed."""
        loss = self.backward(batch)
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        if self.replica is not None:
            self.replica.refresh()
        return loss

    def gradient(self) -> torch.Tensor:
        """All gradients in one vector."""
        return torch.cat([p.grad.flatten() for p in self.model.parameters() if p.grad is not None])


def test_loss_and_gradient_at_equal_weights_are_near_those_of_float32():
    """docs/retrieval.md states these bounds. Here: gradient 0.0076 by autocast, 0.0119."""
    (batch,) = batches(1, 16)
    trainings = {k: Training(k) for k in ("fp32", "autocast", "master_weights")}
    found = {kind: training.backward(batch) for kind, training in trainings.items()}
    whole = trainings["fp32"].gradient()
    far = {k: ((t.gradient() - whole).norm() / whole.norm()).item() for k, t in trainings.items()}
    assert 0 < abs(found["master_weights"] - found["fp32"]) < 0.005
    assert far["autocast"] > 0
    assert far["master_weights"] < min(0.02, 2 * far["autocast"])


def test_a_training_strays_no_further_from_float32_than_with_autocast():
    """In the mean over steps: single steps differ by chance, and more with every step."""
    kinds = ("fp32", "autocast", "master_weights")
    whole, cast, copied = (
        np.array([training.step(batch) for batch in batches(40)])
        for training in map(Training, kinds)
    )
    assert whole[-10:].mean() < 0.5 * whole[0], "it learns, so the steps are worth comparing"
    assert 0 < abs(copied - whole).mean() < 1.5 * abs(cast - whole).mean()


SETTINGS = {"own": {}, "late": {"scoring": "late"}, "layers": {"layers": (3, 7, 11)},
            "recurrent": RECURRENT}  # fmt: skip
NO_BLOCKS = {("fastvit", "layers"), ("fastvit", "recurrent")}


@pytest.mark.parametrize(
    ("family", "name"),
    [(f, s) for f in families.FOLDERS for s in SETTINGS if (f, s) not in NO_BLOCKS],
)
def test_a_replica_of_every_family_computes_what_its_masters_do(tmp_path, family, name):
    """In bf16: vectors within its rounding, and a gradient for every master that had one."""
    families.FOLDERS[family](tmp_path)
    entry = model_catalog.load(f"path:{tmp_path}")
    params = Params(**{**entry.settings, **SETTINGS[name]})
    words = tokenizer.load_model_tokenizer(tmp_path, entry.family)
    torch.manual_seed(0)
    model = factory.from_folder(entry, tmp_path, words, params)
    factory.configure_model(model, entry, params, words)
    replica = replica_of(model)
    texts = TokenItems.tokenize(families.TEXTS, words.tokenizer, params.max_length, words.pad)
    texts.length = words.length
    size = (2, params.image_size, params.image_size, 3)
    images = ArrayItems([np.random.default_rng(0).integers(0, 256, size, dtype=np.uint8)])
    side = ItemRows(np.array([0, 1, -1]), np.array([0, -1, 1]))
    inputs = gather_inputs(side, texts, images)
    whole = model.eval().encode_items(inputs, "query")
    copied = replica.model.eval().encode_items(inputs, "query")
    assert copied.dtype == torch.float32
    assert (copied * whole).sum(-1)[whole.norm(dim=-1) > 0].min() > 0.98, "cosines"
    whole.square().sum().backward()
    expected = {n for n, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    copied.square().sum().backward()
    replica.collect_gradients()
    assert {n for n, p in model.named_parameters() if p.grad is not None} == expected
    assert all(p.grad is None for p in replica.parameters())


def test_temperature_pixels_and_batch_norms_stay_in_float32(tmp_path):
    families.FOLDERS["fastvit"](tmp_path)
    entry = model_catalog.load(f"path:{tmp_path}")
    words = tokenizer.load_model_tokenizer(tmp_path, entry.family)
    model = factory.from_folder(entry, tmp_path, words, Params(**entry.settings))
    copied = replica_of(model).model
    assert copied.log_scale is model.log_scale
    assert copied.pixel_normalizer is not None
    assert copied.pixel_normalizer.shift.dtype == torch.float32
    norms = [n for n, m in model.named_modules() if isinstance(m, torch.nn.BatchNorm2d)]
    assert norms
    for name in norms:
        assert copied.get_submodule(name).weight is model.get_submodule(name).weight
        assert copied.get_submodule(name).running_mean is model.get_submodule(name).running_mean
    halves = [p for p in copied.parameters() if p.dtype == torch.bfloat16]
    assert len(halves) > 50


def test_values_go_out_and_gradients_come_back_through_fused_weights():
    model = clip.from_scratch(SIZES, 32, 24, 0.07)
    replica = replica_of(model)
    attention = model.clip.text_model.encoder.layers[0].self_attn
    fused = replica.model.clip.text_model.encoder.layers[0].self_attn
    with torch.no_grad():
        attention.k_proj.weight.fill_(0.5)
        model.log_scale.fill_(2.0)
    replica.refresh()
    assert (fused.weight[32:64] == 0.5).all()
    assert not (fused.weight[:32] == 0.5).any()
    assert replica.model.log_scale == 2.0
    fused.weight.grad = torch.arange(96.0).repeat_interleave(32).view(96, 32).bfloat16()
    replica.collect_gradients()
    assert torch.equal(attention.v_proj.weight.grad[:, 0], torch.arange(64.0, 96.0))
    assert attention.v_proj.bias.grad is None


def test_micro_batches_are_added_up_in_float32():
    """256 + 1 is 256 in bf16."""
    model = clip.from_scratch(SIZES, 32, 24, 0.07)
    replica = replica_of(model)
    projection = replica.model.clip.text_projection.weight
    for value in (256.0, 1.0):
        projection.grad = torch.full_like(projection, value)
        replica.collect_gradients()
    assert (model.clip.text_projection.weight.grad == 257).all()


@pytest.fixture(scope="module")
def go(tiny, tmp_path_factory):
    def start(folder: Path | None = None, emit: Emitter | None = None, **settings) -> Path:
        plain = {"max_steps": 4, "evaluate_on": (), "threads": 1, "batch": 8,
                 "data_root": str(tiny / "data")}  # fmt: skip
        every = dict(model_catalog.load("pico").settings) | plain | settings
        spec = RunSpec(
            suite="s", run_id="01-tiny", engine="retrieval", subset="tiny_train", model="pico",
            cache_root=str(tiny / "cache"), params=Params(**every).model_dump(mode="json"),
        )  # fmt: skip
        folder = folder or tmp_path_factory.mktemp("run")
        run(spec, emit or Emitter(), folder)
        return folder

    return start


def trained(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "checkpoints/last/model.safetensors")


def equal(first: Path, second: Path) -> bool:
    one, other = trained(first), trained(second)
    return all(torch.equal(tensor, other[name]) for name, tensor in one.items())


def test_without_bf16_the_setting_changes_nothing(go):
    plain = go(precision="fp32")
    assert equal(plain, go(precision="fp32", mixed_precision="master_weights"))


def test_a_run_keeps_float32_weights_and_resumes_with_them(go, monkeypatch):
    """Stopped after two steps and resumed: bitwise the weights of a run that nobody disturbed."""
    settings = {
        "precision": "bf16",
        "mixed_precision": "master_weights",
        "gradient_accumulation_steps": 2,
    }
    whole = go(**settings)
    tensors = trained(whole)
    assert {tensor.dtype for tensor in tensors.values()} == {torch.float32}
    assert not any("self_attn.weight" in name for name in tensors), "nothing of the replica"
    assert not equal(whole, go(**{**settings, "mixed_precision": "autocast"}))
    emit, seen = Emitter(), []

    def stop(message) -> None:
        seen.append(message.kind)
        emit.stop_requested = seen.count("step") == 2
        plain(message)

    plain = emit.send
    monkeypatch.setattr(emit, "send", stop)
    folder = whole.parent / "stopped"
    folder.mkdir()
    with pytest.raises(Stopped):
        go(folder, emit, **settings, timing_warmup_steps=2)
    assert equal(whole, go(folder, **settings))
