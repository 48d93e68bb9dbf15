"""A checkpoint belongs to its data, settings and code; resume checks all three."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from engines import model_catalog
from engines.emitter import Emitter, EngineError
from engines.retrieval.data.pairs import NONE, ItemRows, TrainingPairs
from engines.retrieval.prepare import decode_images
from engines.torchkit.checkpointing import checkpoints
from engines.torchkit.checkpointing.trained_tensors import load_trained, trainable_tensors
from engines.torchkit.checkpointing.training_identity import (
    NEUTRAL,
    TrainingIdentity,
    fingerprint_samples,
    model_digest,
    source_digest,
)
from tests.engines.torchkit.training.test_loop import job, run

IDENTITY = TrainingIdentity(
    "data-1", 50, "settings-1", "code-1", "model-1", {"prompt": "a", "ranks": 2}
)


def interrupted(root: Path, identity: TrainingIdentity | None) -> None:
    """Leaves a checkpoint after step 5."""
    training = job(root, checkpoint_every=5, identity=identity, stop_at=5)
    run(training)
    assert checkpoints.newest_first(root)


def resumed(root: Path, identity: TrainingIdentity) -> tuple[int, list[str]]:
    """First step of the resumed training, and the codes of its notices."""
    emit = Emitter()
    training = job(root, checkpoint_every=5, identity=identity)
    notices: list[str] = []
    emit.notice = lambda code, text: notices.append(code)  # type: ignore[method-assign]
    run(training, emit)
    return len(training.losses), notices


def test_equal_identities_go_on_without_a_word(tmp_path: Path) -> None:
    interrupted(tmp_path, IDENTITY)
    steps, notices = resumed(tmp_path, IDENTITY)
    assert (steps, notices) == (21 - 5, ["resumed"])


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"data": "data-2", "samples": 24}, "50 samples with fingerprint data-1 then, 24 with"),
        ({"settings": "settings-2"}, "settings of the training have changed"),
        ({"model": "model-2"}, "weights, sizes or tokenizer of the model"),
        (
            {"training": {"prompt": "b", "ranks": 2, "new": 1}},
            'have changed since this checkpoint: prompt "a" then, "b" now; set them back',
        ),
    ],
)
def test_other_data_or_settings_are_refused(
    tmp_path: Path, change: dict[str, object], sentence: str
) -> None:
    interrupted(tmp_path, IDENTITY)
    with pytest.raises(EngineError, match=sentence):
        resumed(tmp_path, replace(IDENTITY, **change))


def test_other_code_and_a_checkpoint_of_version_0_1_are_noted(tmp_path: Path) -> None:
    interrupted(tmp_path / "code", IDENTITY)
    assert resumed(tmp_path / "code", replace(IDENTITY, code="code-2"))[1] == [
        "checkpoint-changed",
        "resumed",
    ]
    interrupted(tmp_path / "old", None)
    assert "identity" not in json.loads(
        (checkpoints.newest_first(tmp_path / "old")[0] / "state.json").read_text()
    )
    assert resumed(tmp_path / "old", IDENTITY)[1] == ["checkpoint-changed", "resumed"]


def test_settings_that_change_no_step_are_not_part_of_it() -> None:
    from engines.retrieval import Params

    def identity(**params: object) -> TrainingIdentity:
        return TrainingIdentity.of_run(Params(**params), 42, 64, "d", 10)

    same = identity(eval_batch_size=7, num_workers=3, checkpoint_every=9, grad_cache_chunk=4)
    assert same == identity()
    for other in ({"lr": 1e-3}, {"epochs": 2}, {"max_steps": 3}, {"weight_decay": 0.2}):
        assert identity(**other).settings != identity().settings


def test_checkpoints_with_earlier_names_of_settings_resume() -> None:
    from engines.vqa import Params

    stored = json.loads(json.dumps(TrainingIdentity.of_run(Params(), 42, 64, "d", 10).as_state()))
    digest = "5331d0d08fa88c5be689bd1e2449d5133ea973264f060b5669335c473b9325cc"
    assert stored["settings"] == digest, "as version 0.1 wrote it"
    for earlier, name in (
        ("clip_norm", "max_grad_norm"),
        ("look_every_epochs", "validate_every_epochs"),
    ):
        stored["training"][earlier] = stored["training"].pop(name)
    same = TrainingIdentity.of_run(Params(), 42, 64, "d", 10)
    assert same.check(stored, Path("c")) == ""
    other = TrainingIdentity.of_run(Params(validate_every_epochs=2), 42, 64, "d", 10)
    with pytest.raises(EngineError, match="validate_every_epochs 1 then, 2 now"):
        other.check(stored, Path("c"))


def test_settings_of_an_engine_are_part_of_it() -> None:
    from engines.captioning import Params as Captioning
    from engines.retrieval import Params as Retrieval
    from engines.vqa import Params as Vqa

    def identity(params: object) -> TrainingIdentity:
        return TrainingIdentity.of_run(params, 42, 64, "d", 10)

    pairs: list[tuple[object, object]] = [
        (Retrieval(), Retrieval(temperature=0.2)),
        (Retrieval(), Retrieval(max_length=9)),
        (Retrieval(), Retrieval(modality_dropout=0.5)),
        (Captioning(), Captioning(prompt="Describe it.")),
        (Captioning(), Captioning(lora_rank=8)),
        (Captioning(), Captioning(schedule="constant")),
        (Vqa(), Vqa(fold=1, folds=3)),
        (Vqa(), Vqa(shuffle_choices=not Vqa().shuffle_choices)),
    ]
    for one, other in pairs:
        with pytest.raises(EngineError, match="settings of the training have changed"):
            identity(other).check(json.loads(json.dumps(identity(one).as_state())), Path("c"))
    same = Vqa(tta_options=not Vqa().tta_options, eval_batch_size=3)
    assert identity(same).check(identity(Vqa()).as_state(), Path("c")) == ""


def test_every_neutral_setting_is_one_of_an_engine() -> None:
    from engines import catalog

    known = {
        name for engine in catalog.names() for name in catalog.load(engine).Params.model_fields
    }
    assert known >= NEUTRAL


def weights(folder: Path, seed: int) -> Path:
    """A model's folder with 3 MB of weights."""
    folder.mkdir()
    (folder / "config.json").write_text('{"layers": 2}')
    content = np.random.default_rng(seed).integers(0, 256, 3_000_000, np.uint8)
    (folder / "model.safetensors").write_bytes(content.tobytes())
    return folder


