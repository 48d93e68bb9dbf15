"""Every family against the library it is built on, and the shapes of all that settings make."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import CLIPModel, MetaClip2Model, Siglip2Model, SiglipModel

from engines import model_catalog
from engines.emitter import Emitter, EngineError
from engines.retrieval import Params
from engines.retrieval.data.items import ArrayItems, TokenItems
from engines.retrieval.data.pairs import NONE, ItemInputs, ItemRows
from engines.retrieval.index.joint_encoding import JointCorpusEncoder
from engines.retrieval.loss import contrastive
from engines.retrieval.models import export, factory, frozen_towers, tokenizer
from engines.retrieval.models.encoder import (
    DualEncoder,
    count_parameters,
    count_tower_parameters,
    l2_normalize,
)
from engines.torchkit.checkpointing import checkpoints
from engines.torchkit.runtime.precision import Precision
from tests.engines.families import (
    FOLDERS,
    TEXTS,
    clip_folder,
    fastvit_folder,
    plain_vit_folder,
    siglip_folder,
    timm_vit_folder,
)


@pytest.fixture(scope="module", params=FOLDERS)
def family(request, tmp_path_factory):
    """(name, folder, the library's own model)."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp(request.param)
    return request.param, folder, FOLDERS[request.param](folder)


def opened(folder: Path, **settings) -> tuple[DualEncoder, tokenizer.TextTokenizer, Params]:
    entry = model_catalog.load(f"path:{folder}")
    assert model_catalog.find_problem(entry) is None
    params = Params(**{**entry.settings, **settings})
    words = tokenizer.load_model_tokenizer(folder, entry.family)
    model = factory.from_folder(entry, folder, words, params)
    factory.configure_model(model, entry, params, words)
    return model.eval(), words, params


def token_ids(words: tokenizer.TextTokenizer, params: Params) -> torch.Tensor:
    items = TokenItems.tokenize(TEXTS, words.tokenizer, params.max_length, words.pad)
    items.length = words.length
    return items.gather(np.arange(3))


def pictures(params: Params, count: int = 3) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    size = (count, params.image_size, params.image_size, 3)
    return torch.randint(0, 256, size, dtype=torch.uint8, generator=generator)


def own_logits(name: str, model, ids, images, mean, std) -> torch.Tensor:
    """Texts x images by the library's forward, from its own kind of pixels."""
    pixels = (images.permute(0, 3, 1, 2) / 255 - torch.tensor(mean)[:, None, None]) / torch.tensor(
        std
    )[:, None, None]
    if name == "naflex":
        from transformers.models.siglip2.image_processing_siglip2 import convert_image_to_patches

        patches = torch.stack([convert_image_to_patches(p, 16) for p in pixels])
        side = images.shape[1] // 16
        shapes = torch.tensor([[side, side]] * len(images))
        mask = torch.ones(patches.shape[:2], dtype=torch.long)
        out = model(input_ids=ids, pixel_values=patches, pixel_attention_mask=mask,
                    spatial_shapes=shapes)  # fmt: skip
        return out.logits_per_text
    if name in ("clip", "metaclip", "siglip"):
        return model(input_ids=ids, pixel_values=pixels).logits_per_text
    seen, read, scale = model(pixels, ids)
    return scale * read @ seen.T


STATISTICS = {
    "clip": ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)),
    "metaclip": ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)),
    "siglip": ((0.5, 0.4, 0.3), (0.5, 0.25, 0.2)),
    "naflex": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
}


@torch.inference_mode()
def test_logits_are_the_librarys_own(family):
    name, folder, reference = family
    model, words, params = opened(folder)
    ids, images = token_ids(words, params), pictures(params)
    mean, std = STATISTICS.get(name, ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)))
    expected = own_logits(name, reference, ids, images, mean, std)
    texts, seen = (
        l2_normalize(model.embed_texts(ids, "query")),
        l2_normalize(model.embed_images(images, "passage")),
    )
    found = reference.logit_scale.exp() * texts @ seen.T
    if getattr(reference, "logit_bias", None) is not None:
        found = found + reference.logit_bias
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    facts = factory.describe_model(model, params)
    assert facts["normalisation"].startswith("mean " + f"{mean[0]:.4g}")
    counted = sum(p.numel() for p in reference.parameters())
    own = 1 if getattr(reference, "logit_bias", None) is not None else 0  # not with softmax
    assert count_parameters(model)[0] == counted - own
    counts = count_tower_parameters(model)
    assert counts["other"] == 1, "the temperature"
    assert counts["text"] + counts["vision"] + 1 == count_parameters(model)[0]


