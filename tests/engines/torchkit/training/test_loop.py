"""The training loop against a plain loop that anybody can read; resume against no interruption."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from engines.emitter import Emitter, EngineError, Stopped
from engines.torchkit.checkpointing import checkpoints
from engines.torchkit.data.data_loader import EpochPermutation, Loader
from engines.torchkit.modeling.master_weights import Replica
from engines.torchkit.runtime.model_flops import WorkMeter
from engines.torchkit.runtime.precision import Precision
from engines.torchkit.training import compilation, loop
from engines.torchkit.training.optimization import adamw, decay_groups, warmup_cosine, warmup_steps
from engines.torchkit.training.stage_position import EpochEnd
from engines.torchkit.training.step_timing import HostStopwatch, StepTimer, TimingSummary
from engines.torchkit.training.weight_averaging import Ema

CPU = torch.device("cpu")
ROWS, BATCH, EPOCHS = 50, 8, 3


def network(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(5, 16), nn.Tanh(), nn.Dropout(0.2), nn.Linear(16, 1))


def points() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(ROWS, 5, generator=generator)
    return x, x.sum(1, keepdim=True).sin()


def job(
    root: Path | None = None, *, gradient_accumulation_steps: int = 1, num_workers: int = 0, **more
):
    x, y = points()
    model = network()
    order = EpochPermutation(ROWS, BATCH, gradient_accumulation_steps, seed=3)

    def gather(rows, _epoch):
        at = torch.from_numpy(rows)
        return x[at], y[at]

    def forward(batch):
        loss = nn.functional.mse_loss(model(batch[0]), batch[1])
        return loop.LossOutput(loss, {"half": loss.detach() / 2}, len(batch[0]))

    steps = EPOCHS * order.steps_per_epoch
    settings = {
        "max_grad_norm": 1.0, "precision": Precision("fp32", CPU), "checkpoint_root": root, **more,
    }  # fmt: skip
    torch.manual_seed(7)
    return loop.TrainingJob(
        model=model,
        loader=Loader(order, gather, num_workers),
        transfer=lambda batch: batch,
        forward=forward,
        optimizer=adamw(model, 0.01, 0.1, (0.9, 0.98), fused=True),
        lr_at=lambda step: 0.01 * warmup_cosine(step, steps, 4),
        steps=steps,
        **settings,
    )


def run(training, emit=None):
    emit = emit or Emitter()
    losses: list[float] = []
    inner = training.forward

    def forward(batch):
        outcome = inner(batch)
        losses.append(outcome.loss.item())
        return outcome

    training.forward = forward
    per_epoch = training.loader.order.steps_per_epoch
    meter, ledger = StepTimer(HostStopwatch(), 2, per_epoch), TimingSummary(per_epoch, 2)
    try:
        loop.train(training, meter, ledger, emit)
    finally:
        emit.close()
        training.losses, training.sent = losses, emit.sent
    return losses


def test_counting_products_changes_no_loss_and_ends_with_the_warm_up():
    plain = run(job())
    counted, meter = job(), WorkMeter(CPU, 4)
    losses, inner = [], counted.forward

    def forward(batch):
        outcome = inner(batch)
        losses.append((outcome.loss.item(), meter.is_counting))
        return outcome

    counted.forward = forward
    emit = Emitter()
    loop.train(counted, StepTimer(HostStopwatch(), 4, 7), TimingSummary(7, 4), emit, meter)
    emit.close()
    assert [loss for loss, _ in losses] == plain
    assert [counting for _, counting in losses] == [True] * 2 + [False] * (len(plain) - 2)


def test_products_of_compiled_code_are_counted_ahead_and_nothing_changes():
    plain, meter = run(job()), WorkMeter(CPU, 4)
    compiled, calls, losses = job(), [], []
    compiled.prepare = lambda start, emit: calls.append("compiled")
    inner = compiled.forward

    def forward(batch):
        calls.append(meter.is_counting)
        outcome = inner(batch)
        losses.append(outcome.loss.item())
        return outcome

    compiled.forward = forward
    emit, summary = Emitter(), TimingSummary(7, 4)
    loop.train(compiled, StepTimer(HostStopwatch(), 4, 7), summary, emit, meter)
    emit.close()
    assert calls == [True, "compiled", *[False] * len(plain)]
    assert losses[1:] == plain, "dropout draws the same numbers"
    flops = meter.complete(summary.timing()).model_flops_per_sample
    assert flops == 2 * (2 * 5 * 16 + 3 * 16), "the first layer's input needs no gradient"


def test_compiling_leaves_no_gradient_in_copies_of_weights():
    """They are no parameters of the model, whose gradients are dropped."""

    def made():
        training = job(max_grad_norm=0.0)  # clipping hides a gradient of twice the size
        copies = training.weight_copies = Replica(training.model, torch.bfloat16, lambda _: False)

        def forward(batch):
            output = copies.model(batch[0].bfloat16()).float()
            return loop.LossOutput(nn.functional.mse_loss(output, batch[1]), {}, len(output))

        training.forward = forward
        return training

    compiled = made()
    compiled.prepare = compilation.compile_on_first_batch(compiled)
    assert run(compiled)[1:] == run(made())


def test_compiling_is_a_phase_of_its_own_and_changes_nothing():
    """With dropout and running statistics. The first batch goes through twice, timed once."""
    made = job()
    made.model.append(nn.BatchNorm1d(1))
    calls = []
    plain = made.forward
    made.forward = lambda batch: (calls.append(len(batch[0])), plain(batch))[1]
    made.prepare = compilation.compile_on_first_batch(made)
    before = [buffer.clone() for buffer in made.model.buffers()]
    seen = []

    class Looking(Emitter):
        def phase(self, name, detail=""):
            after = zip(before, made.model.buffers(), strict=True)
            seen.append((name, len(calls), all(torch.equal(a, b) for a, b in after)))
            super().phase(name, detail)

    losses = run(made, Looking())
    assert seen[:2] == [("compile", 0, True), ("warmup", 1, True)]
    bare = job()
    bare.model.append(nn.BatchNorm1d(1))
    assert losses[1:] == run(bare), "the first one noted is of the compiling pass"
    windows = [message for message in made.sent if message.kind == "step"]
    assert sum(window.count for window in windows) == len(losses) - 1


def plain_losses() -> list[float]:
    """The same training, written out."""
    x, y = points()
    model = network()
    optimizer = torch.optim.AdamW(
        decay_groups(model.named_parameters(), 0.1), lr=0.01, betas=(0.9, 0.98), fused=True
    )
    torch.manual_seed(7)
    losses, step, steps = [], 0, EPOCHS * math.ceil(ROWS / BATCH)
    for epoch in range(EPOCHS):
        order = np.random.default_rng([3, epoch]).permutation(ROWS)
        for start in range(0, ROWS, BATCH):
            at = torch.from_numpy(order[start : start + BATCH])
            for group in optimizer.param_groups:
                group["lr"] = 0.01 * warmup_cosine(step, steps, 4)
            loss = nn.functional.mse_loss(model(x[at]), y[at])
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
            losses.append(loss.item())
            step += 1
    return losses


def test_losses_are_bitwise_those_of_a_plain_loop():
    assert run(job()) == plain_losses()


@pytest.mark.parametrize("num_workers", [1, 3])
def test_workers_change_nothing_but_speed(num_workers):
    assert run(job(num_workers=num_workers)) == plain_losses()


def test_every_row_once_an_epoch_and_the_last_batch_is_kept():
    order = EpochPermutation(ROWS, BATCH, 2, seed=3)
    assert order.steps_per_epoch == 4
    for epoch in range(2):
        steps = range(epoch * 4, epoch * 4 + 4)
        micro = [order.micro_batches(s) for s in steps]
        assert sorted(np.concatenate([np.concatenate(m) for m in micro])) == list(range(ROWS))
        assert [len(m) for m in micro] == [2, 2, 2, 1]
    first, second = order.micro_batches(0)[0], order.micro_batches(4)[0]
    assert list(first) != list(second), "every epoch has its own order"


def test_accumulation_averages_the_micro_batches():
    training = job(gradient_accumulation_steps=2)
    before = {n: p.clone() for n, p in training.model.named_parameters()}
    training.model.eval()
    x, y = points()
    first, second = training.loader.order.micro_batches(0)
    rows = torch.from_numpy(np.concatenate([first, second]))
    nn.functional.mse_loss(training.model(x[rows]), y[rows]).backward()
    expected = {n: p.grad.clone() for n, p in training.model.named_parameters()}
    training.model.zero_grad()
    training.model.train = lambda: training.model  # no dropout
    seen = {}
    training.optimizer.step = lambda: seen.update(
        {n: p.grad.clone() for n, p in training.model.named_parameters()}
    )
    training.steps, training.max_grad_norm = 1, 0
    run(training)
    for name, gradient in expected.items():
        torch.testing.assert_close(seen[name], gradient)
    assert all(torch.equal(before[n], p) for n, p in training.model.named_parameters())


def test_windows_tell_the_whole_run():
    training = job()
    run(training)
    windows = [m for m in training.sent if m.kind == "step"]
    assert sum(w.count for w in windows) == training.steps == windows[-1].step
    assert sum(w.samples for w in windows) == EPOCHS * ROWS
    mean = sum(w.loss * w.samples for w in windows) / (EPOCHS * ROWS)
    sizes = [8, 8, 8, 8, 8, 8, 2] * EPOCHS
    assert mean == pytest.approx(np.average(training.losses, weights=sizes), rel=1e-5)
    assert all(w.metrics["half"] == pytest.approx(w.loss / 2, rel=1e-5) for w in windows)
    phases = [m.name for m in training.sent if m.kind == "phase"]
    assert phases == ["warmup", "train"]


def test_resume_is_bitwise_no_interruption(tmp_path):
    whole = run(job(tmp_path / "whole", ema=None))
    part = job(tmp_path / "part")
    emit = Emitter()
    inner = part.forward

    def stop_later(batch):
        emit.stop_requested = len(part_losses) == 9
        outcome = inner(batch)
        part_losses.append(outcome.loss.item())
        return outcome

    part_losses: list[float] = []
    part.forward = stop_later
    with pytest.raises(Stopped):
        run(part, emit)
    rest = job(tmp_path / "part")
    rest.model[0].weight.data.zero_()  # what counts comes from the checkpoint
    resumed = run(rest)
    assert part_losses + resumed == whole
    assert len(part_losses) == 10, "the step at hand is finished"


def test_a_training_that_was_stopped_early_is_not_trained_on_when_it_resumes(tmp_path):
    """The checkpoint is of the very step after which the validation stopped it."""

    def stopping():
        training = job(tmp_path, checkpoint_every=7)
        training.after_epoch = lambda epoch: EpochEnd(stops=epoch == 2, since_best=1, patience=1)
        return training

    assert len(run(stopping())) == 14
    again = stopping()
    assert run(again) == []
    assert again.history.count_steps(0, again.steps) == 14


def test_resume_restores_averaged_weights(tmp_path):
    def averaged(root, every):
        training = job(root, checkpoint_every=every)
        training.ema = Ema(training.model, 0.9)
        return training

    whole = averaged(None, 0)
    run(whole)
    first = averaged(tmp_path, 10)
    first.steps = 10
    run(first)
    second = averaged(tmp_path, 10)
    run(second)
    for name, tensor in whole.ema.tensors().items():
        assert torch.equal(tensor, second.ema.tensors()[name]), name
    assert [p.name for p in tmp_path.iterdir()] == ["step-000000020"], "older ones are gone"


def test_averages_follow_the_formula_and_swap_back():
    model = nn.Linear(1, 1, bias=False)
    ema = Ema(model, 0.75)
    start = model.weight.item()
    expected = start
    for value in (1.0, 2.0, 3.0):
        model.weight.data.fill_(value)
        ema.update()
        expected = 0.75 * expected + 0.25 * value
    with ema.applied():
        assert model.weight.item() == pytest.approx(expected)
    assert model.weight.item() == 3.0


def test_a_loss_that_is_no_number_is_told():
    training = job()
    inner, calls = training.forward, iter(range(1000))

    def forward(batch):
        outcome = inner(batch)
        broken = float("nan") if next(calls) > 2 else 1.0
        return loop.LossOutput(outcome.loss * broken, {}, outcome.samples)

    training.forward = forward
    run(training)
    assert any(m.kind == "notice" and m.code == "loss-not-finite" for m in training.sent)


def test_half_precision_scales_its_gradients():
    precision = Precision("fp16", CPU)
    assert precision.scaler.is_enabled()
    losses = run(job(precision=precision))
    assert np.isfinite(losses).all()
    # The scaler skips steps whose gradients overflow, so the two runs drift apart a little.
    assert np.mean(losses) == pytest.approx(np.mean(plain_losses()), rel=0.1)


def test_bf16_needs_a_gpu_that_has_it(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (7, 5))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "Tesla T4")
    with pytest.raises(EngineError, match="Tesla T4 has no bf16; use fp16"):
        Precision("bf16", torch.device("cuda"))


def test_decay_spares_vectors_and_frozen_weights():
    model = nn.ModuleDict(
        {"a": nn.Linear(3, 4), "norm": nn.LayerNorm(4), "frozen": nn.Linear(2, 2)}
    )
    model["frozen"].requires_grad_(False)
    decayed, spared = decay_groups(model.named_parameters(), 0.1)
    assert [p.shape for p in decayed["params"]] == [(4, 3)]
    assert len(spared["params"]) == 3
    assert (decayed["weight_decay"], spared["weight_decay"]) == (0.1, 0.0)


def test_the_schedule_has_the_known_points():
    assert warmup_cosine(0, 100, 10) == pytest.approx(0.1)
    assert warmup_cosine(9, 100, 10) == pytest.approx(1.0)
    assert warmup_cosine(10, 100, 10) == pytest.approx(1.0)
    assert warmup_cosine(99, 100, 10) == pytest.approx(0.0)
    assert warmup_cosine(50, 101, 0) == pytest.approx(0.5)
    assert warmup_cosine(99, 100, 10, floor=0.1) == pytest.approx(0.1)
    rates = [warmup_cosine(s, 100, 10) for s in range(100)]
    assert rates[:10] == sorted(rates[:10])
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert warmup_cosine(0, 1, 0) == 1.0
    assert (warmup_steps(129, 0.1, None), warmup_steps(129, 0.1, 500)) == (13, 129)


def test_a_checkpoint_is_whole_or_absent(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoints.os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        checkpoints.save(tmp_path / "step-1", {"model": {"w": torch.ones(3)}}, {"step": 1})
    assert checkpoints.newest_first(tmp_path) == []


def test_files_are_safetensors_with_true_hashes(tmp_path):
    import hashlib

    from safetensors.torch import load_file

    tensors = {
        "scalar": torch.tensor(3.5),
        "half": torch.randn(3, 5).bfloat16(),
        "turned": torch.arange(12.0).reshape(3, 4).T,
        "empty": torch.zeros(0, 4),
        "flags": torch.tensor([True, False]),
        "bytes": torch.get_rng_state()[:100],
    }
    written = checkpoints.save(tmp_path / "x", {"model": tensors}, {"step": 1}, {"note.txt": "hi"})
    found = load_file(tmp_path / "x" / "model.safetensors")
    assert found.keys() == tensors.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in tensors.items())
    for file in written:
        data = file.path.read_bytes()
        assert (file.size, file.sha256) == (len(data), hashlib.sha256(data).hexdigest())
    groups, state = checkpoints.load(tmp_path / "x", CPU)
    assert torch.equal(groups["model"]["turned"], tensors["turned"])
    assert state["step"] == 1
    assert json.loads((tmp_path / "x" / "state.json").read_text())["files"]


def test_a_checkpoint_that_was_cut_is_refused(tmp_path):
    checkpoints.save(tmp_path / "x", {"model": {"w": torch.ones(300)}}, {"step": 1})
    path = tmp_path / "x" / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(ValueError, match="is not the file that was saved"):
        checkpoints.load(tmp_path / "x", CPU)
