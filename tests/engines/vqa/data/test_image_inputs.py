"""Cached vision features and the inputs computed ahead, against transformers' own way."""

from __future__ import annotations

import shutil
from collections import Counter
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import AutoProcessor

from engines.torchkit.data.prefetch import map_tensors
from engines.torchkit.modeling import attention, feature_cache, pretrained
from engines.torchkit.runtime.precision import Precision
from engines.vqa.data import feature_cache as data_feature_cache
from engines.vqa.data import image_inputs
from engines.vqa.data.image_inputs import ImageInputs, ModelVisionTower
from engines.vqa.data.images import Pictures, SizeLimits
from engines.vqa.models import chat_template
from engines.vqa.models import processor as models_processor
from engines.vqa.models.chat_template import ChoicePrompt
from engines.vqa.models.model import FEATURES, PIXELS, Answerer, causal_mask
from engines.vqa.models.qwen_layout import GRID, TYPES, QwenInputLayout
from engines.vqa.models.vision_output import Form
from tests.engines import engine_runs, tiny_vqa
from tests.engines.engine_runs import weights
from tests.engines.tiny_vqa import go, lines, spec

pytest.importorskip("bitsandbytes")
pytest.importorskip("peft")

tiny = engine_runs.subset_fixture(tiny_vqa.write)
CPU = torch.device("cpu")
OPTIONS = ("red", "green", "blue", "black")
SAID = [
    ChoicePrompt("what colour is the disc?", OPTIONS, "b"),
    ChoicePrompt("is it?", OPTIONS, "d"),
]
SIZES = ((308, 252), (252, 280))
"""Windows of 64, 48, 32, 24, 16 and 8 patches."""


def shown() -> list[np.ndarray]:
    generator = np.random.default_rng(1)
    return [generator.integers(0, 256, (*size, 3), np.uint8) for size in SIZES]


def loaded(folder: Path, precision: str = "fp32", *, four_bit: bool = False) -> torch.nn.Module:
    return pretrained.load(
        folder / "model", pretrained.VISION_LANGUAGE, Precision(precision, CPU), four_bit=four_bit,
        double=True,
    ).eval()  # fmt: skip


def seeing(folder: Path, precision: str = "fp32") -> ImageInputs:
    processor = AutoProcessor.from_pretrained(folder / "model")
    found = models_processor.create_processor(
        processor, chat_template.read_chat_template(processor, "", folder), folder
    )
    limits = SizeLimits(56, 784, 1 << 20, found.factor)
    pictures = Pictures(found, limits, folder / "cache", lambda *_: None)
    return ImageInputs(pictures, Precision(precision, CPU))


@torch.no_grad()
def told(model, seen: ImageInputs, said, pictures, rows=None, form=None) -> torch.Tensor:
    """Nats of the answers."""
    batch = seen.to_device(seen.collate(said, pictures, rows, ahead=True))
    with seen.precision.autocast():
        return Answerer(model, form)(batch.inputs(), batch.labels)[0]


# -- the same numbers ------------------------------------------------------------------------------


ROUNDING = {"fp32": 1e-6, "bf16": 1e-2}
"""Of the nats of an answer: sums in another order."""


@pytest.mark.parametrize(("precision", "four_bit"), [("fp32", False), ("bf16", False),
                                                     ("bf16", True), ("fp32", True)])  # fmt: skip
def test_cached_features_say_the_same_to_the_last_bit(tiny, precision, four_bit):
    """As the tower in the same pass; and as transformers' own pass, up to rounding."""
    model, seen = loaded(tiny, precision, four_bit=four_bit), seeing(tiny, precision)
    for said, picture in zip(SAID, shown(), strict=True):
        plain = told(model, seen, [said], [picture])
        ahead = ImageInputs(
            seen.pictures, seen.precision, QwenInputLayout.from_model(model, seen.processor)
        )
        assert ahead.layout is not None
        direct = told(model, ahead, [said], [picture])
        assert torch.allclose(direct, plain, rtol=ROUNDING[precision])
        tower = ModelVisionTower(model, ahead)
        form = Form.from_output(tower.image_features(picture))
        rows = tower.encode(picture, form)
        assert rows.dtype == (torch.float32 if precision == "fp32" else torch.bfloat16)
        stored = torch.from_numpy(rows.view(torch.uint8).numpy().copy()).view(rows.dtype)
        assert told(model, ahead, [said], [picture], stored, form).equal(direct)
        model.model.visual.config._attn_implementation = "sdpa"