def test_a_trained_encoder_is_loaded_by_its_own_library(family, tmp_path):
    """From its folder alone, after training moved every weight: equal logits, nothing missing."""
    name, folder, _ = family
    model, words, params = opened(folder)
    if name in ("siglip", "naflex"):  # trained with SigLIP's loss, which has a bias of its own
        model.bias = torch.nn.Parameter(torch.tensor(model.initial_bias))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.01)
    entry = model_catalog.load(f"path:{folder}")
    made = export.make_encoder_folder(model, entry, params, folder, "")
    out = tmp_path / "encoder"
    checkpoints.write_folder(out, {made.file: made.tensors}, made.texts)
    assert json.loads((out / "workbench.json").read_text())["from_pretrained_gives_the_same"]
    kinds = {
        "clip": CLIPModel, "metaclip": MetaClip2Model, "siglip": SiglipModel,
        "naflex": Siglip2Model,
    }  # fmt: skip
    if name in kinds:
        kind = kinds[name]
        library, found = kind.from_pretrained(out, output_loading_info=True)
        assert not found["missing_keys"]
        assert not found["unexpected_keys"]
    else:
        import open_clip

        library = open_clip.create_model(f"local-dir:{out}", require_pretrained=True)
    ids, images = token_ids(words, params), pictures(params)
    mean, std = STATISTICS.get(name, ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)))
    with torch.inference_mode():
        expected = own_logits(name, library.eval(), ids, images, mean, std)
        texts, seen = (
            l2_normalize(model.embed_texts(ids, "query")),
            l2_normalize(model.embed_images(images, "")),
        )
        logits = model.log_scale.exp() * texts @ seen.T + (0 if model.bias is None else model.bias)
        torch.testing.assert_close(logits, expected, atol=1e-4, rtol=1e-4)
        again, _, _ = opened(out)
        torch.testing.assert_close(again.embed_texts(ids, "query"), model.embed_texts(ids, "query"))


@torch.inference_mode()
def test_the_last_layer_alone_is_the_towers_own_output(family):
    _, folder, _ = family
    model, words, params = opened(folder)
    ids, images = token_ids(words, params), pictures(params)
    own = model.embed_texts(ids, "query"), model.embed_images(images, "query")
    model.text_layers = (model.text_blocks - 1,)
    torch.testing.assert_close(model.embed_texts(ids, "query"), own[0], atol=1e-5, rtol=1e-4)
    if model.vision_blocks:
        model.vision_layers = (model.vision_blocks - 1,)
        torch.testing.assert_close(
            model.embed_images(images, "query"), own[1], atol=1e-5, rtol=1e-4
        )


@torch.inference_mode()
def test_tokens_of_a_convolutional_tower_average_to_its_own_output(tmp_path):
    fastvit_folder(tmp_path)
    model, _, params = opened(tmp_path, scoring="late")
    images = pictures(params, 2)
    tokens = model.embed_images(images, "query")
    assert tokens.shape == (2, 4, 48), "2 x 2 places"
    torch.testing.assert_close(
        tokens.mean(1), model.vision_tower.forward(images), atol=1e-5, rtol=1e-4
    )


MIXED = {
    "mean-pooled": {}, "mean-late": {"scoring": "late"},
    "recurrent-pooled": {"layer_fusion": "recurrent"},
    "recurrent-late": {"layer_fusion": "recurrent", "scoring": "late"},
}  # fmt: skip


