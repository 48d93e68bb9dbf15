"""Training in stages: what each trains, what is told of it, and resuming in the right one."""

from __future__ import annotations

import json

import pytest
from pydantic import ValidationError

from engines.captioning import Params
from engines.emitter import Emitter
from engines.protocol import Probe
from tests.engines import engine_runs, jointly
from tests.engines import tiny_captioning as tiny
from tests.engines.engine_runs import weights
from tests.engines.tiny_captioning import go, spec

pytest.importorskip("bitsandbytes")
pytest.importorskip("peft")


folder = engine_runs.subset_fixture(tiny.write)

STAGES = [
    {"name": "align", "trainable": ["projector"], "epochs": 2, "lr": 1e-2},
    {
        "trainable": ["projector", "lora"],
        "epochs": 2,
        "lr": 1e-3,
        "batch": 4,
        "gradient_accumulation_steps": 1,
    },
]
SETTINGS = {"stages": STAGES, "evaluate_on": [], "evaluate_train": 0, "checkpoint_every": 2}
"""3 steps an epoch in stage 1, 5 in stage 2: steps 1 to 6, and 7 to 16."""


class Killed(BaseException):
    """Ends a run where it stands."""


class KillAt(Emitter):
    """Raises `Killed` at the first message that `matches`."""

    def __init__(self, matches):
        super().__init__()
        self._matches = matches

    def send(self, message):
        super().send(message)
        if self._matches(message, self.sent):
            raise Killed


@pytest.fixture(scope="module")
def whole(folder, tmp_path_factory):
    run_dir = tmp_path_factory.mktemp("runs") / "whole"
    return go(spec(folder, settings=SETTINGS), run_dir), run_dir


def of_kind(sent, kind):
    return [message for message in sent if message.kind == kind]


def test_each_stage_is_announced_and_summarized(whole):
    sent, run_dir = whole
    plans = of_kind(sent, "plan")
    first, second = of_kind(sent, "stage")
    assert [plan.steps for plan in plans] == [16, 16]
    assert [plan.effective_batch for plan in plans] == [8, 4]
    assert plans[0].trainable_parameters < plans[1].trainable_parameters
    assert "lora" not in plans[0].facts["trainable"]
    assert plans[0].facts["stage"] == "stage 1 (align) of 2"
    assert (first.name, first.steps, first.epochs, second.steps) == ("align", 6, 2, 10)
    assert first.settings == {"trainable": ["projector"], "epochs": 2, "lr": 1e-2}
    assert first.wall_seconds > first.timing.epoch_wall_seconds > 0
    assert [m.step for m in of_kind(sent, "step")][-1] == 16
    epochs = of_kind(sent, "epoch")
    assert [(m.stage, m.epoch, m.steps) for m in epochs] == [
        (1, 1, 3),
        (1, 2, 3),
        (2, 1, 5),
        (2, 2, 5),
    ]
    assert all(m.loss > 0 and m.seconds > 0 and "diversity" in m.validation for m in epochs)
    state = json.loads((run_dir / "checkpoints/last/state.json").read_text())
    assert (state["step"], state["stage"], len(state["history"])) == (16, 2, 6)


@pytest.mark.parametrize(
    ("matches", "stage"),
    [
        (lambda m, _: m.kind == "step" and m.step >= 4, 1),
        (lambda m, _: m.kind == "stage", 1),
        (lambda m, sent: m.kind == "plan" and len(of_kind(sent, "plan")) == 2, 2),
        (lambda m, _: m.kind == "step" and m.step >= 11, 2),
    ],
    ids=["in stage 1", "before the boundary", "at the boundary", "in stage 2"],
)
def test_a_killed_run_resumes_in_its_stage_to_equal_weights(
    folder, whole, tmp_path, matches, stage
):
    with pytest.raises(Killed):
        go(spec(folder, settings=SETTINGS), tmp_path / "run", KillAt(matches))
    sent = go(spec(folder, settings=SETTINGS), tmp_path / "run")
    assert f"stage {stage}" in of_kind(sent, "plan")[0].facts["stage"]
    assert weights(tmp_path / "run") == weights(whole[1])
    keys = [(m.stage, m.epoch) for m in of_kind(sent, "epoch")]
    assert keys == [(1, 1), (1, 2), (2, 1), (2, 2)], "earlier epochs are sent again"
    assert [m.stage for m in of_kind(sent, "stage")] == [1, 2]
    earlier = [m for m in of_kind(whole[0], "epoch") if m.stage < stage]
    again = of_kind(sent, "epoch")[: len(earlier)]
    assert [m.loss for m in again] == [m.loss for m in earlier]