def test_pictures_of_a_batch_are_computed_apart_and_differ_by_rounding(tiny):
    model, seen = loaded(tiny), seeing(tiny)
    plain = told(model, seen, SAID, shown())
    seen.layout = QwenInputLayout.from_model(model, seen.processor)
    tower = ModelVisionTower(model, seen)
    form = Form.from_output(tower.image_features(shown()[0]))
    rows = torch.cat([tower.encode(one, form) for one in shown()])
    assert torch.allclose(told(model, seen, SAID, shown()), plain, rtol=1e-5)
    assert torch.allclose(told(model, seen, SAID, shown(), rows, form), plain, rtol=1e-5)
    turned = torch.cat([tower.encode(one, form) for one in reversed(shown())])
    assert not torch.allclose(told(model, seen, SAID, shown(), turned, form), plain, rtol=1e-4)


def test_training_on_cached_features_ends_with_the_same_bits(tiny, tmp_path, monkeypatch):
    """One picture in a micro-batch, against the run whose tower is computed in every step; and
    against transformers' own forward pass in training, up to rounding."""
    settings = {"batch": 1, "gradient_accumulation_steps": 2, "eval_batch_size": 1,
                "max_steps": 4, "blank": True,
                "written": 1, "evaluate_on": ["asks_more"], "evaluate_limit": 2,
                "max_new_tokens": 2}  # fmt: skip
    kept = go(spec(tiny, settings=settings), tmp_path / "kept")
    plain = go(spec(tiny, settings=settings | {"feature_cache": False}), tmp_path / "plain")
    monkeypatch.setattr(QwenInputLayout, "from_model", lambda *_: None)
    go(spec(tiny, settings=settings | {"feature_cache": False}), tmp_path / "theirs")
    assert weights(tmp_path / "kept") == weights(tmp_path / "plain")
    for split in ("validation", "asks_more"):
        assert lines(tmp_path / "kept", split) == lines(tmp_path / "plain", split)
    for one, other in zip(
        *(lines(tmp_path / name, "asks_more") for name in ("kept", "theirs")), strict=True
    ):
        assert one["probabilities"] == pytest.approx(other["probabilities"], abs=1e-3)
    first, second = (next(m for m in sent if m.kind == "plan") for sent in (kept, plain))
    assert "pictures computed" in first.facts["feature_cache"]
    assert second.facts["feature_cache"] == f"none: {data_feature_cache.WITHOUT_CACHE}"
    assert first.parameters == second.parameters
    phases = [(m.name, m.detail) for m in kept if m.kind == "phase"]
    assert ("cache", "vision features") in phases


# -- what is computed, and when not ----------------------------------------------------------------


def test_a_picture_is_computed_once_for_all_runs(tiny, tmp_path):
    settings = {"blank": True, "tta_scales": [1.5], "evaluate_on": ["asks_more"], "max_steps": 1}
    first = go(spec(tiny, settings=settings | {"prompt": "one?"}), tmp_path / "first")
    again = go(spec(tiny, settings=settings), tmp_path / "again")
    said = [next(m for m in sent if m.kind == "plan").facts["feature_cache"]
            for sent in (first, again)]  # fmt: skip
    assert " 0 pictures computed" in said[1]
    notice = next(m for m in again if m.kind == "notice" and m.code == "feature-cache")
    assert notice.text.startswith("0 of ")


def test_a_run_on_kept_features_holds_no_tower(tiny, tmp_path, monkeypatch):
    held = []
    real = data_feature_cache.prepare_images

    def prepare(context, data, pictures, model):
        made = real(context, data, pictures, model)
        held.append([name for name, _ in model.named_parameters() if "visual" in name])
        return made

    monkeypatch.setattr(data_feature_cache, "prepare_images", prepare)
    go(spec(tiny, settings={"max_steps": 1}), tmp_path / "kept")
    go(spec(tiny, settings={"max_steps": 1, "feature_cache": False}), tmp_path / "plain")
    assert held[0] == []
    assert held[1]


def test_a_run_that_looks_once_keeps_nothing(tiny, tmp_path):
    go(spec(tiny, settings={"max_steps": 1}), tmp_path / "01-tiny")
    for turned in (False, True):
        asked = spec(tiny, model="run:01-tiny", task="evaluate", run_id=f"02-{turned:d}",
                     subset="asks_more", settings={"tta_options": turned})  # fmt: skip
        plan = next(m for m in go(asked, tmp_path / f"02-{turned:d}") if m.kind == "plan")
        assert plan.facts["feature_cache"].startswith("none") is not turned