@pytest.mark.parametrize("layers", [[], [3, 7, 11]], ids=["own", "3-7-11"])
@pytest.mark.parametrize("mixed", MIXED)
def test_shapes_of_every_encoder(family, mixed, layers):
    """Family x layers x fusion x scoring; with one modality missing; gradients to what is used."""
    name, folder, _ = family
    if name == "pe-core":
        pytest.skip("576 patches, and the shapes of timm-vit")
    settings = {**MIXED[mixed], "layers": layers, "fusion_width": 64, "fusion_queries": 5,
                "late_width": 24}  # fmt: skip
    recurrent = "recurrent" in mixed
    if recurrent and (not layers or name == "fastvit"):
        with pytest.raises(EngineError, match="layer_fusion = recurrent"):
            opened(folder, **settings)
        return
    model, words, params = opened(folder, **settings)
    if layers and name == "clip":
        assert (model.text_layers, model.vision_layers) == ((2, 5, 8), (3, 7, 11))
    ids, images = token_ids(words, params)[:2], pictures(params, 2)
    inputs = ItemInputs(3, ids, torch.tensor([0, 1]), images, torch.tensor([1, 2]))
    items = model.train().encode_items(inputs, "query")
    tokens = 5 if recurrent else ids_and_patches(model, params, words)
    width = 24 if recurrent else {"clip": 48, "siglip": 64, "naflex": 64}.get(name, 48)
    assert items.shape == ((3, tokens, width) if "late" in mixed else (3, width))
    norms = items.norm(dim=-1)
    there = norms > 0
    torch.testing.assert_close(norms[there], torch.ones_like(norms[there]))
    assert there.any(-1).all() if "late" in mixed else there.all()
    loss, _ = contrastive(items, items.flip(0), torch.eye(3, dtype=torch.bool), model.scale())
    loss.backward()
    unused = [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None]
    if recurrent:  # heads and projections of the towers lie behind the layers that are read
        assert not any(n.startswith("fusion") for n in unused)
    elif not layers and mixed == "mean-pooled":
        assert not unused


def ids_and_patches(model: DualEncoder, params: Params, words: tokenizer.TextTokenizer) -> int:
    shape = model.late_shape
    assert not model.late or shape.texts == (words.length or params.max_length)
    return shape.texts + shape.images


def test_a_late_item_without_a_text_has_the_image_tokens_alone(tmp_path):
    clip_folder(tmp_path)
    model, words, params = opened(tmp_path, scoring="late", max_length=12)
    ids, images = token_ids(words, params), pictures(params, 1)
    none = torch.zeros(0, dtype=torch.long)
    image = model.encode_items(ItemInputs(1, ids[:0], none, images, torch.tensor([0])), "query")
    text = model.encode_items(ItemInputs(1, ids[:1], torch.tensor([0]), images[:0], none), "query")
    assert image.shape == text.shape == (1, 12 + 5, 48)
    assert (image[0].norm(dim=-1) > 0).tolist() == [False] * 12 + [True] * 5
    length = int((ids[0] == words.tokenizer.get_vocab_size() - 1).int().argmax()) + 1
    assert (text[0].norm(dim=-1) > 0).sum() == length


def test_pictures_are_encoded_where_no_item_has_a_text(tmp_path):
    clip_folder(tmp_path)
    model, words, params = opened(tmp_path, scoring="late", max_length=12)
    texts = TokenItems.tokenize([], words.tokenizer, 12, words.pad)
    images = ArrayItems([pictures(params, 2).numpy()])
    encoder = JointCorpusEncoder(model, Precision("fp32", torch.device("cpu")), 8, Emitter())
    found = encoder.encode(ItemRows(np.full(2, NONE), np.arange(2)), "query", texts, images).fuse()
    assert (found.norm(dim=-1) > 0).tolist() == [[False] * 12 + [True] * 5] * 2


# Words


def test_siglip_texts_are_lower_case_without_punctuation_and_padded_as_trained(tmp_path):
    siglip_folder(tmp_path)
    words = tokenizer.load_model_tokenizer(tmp_path, "siglip")
    assert (words.pad, words.length) == (1, 16)
    ids = token_ids(words, Params(max_length=16))
    assert ids.shape == (3, 16)
    told = [words.tokenizer.id_to_token(int(i)) for i in ids[0]]
    assert told == ["a", "red", "disc", "</s>", *["</s>"] * 12]


def test_clip_words_are_those_of_open_clip(tmp_path):
    open_clip = pytest.importorskip("open_clip")
    plain_vit_folder(tmp_path)
    words = tokenizer.load_model_tokenizer(tmp_path, "open-clip")
    texts = ["A red  Disc, isn't it?", "낙타 🐫 ½ café №5", "word " * 100, "x", "don't/can_t #1"]
    items = TokenItems.tokenize(texts, words.tokenizer, 77, words.pad)
    items.length = words.length
    expected = open_clip.tokenizer.SimpleTokenizer()(texts)
    assert torch.equal(items.gather(np.arange(len(texts))), expected)


