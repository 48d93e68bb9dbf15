"""Checkpoints that are damaged, half written, late or impossible, and what a resumed run does."""

import errno
import json
import os
import shutil
import signal
import stat
import threading
import time

import pytest
import torch
from safetensors.torch import load_file

from engines.emitter import Emitter
from engines.torchkit.checkpointing import checkpoints
from engines.torchkit.checkpointing.trained_tensors import trainable_tensors
from engines.torchkit.data.data_loader import EpochPermutation, Loader
from engines.torchkit.training import job_checkpoints
from tests.engines.torchkit.training.test_loop import EPOCHS, job, run


def saved(root, step, value):
    """A checkpoint by the code under test."""
    folder = checkpoints.step_folder(root, step)
    checkpoints.save(folder, {"model": {"w": torch.full((3000,), value)}}, {"step": step})
    return folder


@pytest.mark.parametrize("harm", ["cut", "flip", "remove", "state"])
def test_a_damaged_checkpoint_is_passed_over_for_an_older_one(tmp_path, harm):
    run(job(tmp_path, checkpoint_every=10))
    newest = checkpoints.newest_first(tmp_path)[0]
    old = tmp_path / "step-000000001"
    shutil.copytree(newest, old)
    state = json.loads((old / "state.json").read_text())
    (old / "state.json").write_text(json.dumps({**state, "step": 1}))
    file = newest / ("state.json" if harm == "state" else "optimizer.safetensors")
    data = bytearray(file.read_bytes())
    data[-3] ^= 0xFF
    {
        "cut": lambda: file.write_bytes(data[:-1]),
        "flip": lambda: file.write_bytes(data),  # the same size: only the hash can tell
        "state": lambda: file.write_bytes(data[:20]),
        "remove": file.unlink,
    }[harm]()
    emit = Emitter()
    assert job_checkpoints.resume(job(tmp_path), emit) == 1
    notices = [m for m in emit.sent if m.kind == "notice"]
    assert [m.code for m in notices] == ["checkpoint-damaged", "resumed"]
    assert str(file) in notices[0].text


def test_a_tensor_is_copied_after_the_one_before_it_is_written(tmp_path, monkeypatch):
    """So that saving from a GPU needs no copy of the model in memory."""
    path, sizes, raw_bytes = tmp_path / "model.safetensors", [], checkpoints.raw_bytes

    def copy(tensor):
        sizes.append(path.stat().st_size if path.exists() else 0)
        return raw_bytes(tensor)

    monkeypatch.setattr(checkpoints, "raw_bytes", copy)
    tensors = {name: torch.randn(256, 256) for name in "abc"}
    checkpoints.write_safetensors(path, tensors)
    assert sizes[1] - sizes[0] >= 256 * 256 * 4
    assert sizes[2] - sizes[1] == 256 * 256 * 4
    assert all(torch.equal(load_file(path)[name], tensors[name]) for name in tensors)


def test_kill_9_while_saving_leaves_the_old_checkpoint_or_the_new_one(tmp_path):
    """20 moments all over the save of 5 MB, each killed in a child of its own."""
    old, tensors = saved(tmp_path, 1, 1.0), {"model": {"w": torch.zeros(1_300_000)}}
    began = time.monotonic()
    checkpoints.save(tmp_path / "measure", tensors, {"step": 2})
    whole = time.monotonic() - began
    taken = []
    for number in range(20):
        child = os.fork()
        if child == 0:
            checkpoints.save(checkpoints.step_folder(tmp_path, 2), tensors, {"step": 2})
            os._exit(0)
        time.sleep(whole * number / 20)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        newest = checkpoints.newest_first(tmp_path)[0]
        assert checkpoints.find_problem(newest) == ""
        taken.append(json.loads((newest / "state.json").read_text())["step"])
        shutil.rmtree(checkpoints.step_folder(tmp_path, 2), ignore_errors=True)
    assert 1 in taken, "some died before the end"
    assert old.is_dir()


@pytest.mark.parametrize("error", [errno.EINVAL, errno.ENOTSUP])
def test_a_file_system_without_fsync_of_folders_keeps_checkpoints(tmp_path, monkeypatch, error):
    fsync = os.fsync

    def of_files_only(fd):
        if stat.S_ISDIR(os.fstat(fd).st_mode):
            raise OSError(error, os.strerror(error))
        fsync(fd)

    monkeypatch.setattr(os, "fsync", of_files_only)
    assert checkpoints.find_problem(saved(tmp_path, 3, 1.0)) == ""


def test_checkpoints_come_by_the_clock_too(tmp_path, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(job_checkpoints.time, "monotonic", lambda: now[0])
    steps = []

    def advance(training, step):
        steps.append(step)

    monkeypatch.setattr(job_checkpoints, "save_checkpoint", advance)
    training = job(tmp_path, checkpoint_seconds=25.0)
    inner = training.forward

    def slow(batch):
        now[0] += 10.0
        return inner(batch)

    training.forward = slow
    run(training)
    assert steps == list(range(3, EPOCHS * 7 + 1, 3)), "every third step of ten seconds each"


def test_a_full_disk_costs_a_checkpoint_or_the_run_as_asked(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoints.os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        run(job(tmp_path, checkpoint_every=5))
    training, emit = job(tmp_path, checkpoint_every=10), Emitter()
    training.full_disk_is_fatal = False
    run(training, emit)
    said = [m for m in emit.sent if m.kind == "notice"]
    assert {m.code for m in said} == {"checkpoint-failed"}
    assert len(said) == EPOCHS * 7 // 10
    assert not list(tmp_path.iterdir()), "drafts would keep the disk full"


def test_the_next_checkpoint_removes_the_draft_of_a_killed_process(tmp_path):
    (tmp_path / ".step-000000003.tmp").mkdir()
    checkpoints.remove_others(tmp_path, saved(tmp_path, 5, 1.0))
    assert [folder.name for folder in tmp_path.iterdir()] == ["step-000000005"]


def test_weights_of_the_end_need_no_second_training(tmp_path):
    """Killed during evaluation: the next attempt has nothing left to train."""
    first = job(tmp_path)
    run(first)
    weights = trainable_tensors(first.model)
    checkpoints.save(tmp_path / "last", {"model": weights}, {"step": first.steps})
    second, emit = job(tmp_path), Emitter()
    second.model[0].weight.data.zero_()
    assert run(second, emit) == []
    assert torch.equal(second.model[0].weight, first.model[0].weight)
    longer = job(tmp_path)
    longer.steps += 1
    assert job_checkpoints.resume(longer, Emitter()) == 0, "weights alone cannot be trained on"


def test_a_loader_thread_that_fails_ends_the_run_with_its_error():
    """Workers are threads: none can be killed alone, and what one raises reaches the loop."""

    def gather(rows, _epoch):
        if 7 in rows:
            raise OSError(5, "the disk under the cache is gone")
        return rows

    loader = Loader(EpochPermutation(50, 8, 1, seed=3), gather, num_workers=2)
    batches = loader.batches(0, 7)
    with pytest.raises(OSError, match="under the cache"):
        [batch.result() for batch in batches]
    batches.close()
    assert not [t for t in threading.enumerate() if t.name.startswith("loader")]