def test_a_disk_without_room_leaves_the_tower_at_work(tiny, tmp_path, monkeypatch):
    usage = SimpleNamespace(total=10**9, used=10**9, free=0)
    monkeypatch.setattr(feature_cache.shutil, "disk_usage", lambda _: usage)
    asked = spec(tiny, cache_root=str(tmp_path / "cache"), settings={"max_steps": 1})
    shutil.copytree(tiny / "cache", tmp_path / "cache", ignore=shutil.ignore_patterns("features"))
    sent = go(asked, tmp_path / "run")
    notices = [m.text for m in sent if m.kind == "notice" and m.code == "feature-cache"]
    assert any("rows of features need" in text for text in notices)
    plan = next(m for m in sent if m.kind == "plan")
    assert plan.facts["feature_cache"].startswith("none: no room on the disk")
    assert len(lines(tmp_path / "run", "validation")) == 2


def test_features_that_are_not_the_models_own_are_refused(tiny, monkeypatch):
    model, seen = loaded(tiny), seeing(tiny)
    pair = data_feature_cache.make_probe_pictures(28)
    plain = data_feature_cache.compute_logits(model, seen, pair)
    assert data_feature_cache.find_refusal(model, ModelVisionTower(model, seen), pair, plain) == ""
    real = image_inputs.ModelVisionTower.encode
    monkeypatch.setattr(image_inputs.ModelVisionTower, "encode", lambda *args: real(*args).flip(0))
    said = data_feature_cache.find_refusal(model, ModelVisionTower(model, seen), pair, plain)
    assert said == "Qwen2_5_VLForConditionalGeneration says something else to features than to "\
        "pixels"  # fmt: skip
    assert any("visual" in name for name, _ in model.named_parameters()), "the tower is back"
    model.model.visual.blocks[0].attn.attention_dropout = 0.1
    assert "draws dropout" in data_feature_cache.find_refusal(
        model, ModelVisionTower(model, seen), pair, plain
    )


def test_a_tower_is_known_by_all_that_decides_its_features(tiny):
    model, seen = loaded(tiny), seeing(tiny)
    pair = data_feature_cache.make_probe_pictures(28)

    def mark(with_seen: ImageInputs = seen) -> str:
        tower = ModelVisionTower(model, with_seen)
        assert not data_feature_cache.find_refusal(
            model, tower, pair, data_feature_cache.compute_logits(model, with_seen, pair)
        )
        return tower.fingerprint()

    first = mark()
    assert mark() == first
    half = ImageInputs(seen.pictures, Precision("bf16", CPU))
    assert mark(half) != first
    with torch.no_grad():
        model.lm_head.weight[0, 0] += 1
    assert mark() == first, "the language model's weights decide nothing"
    with torch.no_grad():
        model.model.visual.merger.mlp[0].bias[0] += 1
    assert mark() != first


# -- what the device waits for ---------------------------------------------------------------------


class Calls(TorchDispatchMode):
    """Operations by name."""

    def __init__(self) -> None:
        super().__init__()
        self.names: Counter[str] = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names[func.overloadpacket.__name__] += 1
        return func(*args, **(kwargs or {}))


def attentions(calls: Calls) -> int:
    return sum(n for name, n in calls.names.items() if "scaled_dot_product" in name)


def test_windows_of_equal_length_are_one_call(tiny):
    """Two pictures of 11 x 9 and 9 x 10 tokens, nine windows each; one block sees windows and one
    whole pictures, which have two lengths."""
    model, seen = loaded(tiny), seeing(tiny)
    tower, words = model.model.visual, model.config.text_config.num_hidden_layers
    found = []
    for ahead in (False, True):
        seen.layout = QwenInputLayout.from_model(model, seen.processor) if ahead else None
        with Calls() as calls:
            told(model, seen, SAID, shown())
        found.append(attentions(calls) - words)
    assert (len(tower.blocks), tower.fullatt_block_indexes) == (2, [1])
    host = seen.collate(SAID, shown(), None, ahead=True).host
    lengths = np.diff(host["image_cu_window_seqlens"]).tolist()
    kinds = sum(len(set(lengths[picture : picture + 9])) for picture in (0, 9))
    assert len(lengths) == 18
    assert found == [18 + 2, kinds + 2] == [20, 10]


