"""torch's allocator on the GPU: segments that grow, where the GPU can and nobody said otherwise."""

import pytest
import torch

from engines.emitter import Emitter
from engines.protocol import RunSpec
from engines.torchkit.runtime import device
from workbench.processes import engine_process

NAMES = ("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_HIP_ALLOC_CONF")
GROWING = "expandable_segments:True"
FIELDS = dict.fromkeys(("suite", "run_id", "engine", "subset", "model", "cache_root"), "x")
CUDA = torch.device("cuda")


def variables(**inherited: str) -> dict[str, str]:
    passed = engine_process.engine_environment(inherited, RunSpec(**FIELDS), "token", 1)
    return {name: value for name, value in passed.items() if name in NAMES}


def test_segments_grow_by_default_under_both_names():
    assert variables() == dict.fromkeys(NAMES[:2], GROWING)


@pytest.mark.parametrize("name", NAMES)
def test_a_persons_own_setting_wins(name):
    assert variables(**{name: "max_split_size_mb:128"}) == {name: "max_split_size_mb:128"}


def test_torch_understands_the_setting_under_both_names():
    """As the warden gives it. In a fresh process; the library parses it when it starts."""
    import subprocess
    import sys

    code = "import torch; print(torch._C._accelerator_getAllocatorSettings())"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True,
        env={"PATH": "/usr/bin:/bin", **variables()}, check=True,
    )  # fmt: skip
    assert done.stdout.strip() == GROWING


@pytest.mark.parametrize(("inherited", "said"), [
    ({}, "default"), ({"PYTORCH_ALLOC_CONF": GROWING}, GROWING),
    ({"PYTORCH_ALLOC_CONF": GROWING, "PYTORCH_CUDA_ALLOC_CONF": "x:1"}, "x:1"),
])  # fmt: skip
def test_the_record_says_the_setting(monkeypatch, inherited, said):
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
    for name, value in inherited.items():
        monkeypatch.setenv(name, value)
    assert device.allocator_settings() == said


def refusing(monkeypatch, words: str) -> list[str]:
    """A GPU whose first allocation fails; the settings that torch is then given."""
    settings: list[str] = []

    def empty(*_, **__):
        if not settings:
            raise RuntimeError(words)

    monkeypatch.setenv("PYTORCH_CUDA_ALLOC_CONF", GROWING)
    monkeypatch.setattr(torch, "empty", empty)
    monkeypatch.setattr(torch.cuda.memory, "_set_allocator_settings", settings.append)
    return settings


def test_a_virtual_gpu_that_cannot_map_memory_goes_on_with_fixed_segments(monkeypatch):
    settings, emit = refusing(monkeypatch, "CUDA driver error: operation not supported"), Emitter()
    device.check_allocator(emit, CUDA)
    assert settings == ["expandable_segments:False"]
    assert device.allocator_settings() == "expandable_segments:False"
    emit.close()
    assert [m.code for m in emit.sent if m.kind == "notice"] == ["segments-fixed"]


@pytest.mark.parametrize("words", ["CUDA driver error: out of memory", "CUDA error: unknown"])
def test_any_other_failure_of_the_first_allocation_is_told_as_it_is(monkeypatch, words):
    settings = refusing(monkeypatch, words)
    with pytest.raises(RuntimeError, match=words):
        device.check_allocator(Emitter(), CUDA)
    assert settings == []


def test_a_gpu_that_can_is_left_alone(monkeypatch):
    monkeypatch.setattr(torch, "empty", lambda *_, **__: None)
    device.check_allocator(Emitter(), CUDA)