def test_a_model_is_known_by_its_files_wherever_they_lie(tmp_path: Path) -> None:
    def digest(folder: Path, **params: str) -> str:
        entry = model_catalog.ModelEntry(name=folder.name, family="clip", path=str(folder))
        return model_digest(entry, SimpleNamespace(**params))

    first = digest(weights(tmp_path / "a", 1))
    assert digest(weights(tmp_path / "moved", 1)) == first
    assert digest(weights(tmp_path / "tuned", 2)) != first
    (tmp_path / "a" / "config.json").write_text('{"layers": 3}')
    assert digest(tmp_path / "a") != first
    assert digest(tmp_path / "moved", llm=f"path:{tmp_path / 'tuned'}") != first
    assert digest(tmp_path / "gone") != first, "its absence is said by who loads it"
    entry = model_catalog.ModelEntry(name="x", family="clip")
    states = [{"files": {"model.safetensors": {"sha256": c}}} for c in "ab"]
    assert len({model_digest(entry, None, state) for state in states}) == 2


def test_a_checkpoint_of_another_model_is_refused_and_not_partly_loaded(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 1))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    own = dict(trainable_tensors(model))
    for tensors in (
        {},
        {f"module.{name}": tensor for name, tensor in own.items()},
        {**own, "2.weight": torch.zeros(1)},
        {**own, "1.weight": torch.zeros(2, 3)},
    ):
        with pytest.raises(EngineError, match="is a checkpoint of another model"):
            load_trained(model, tensors, tmp_path)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    load_trained(model, {name: torch.ones_like(tensor) for name, tensor in own.items()}, tmp_path)
    assert float(model[1].bias.detach()) == 1.0


def test_a_picture_that_was_replaced_is_other_data(tmp_path: Path) -> None:
    """Under the same name, at the same size: records and rows do not tell."""

    def paint(name: str, colour: str) -> None:
        (tmp_path / "pictures").mkdir(exist_ok=True)
        Image.new("RGB", (8, 8), colour).save(tmp_path / "pictures" / name)

    def contents() -> str:
        rows = np.array([0, NONE]), np.array([1, NONE])
        pool = SimpleNamespace(
            queries=SimpleNamespace(images=rows[0]), positives=SimpleNamespace(images=rows[1])
        )
        strings = SimpleNamespace(
            images={n: f"{tmp_path / 'pictures'}\0{n}" for n in ("a.png", "b.png", "test.png")}
        )
        data = SimpleNamespace(pairs=pool, vocabularies=strings, image_rows=list)
        run = SimpleNamespace(
            params=SimpleNamespace(image_size=16), cache_root=tmp_path / "cache",
            report_progress=None, emit=Emitter(),
        )  # fmt: skip
        return decode_images(run, data)[1]  # type: ignore[arg-type]

    for name in ("a.png", "b.png", "test.png"):
        paint(name, "red" if name == "a.png" else "blue")
    before = contents()
    paint("test.png", "green")  # evaluated on only
    assert contents() == before
    for file in (tmp_path / "pictures").iterdir():
        os.utime(file, (1, 1))  # git, `cp -r`: the same contents at other times
    assert contents() == before
    (tmp_path / "pictures").rename(tmp_path / "moved")
    (tmp_path / "pictures").symlink_to("moved")
    assert contents() == before
    paint("b.png", "green")
    after = contents()
    assert after != before
    rows = np.arange(2)
    pool = TrainingPairs(ItemRows(rows, rows), ItemRows(rows, rows), rows, np.arange(3))
    assert pool.digest("f", before) != pool.digest("f", after)


def test_a_picture_that_can_no_longer_be_read_is_other_data() -> None:
    rows = np.arange(3)
    whole = TrainingPairs(ItemRows(rows, rows), ItemRows(rows, rows), rows, np.arange(4))
    lost = TrainingPairs(
        ItemRows(rows, np.array([0, NONE, 2])), ItemRows(rows, rows), rows, np.arange(4)
    )
    assert whole.digest("f") == whole.digest("f")
    assert lost.digest("f") != whole.digest("f")
    assert whole.digest("g") != whole.digest("f")


def test_digests_keep_parts_apart() -> None:
    assert fingerprint_samples("f", ["ab", "c"]) != fingerprint_samples("f", ["a", "bc"])
    assert len(source_digest()) == 64