def test_a_part_that_only_the_first_stage_trains_is_kept(folder, tmp_path):
    stages = [{"trainable": ["projector"], "max_steps": 2}, {"trainable": ["lora"], "max_steps": 2}]
    settings = {**SETTINGS, "stages": stages}
    go(spec(folder, settings=settings), tmp_path / "whole")
    at_the_end = KillAt(lambda m, _: m.kind == "step" and m.step == 4)
    request = spec(folder, settings={**settings, "checkpoint_every": 1})
    with pytest.raises(Killed):
        go(request, tmp_path / "run", at_the_end)
    go(request, tmp_path / "run")
    assert weights(tmp_path / "run") == weights(tmp_path / "whole")
    for part in (b"projector.net.weight", b"lora_B"):
        assert part in weights(tmp_path / "run")


def test_early_stopping_and_the_best_weights_are_a_stages_own(folder, tmp_path):
    stop = {"early_stopping": True, "patience": 1, "epochs": 40, "lr": 3e-2}
    stages = [{"trainable": ["projector"], "epochs": 1}, stop]
    settings = {**SETTINGS, "stages": stages, "validate_on": "says_heldout"}
    sent = go(spec(folder, settings=settings), tmp_path / "run")
    epochs = of_kind(sent, "epoch")
    assert (epochs[0].since_best, epochs[0].patience) == (None, None)
    assert (epochs[1].since_best, epochs[1].patience) == (0, 1)
    assert (epochs[-1].since_best, epochs[-1].stopped) == (1, True)
    last = of_kind(sent, "stage")[-1]
    assert last.epochs == epochs[-1].epoch < last.planned_epochs == 40
    history = json.loads((tmp_path / "run/checkpoints/epochs.json").read_text())
    assert [row["stage"] for row in history] == [1, *[2] * epochs[-1].epoch]
    again = go(spec(folder, "run:run", task="evaluate", subset="says_heldout"), tmp_path / "again")
    kept = next(m.value for m in again if m.kind == "metric" and m.name == "loss")
    assert kept == pytest.approx(min(row["loss"] for row in history[1:]))


def test_a_cost_probe_measures_every_stage(folder, tmp_path):
    request = spec(folder, settings=SETTINGS, task="probe", probe=Probe(steps=2))
    sent = go(request, tmp_path / "run")
    (forecast,) = of_kind(sent, "forecast")
    assert (forecast.steps, forecast.run_steps) == (4, 16)
    assert forecast.run_seconds > forecast.start_seconds
    assert [p for p in (tmp_path / "run").rglob("*") if p.is_file()] == []
    assert not of_kind(sent, "stage") + of_kind(sent, "epoch")


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"stages": [{"trainable": []}]}, "stage 1: nothing is trained: name projector or lora"),
        ({"stages": [{}, {"name": "b", "trainable": ["lora"]}], "lora_rank": 0},
         r"stage 2 \(b\): nothing is trained"),
        ({"trainable": []}, "nothing is trained"),
        ({"stages": [{"early_stopping": True}], "validate_every_epochs": 0},
         "stage 1: early_stopping needs"),
        ({"stages": [{"frames": 4}]}, "frames"),
    ],
)  # fmt: skip
def test_a_stage_that_cannot_train_is_one_sentence(settings, sentence):
    with pytest.raises(ValidationError, match=sentence) as error:
        Params.model_validate(settings)
    assert error.value.error_count() == 1


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_two_ranks_train_the_stages_of_one_process(folder, tmp_path):
    """The best weights of a stage are read by rank 0, and the next one begins with them on both.

    17 media and 1 held out: steps of 8, 8 and then 1, where rank 1 has nothing to do.
    """
    stages = [{"trainable": ["projector"]}, {}]
    settings = {**SETTINGS, "stages": stages, "epochs": 1, "lora_dropout": 0.0, "patience": 1,
                "early_stopping": True, "validation_share": 0.06, "evaluate_train": 4}  # fmt: skip
    ends = jointly.trained(tmp_path, 8, lambda more: spec(folder, settings={**settings, **more}))
    jointly.check_same(tmp_path, ends, steps=6, samples={8, 1})
    assert [(m.stage, m.epoch) for m in ends[1].kinds("epoch")] == [(1, 1), (2, 1)]
    assert [m.stage for m in ends[1].kinds("stage")] == [1, 2]
    after = [len([m for m in end.kinds("phase") if "after epoch" in m.detail]) for end in ends]
    assert after == [2, 2], "rank 0 alone validates and sends"
    one, two = ([m.value for m in end.kinds("metric") if m.name == "loss"] for end in ends)
    assert two == pytest.approx(one, rel=1e-3)
