"""Steps that fp16 skips are counted and shown; numbers that are none end a run with a remedy."""

import math

import pytest
import torch
from torch import nn

from engines import messages, protocol
from engines.emitter import EngineError, merge_steps
from engines.protocol import RunSpec
from engines.torchkit.runtime.precision import Precision
from engines.torchkit.training import loop, numeric_checks
from engines.torchkit.training.step_timing import HostStopwatch, StepTimer
from engines.torchkit.training.weight_averaging import Ema, Swa
from tests.engines.torchkit.training.test_loop import CPU, job, network, run
from workbench.suites import record, state

WINDOW = messages.Step(step=2, count=2, samples=4, seconds=1.0, loss=1.0, lr=0.1, skipped_steps=2)


def overflowing(training, skipped) -> None:
    """Let the gradients of these steps (from 1) overflow; forward passes stay finite."""
    step = iter(range(1, 1000))
    first = next(training.model.parameters())
    first.register_hook(lambda grad: grad * (math.inf if next(step) in skipped else 1.0))


def windows(training) -> list[messages.Step]:
    return [message for message in training.sent if message.kind == "step"]


def notices(training, code: str) -> list[messages.Notice]:
    return [m for m in training.sent if m.kind == "notice" and m.code == code]


def test_skipped_steps_are_counted_and_told_and_no_part_of_the_norm():
    training = job(precision=Precision("fp16", CPU))
    overflowing(training, {1, 4, 5})
    run(training)
    assert sum(window.skipped_steps for window in windows(training)) == 3
    assert sum(window.count for window in windows(training)) == training.steps
    first, *rest = windows(training)
    assert (first.step, first.skipped_steps, first.grad_norm) == (1, 1, None)
    assert all(math.isfinite(window.grad_norm) for window in rest)
    assert sum(notice.count for notice in notices(training, "steps-skipped")) == 3


def test_without_scaling_nothing_is_skipped_and_nothing_is_told():
    training = job()
    run(training)
    assert sum(window.skipped_steps for window in windows(training)) == 0
    assert not notices(training, "steps-skipped")
    assert Precision("bf16", CPU).overflow(training.optimizer) is None


@pytest.mark.parametrize(("epochs_of", "steps", "limit"), [
    (5000, 5000, 100), (40, 400, 40), (3, 300, 25), (7, 21, 21),
])  # fmt: skip
def test_a_whole_epoch_of_skipped_steps_is_too_many(epochs_of, steps, limit):
    assert numeric_checks.skip_limit(epochs_of, steps) == limit


def test_a_run_that_skips_every_step_does_not_complete():
    training = job(precision=Precision("fp16", CPU))
    before = [p.detach().clone() for p in training.model.parameters()]
    overflowing(training, range(1000))
    with pytest.raises(EngineError, match=r"21 steps in a row changed no weight.*bf16 or fp32"):
        run(training)
    assert all(map(torch.equal, before, training.model.parameters()))


def test_some_skipped_steps_between_good_ones_end_nothing():
    training = job(precision=Precision("fp16", CPU))
    overflowing(training, set(range(1, 15)) | set(range(16, 21)))
    run(training)
    assert sum(window.skipped_steps for window in windows(training)) == 19


def test_skipped_steps_in_a_row_are_counted_over_windows():
    meter, one, zero = StepTimer(HostStopwatch(), 0, 10), torch.ones(()), torch.zeros(())
    for flags, row in (([zero, one], 1), ([one, one], 3), ([zero], 0)):
        meter.open()
        for flag in flags:
            meter.end_part("optimizer")
            meter.end_step(1, zero, {}, zero, flag)
        meter.close(1, 0.1)
        assert meter.skipped_in_a_row == row