# Refusals


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        (
            {"layers": [3, 12]},
            r"layers = \[3, 12\]: 12 is out of range; .* 0 to 11 .the text tower has 9",
        ),
        (
            {"text_layers": [9]},
            r"text_layers = \[9\]: 9 .* text tower has 9 blocks and takes 0 to 8",
        ),
        ({"vision_layers": [-1]}, r"vision_layers = \[-1\]: -1 .* vision tower has 12 blocks"),
        ({"layer_fusion": "recurrent"}, "as many text as vision layers, and there are 0 and 0"),
        (
            {"layer_fusion": "recurrent", "text_layers": [1], "vision_layers": [1, 2]},
            r"there are 1 and 2; .*text_layers \(0 to 8\) and vision_layers \(0 to 11\)",
        ),
        ({"layer_fusion": "recurrent", "layers": [1], "fusion_width": 100}, "multiple of 64"),
        ({"max_length": 78}, "max_length = 78: .* takes at most 77"),
        ({"freeze_towers": True}, "leaves nothing to train"),
    ],
)
def test_settings_that_do_not_fit_are_named(tmp_path, settings, sentence):
    clip_folder(tmp_path)
    with pytest.raises(EngineError, match=sentence):
        opened(tmp_path, **settings)


def test_refusals_of_other_families(tmp_path):
    fastvit_folder(tmp_path)
    with pytest.raises(EngineError, match="image_size = 128: .* takes 64 only"):
        opened(tmp_path, image_size=128)
    with pytest.raises(EngineError, match="grad_cache_chunk = 8: .* normalises over the batch"):
        opened(tmp_path, grad_cache_chunk=8)
    with pytest.raises(EngineError, match="vision_layers = .* has no blocks"):
        opened(tmp_path, vision_layers=[1])
    model = frozen_towers.HeadEncoder({"hidden": 8, "projection": 8}, 0.07)
    entry = model_catalog.load("effnet-minilm")
    for settings, sentence in (
        ({"scoring": "late"}, "keeps one vector per text and image"),
        ({"layer_fusion": "recurrent", "layers": [1]}, "gives no blocks to read"),
    ):
        with pytest.raises(EngineError, match=sentence):
            factory.configure_model(model, entry, Params(**settings), None)


def test_folders_that_are_not_a_model_are_named(tmp_path):
    (tmp_path / "open_clip_config.json").write_text(json.dumps({"model_cfg": {}}))
    assert "lacks open_clip_model.safetensors" in model_catalog.find_problem(
        model_catalog.load(f"path:{tmp_path}")
    )
    (tmp_path / "open_clip_pytorch_model.bin").touch()
    assert "only pickled weights" in model_catalog.find_problem(
        model_catalog.load(f"path:{tmp_path}")
    )
    (tmp_path / "open_clip_config.json").write_text("[]")
    with pytest.raises(LookupError, match="is not JSON"):
        model_catalog.load(f"path:{tmp_path}")
    with pytest.raises(LookupError, match="not in the local hub cache"):
        model_catalog.load("hub:nobody/nothing")


def test_a_repository_in_the_hub_cache_by_its_name(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    repo = tmp_path / "models--some--siglip"
    snapshot = repo / "snapshots" / ("a" * 40)
    snapshot.mkdir(parents=True)
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text("a" * 40)
    siglip_folder(snapshot)
    entry = model_catalog.load("hub:some/siglip")
    assert (entry.family, entry.settings) == ("siglip", {"image_size": 48, "max_length": 16})
    assert model_catalog.find_problem(entry) is None
    assert model_catalog.cached_revision(entry) == "a" * 40
    assert model_catalog.load("hub:some/siglip@" + "a" * 40).family == "siglip"


def test_frozen_towers_neither_learn_nor_drift(tmp_path):
    """MobileCLIP-B's kind of stem has batch norms: their statistics stay too."""
    timm_vit_folder(tmp_path)
    model, words, params = opened(
        tmp_path, layer_fusion="recurrent", layers=[3, 11], fusion_width=64, freeze_towers=True
    )
    counts = count_tower_parameters(model)
    assert count_parameters(model)[1] == counts["fusion"] + counts["other"]
    model.train()
    assert model.fusion.training
    assert not any(m.training for m in (*model.text_tower.modules(), *model.vision_tower.modules()))
    ids, images = token_ids(words, params), pictures(params)
    every = torch.arange(3)
    items = model.encode_items(ItemInputs(3, ids, every, images, every), "query")
    contrastive(items, items, torch.eye(3, dtype=torch.bool), model.scale())[0].backward()
    learned = {n.split(".")[0] for n, p in model.named_parameters() if p.grad is not None}
    assert learned == {"fusion", "log_scale"}
