"""Large models of the GPU tests are written once, in bf16, and removed: 60 GB would not fit."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from engines import model_catalog
from engines.retrieval.memory import model_from_config
from tests.engines import captioning_step, vqa_step
from tests.engines.captioning.memory import test_estimate_gpu as test_fit_captioning_gpu
from tests.engines.random_models import SPARE_BYTES, ModelFolders, bytes_of
from tests.engines.retrieval.memory.test_estimate_gpu import SHAPES as RETRIEVAL
from tests.engines.vqa.memory import test_estimate_gpu as test_fit_gpu

DISK = 16e9
"""What the GPU tests may need at any time: a quarter of a small disk of 64 GB."""

SMALL = vqa_step.Shape("small", {"quantize": "none", "long_side": 56})


def test_models_of_the_gpu_tests_fit_a_small_disk():
    """Counted over distinct configurations, as `ModelFolders` writes them."""
    vqa = {str(s.config()): (vqa_step.AUTO, s.config()) for s in test_fit_gpu.SHAPES}
    captioning = {str(c): c for s in test_fit_captioning_gpu.SHAPES for c in s.configs()}
    for configs in (vqa, captioning):
        assert sum(bytes_of(*config) for config in configs.values()) < DISK
    assert len(vqa) == 1
    assert len(captioning) == 2
    assert bytes_of(*vqa.popitem()[1]) == pytest.approx(7.5e9, rel=0.02)


def test_retrieval_models_of_the_gpu_tests_fit_a_small_disk():
    """In fp32, as retrieval loads them; folders are shared by all shapes of a model."""
    sizes = {}
    for name in {shape.family for shape in RETRIEVAL}:
        entry = model_catalog.load(name)
        params = RETRIEVAL[0].params(entry)
        shape = model_from_config.find_model_shape(entry, params)
        sizes[name] = 4 * sum(p.numel() for p in shape.build().parameters())
    assert 1e9 < sum(sizes.values()) < 3e9


def test_shapes_of_equal_sizes_share_a_folder_that_is_removed(tmp_path):
    other = vqa_step.Shape("other", {"quantize": "none", "long_side": 84})
    with ModelFolders(tmp_path) as folders:
        folder = folders.get(vqa_step.AUTO, SMALL.config())
        weights = folder / "model.safetensors"
        written = weights.stat().st_mtime_ns
        assert folders.get(vqa_step.AUTO, other.config()) == folder
        assert weights.stat().st_mtime_ns == written
        tensors = load_file(weights)
        assert {tensor.dtype for tensor in tensors.values()} == {torch.bfloat16}
        assert weights.stat().st_size == pytest.approx(
            bytes_of(vqa_step.AUTO, SMALL.config()), rel=0.02
        )
        step, kept = vqa_step.real(SMALL, folder, torch.device("cpu"))
        step()
        assert kept > 0
    assert not list(tmp_path.iterdir())


def test_captioning_pairs_share_their_folders(tmp_path):
    linear, perceiver = (
        captioning_step.Shape(p, {"projector": p}) for p in ("linear", "perceiver")
    )
    with ModelFolders(tmp_path) as folders:
        pair = captioning_step.shared(linear, folders)
        assert captioning_step.shared(perceiver, folders) == pair
        assert len({part.path for part in pair}) == 2
        assert captioning_step.measured(linear, pair) > 0


def test_a_disk_without_room_is_named_before_anything_is_written(tmp_path, monkeypatch):
    usage = shutil._ntuple_diskusage(1 << 40, 1 << 40, SPARE_BYTES)
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage)
    with ModelFolders(tmp_path) as folders:
        with pytest.raises(OSError, match=r"GB are needed for the model and 1\.1 GB are free"):
            folders.get(vqa_step.AUTO, SMALL.config())
        assert not list(Path(folders.root).iterdir())