@pytest.mark.parametrize("average", [lambda m: Ema(m, 0.75), lambda m: Swa(m, 2)])
def test_averages_take_no_part_in_a_skipped_step(average):
    """As if the skipped steps had never been; without scaling to the last bit."""
    model, other = nn.Linear(3, 2), nn.Linear(3, 2)
    other.load_state_dict(model.state_dict())
    scaled, plain = average(model), average(other)
    for step, skipped in enumerate((0, 0, 1, 0, 1, 1, 0)):
        if not skipped:
            for weights in (model.weight, other.weight):
                weights.data.fill_(step + 1.0)
            plain.update()
        scaled.update(torch.tensor(float(skipped)))
    for name in ("weight", "bias"):
        torch.testing.assert_close(scaled.tensors()[name], plain.tensors()[name])
    assert scaled.started


def test_a_mean_of_weights_that_only_saw_skipped_steps_has_not_begun_and_resumes():
    model = nn.Linear(1, 1)
    swa, resumed = Swa(model, 2), Swa(model, 2)
    for skipped in (0.0, 1.0, 1.0):
        swa.update(torch.tensor(skipped))
    assert not swa.started
    resumed.load({name: tensor.clone() for name, tensor in swa.tensors().items()})
    model.weight.data.fill_(5.0)
    for average in (swa, resumed):
        average.update(torch.tensor(0.0))
        assert average.started
        assert average.tensors()["weight"].item() == 5.0


def test_the_loop_tells_the_averages():
    training = job(precision=Precision("fp16", CPU))
    training.ema = Ema(training.model, 0.5)
    overflowing(training, {2})
    weights = []
    inner = training.ema.update
    training.ema.update = lambda overflow: (weights.append(float(overflow)), inner(overflow))
    run(training)
    assert weights == [0.0, 1.0, *[0.0] * 19]


class Broken(nn.Module):
    def forward(self, x):
        return x * math.inf


@pytest.mark.parametrize(("name", "remedy"), [
    ("fp16", "use precision = bf16 or fp32"), ("bf16", "or use precision = fp32"),
    ("fp32", "the weights or the data"),
])  # fmt: skip
def test_the_first_batch_is_looked_at_before_anything_is_trained(name, remedy):
    training = job(precision=Precision(name, CPU))
    training.model.insert(2, Broken())
    before = [p.detach().clone() for p in training.model.parameters()]
    with pytest.raises(EngineError, match=f"first batch.*'2' is the first module.*{remedy}"):
        run(training)
    assert all(map(torch.equal, before, training.model.parameters()))
    assert not any(module._forward_hooks for module in training.model.modules())


def test_only_the_first_batch_is_looked_at():
    """A look waits for the device."""
    looks = []

    class Loss:
        def item(self):
            looks.append(1)
            return 1.0

    forward = numeric_checks.with_first_batch_check(
        lambda _: loop.LossOutput(Loss(), {}, 1), network(), Precision("fp32", CPU)
    )
    for _ in range(3):
        forward(None)
    assert looks == [1]


def test_a_loss_without_a_broken_module_is_told_without_a_name():
    forward = numeric_checks.with_first_batch_check(
        lambda _: loop.LossOutput(torch.tensor(math.nan), {}, 1), network(), Precision("fp16", CPU)
    )
    with pytest.raises(EngineError, match="its loss is nan before anything is trained; fp16 ends"):
        forward(None)


def test_merged_windows_keep_the_count():
    assert merge_steps(WINDOW, WINDOW.model_copy(update={"step": 4})).skipped_steps == 4


def test_the_record_counts_them():
    fields = dict.fromkeys(("suite", "run_id", "engine", "subset", "model", "cache_root"), "x")
    spec, journal = RunSpec(**fields), []
    assert (
        "skipped_steps"
        not in record.build_record(spec, state.reduce_entries(journal), "f").counters
    )
    for seq, step in enumerate((2, 4)):
        message = WINDOW.model_copy(update={"step": step})
        journal.append(protocol.Entry(seq=seq, wall=0.0, src="engine", msg=message))
    assert (
        record.build_record(spec, state.reduce_entries(journal), "f").counters["skipped_steps"] == 4
    )