def test_runs_of_equal_lengths():
    assert attention.find_runs([0, 4, 8, 8, 12, 14, 16, 20]) == [(0, 4, 3), (12, 2, 2), (16, 4, 1)]
    assert attention.find_runs([0]) == []
    few, many = (
        [attention.SequenceRun(start, 4 + start % 2, 1) for start in range(2 * n)] for n in (4, 5)
    )
    assert [len(group) for group in attention.group_runs(few)] == [1] * 8
    assert [len(group) for group in attention.group_runs(many)] == [5, 5]


def test_packed_attention_is_that_of_each_sequence():
    """Runs of one length that are called one by one, and others that are joined."""
    lengths = [3, 3, 5, 3, 5, 3, 7, 3, 7, 3, 3, 5]
    ends = np.cumsum([0, *lengths])
    torch.manual_seed(0)
    q, k, v = torch.randn(3, 1, 2, ends[-1], 8).unbind(0)
    found, _ = attention.packed_attention(None, q, k, v, cu_seq_lens_q=ends, scaling=0.3)
    for start, end in pairwise(ends):
        one = (tensor[:, :, start:end] for tensor in (q, k, v))
        alone = torch.nn.functional.scaled_dot_product_attention(*one, scale=0.3)
        assert torch.allclose(found[:, start:end], alone.transpose(1, 2), atol=1e-6)


@pytest.mark.parametrize("kept", [False, True])
@pytest.mark.parametrize("padded", [False, True])
def test_a_forward_pass_reads_no_tensor(tiny, kept, padded):
    """On fake tensors whoever reads a number raises: on a GPU it would wait there."""
    model, seen = loaded(tiny), seeing(tiny)
    pictures = shown() if padded else [shown()[0], shown()[0]]
    said = SAID if padded else [SAID[0], SAID[0]]
    seen.layout = QwenInputLayout.from_model(model, seen.processor)
    tower = ModelVisionTower(model, seen)
    form = Form.from_output(tower.image_features(shown()[0]))
    rows = torch.cat([tower.encode(one, form) for one in pictures]) if kept else None
    batch = seen.to_device(seen.collate(said, pictures, rows, ahead=True))
    assert (FEATURES in batch.vision, PIXELS in batch.vision) == (kept, not kept)
    assert batch.padded is padded
    with FakeTensorMode(allow_non_fake_inputs=True) as mode, torch.no_grad():
        fake = map_tensors(batch, mode.from_tensor)
        made = Answerer(model, form)(fake.inputs(), fake.labels)[0]
    assert made.shape == (2,)


def test_transformers_own_way_reads_some(tiny):
    """What the test above would see."""
    model, seen = loaded(tiny), seeing(tiny)
    batch = seen.to_device(seen.collate(SAID, shown(), None, ahead=True))
    reading = pytest.raises((RuntimeError, NotImplementedError, ValueError))
    with reading, FakeTensorMode(allow_non_fake_inputs=True) as mode:
        fake = map_tensors(batch, mode.from_tensor)
        Answerer(model)(fake.inputs(), fake.labels)


def test_the_whole_mask_is_transformers_own(tiny):
    from transformers.masking_utils import create_causal_mask

    model, seen = loaded(tiny), seeing(tiny)
    batch = seen.collate(SAID, shown(), None, ahead=False)
    embeds = model.get_input_embeddings()(batch.ids)
    theirs = create_causal_mask(
        config=model.model.language_model.config, inputs_embeds=embeds, attention_mask=batch.mask,
        past_key_values=None, position_ids=None,
    )  # fmt: skip
    assert theirs.equal(causal_mask(batch.mask))


def test_as_many_features_as_tokens_or_an_error(tiny):
    model, seen = loaded(tiny), seeing(tiny)
    layout = QwenInputLayout.from_model(model, seen.processor)
    whole = seen.collate(SAID, shown(), None, ahead=False)
    assert {TYPES, GRID} <= whole.vision.keys()
    with pytest.raises(ValueError, match="7 rows of pictures for 189 tokens of 756 patches"):
        layout.add_inputs(whole.with_vision({TYPES: whole.vision[TYPES], GRID: whole.vision[GRID],
                                       FEATURES: torch.zeros(7, 32)}))  # fmt: skip
