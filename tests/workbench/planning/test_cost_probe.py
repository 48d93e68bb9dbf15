"""Cost probes from the plan to the record: what is asked, how it counts, what is left behind."""

from __future__ import annotations

from pathlib import Path

import pytest

from engines import messages as msg
from engines import protocol as p
from results.records import cost_forecasts, store
from workbench.planning import cost_probe, expand, plan
from workbench.processes import gpu_selection as gpu_devices
from workbench.suites import record, run_summary, suite
from workbench.suites.state import RunView, reduce_entries

TABLE = {"subsets": "emoji_train", "models": "clip-nano", "name": "c"}


def specs(tmp_path: Path, **more: object) -> list[p.RunSpec]:
    return expand.expand(plan.parse({**TABLE, **more}), tmp_path)


@pytest.mark.parametrize(
    ("written", "share"),
    [("±2%", 0.02), ("+-2%", 0.02), ("2 %", 0.02), ("0.02", 0.02), (0.02, 0.02), ("0.5%", 0.005)],
)
def test_a_share_may_be_written_as_people_do(tmp_path: Path, written: object, share: float) -> None:
    (spec,) = specs(tmp_path, cost_probe=50, max_uncertainty=written)
    assert spec.probe == p.Probe(steps=50, max_uncertainty=share)
    assert spec.task == "probe"
    assert spec.run_id == "01-retrieval-emoji_train-clip-nano-probe"


def test_a_costing_run_has_the_settings_of_its_run(tmp_path: Path) -> None:
    (probe,), (whole,) = specs(tmp_path, cost_probe=50), specs(tmp_path)
    assert probe.params == whole.params
    assert (whole.task, whole.probe) == ("train", None)
    assert specs(tmp_path, task="probe")[0].probe == p.Probe(steps=200)
    assert specs(tmp_path, task="train", cost_probe=9)[0].task == "probe"


def test_plans_without_a_costing_run_keep_their_hashes() -> None:
    old = plan.parse(TABLE)
    assert old.hash() == "e84bad09f418"
    assert plan.parse({**TABLE, "cost_probe": 200}).hash() != old.hash()


def test_the_plan_that_is_kept_asks_the_same(tmp_path: Path) -> None:
    request = plan.parse({**TABLE, "cost_probe": 200, "max_uncertainty": "±2%"})
    (tmp_path / "plan.toml").write_text(plan.dump(request))
    assert plan.load(tmp_path / "plan.toml") == request


SPEC = p.RunSpec(
    suite="s", run_id="01-probe", engine="retrieval", task="probe", subset="a", model="m",
    cache_root="c", probe=p.Probe(steps=200),
)  # fmt: skip
SAID = msg.Forecast(
    t=9, steps=200, asked_steps=200, samples=14_080, epoch_steps=5280, epoch_seconds=456.0,
    epoch_low=448.0, epoch_high=464.0, run_steps=5300, run_seconds=481.0, run_low=472.0,
    run_high=490.0, start_seconds=20.0, warmup_seconds=3.0, method="200 timed steps",
    disk={"image cache": 7},
)  # fmt: skip


def run(*messages: msg.Message):
    begun = (
        msg.Attempt(number=1, pid=5),
        msg.Hello(t=1, engine="retrieval", pid=5),
        msg.Phase(t=2, name="train"),
        msg.Plan(t=2, steps=5300, stop_at=220, samples=9, effective_batch=64, micro_batch=64),
    )
    return reduce_entries(
        p.Entry(seq=i, wall=50.0 + i, src="engine", msg=m)
        for i, m in enumerate((*begun, *messages))
    )


def test_progress_counts_to_where_the_costing_run_ends() -> None:
    state = run(msg.Step(t=3, step=110, count=110, samples=9, seconds=11.0, loss=1.0, lr=1.0))
    assert state.fraction == 0.5
    assert state.eta_seconds == pytest.approx(11.0)
    assert "train 110/220 50%" in run_summary.progress_line(RunView(SPEC, "f", state), 1, 1)


def test_the_record_has_the_forecast_beside_what_was_measured() -> None:
    state = run(SAID, msg.Done(t=10), msg.End(t=44, cause="completed", exit_code=0))
    made = record.build_record(SPEC, state, "f")
    assert made.identity.probe_steps == 200
    assert made.timing.end_to_end_seconds.value == 44
    forecast = made.forecast
    assert forecast is not None
    assert forecast.epoch_seconds.value == 456
    assert (forecast.epoch_seconds.low, forecast.epoch_seconds.high) == (448, 464)
    assert forecast.epoch_seconds.method == "forecast from 200 timed steps"
    assert forecast.run_seconds.method.startswith("forecast")
    assert forecast.disk == {"image cache": 7}


def test_what_was_measured_whole_is_no_forecast() -> None:
    said = SAID.model_copy(
        update={"epoch_measured": True, "epoch_low": None, "epoch_high": None, "steps": 5280}
    )
    made = record.build_record(SPEC, run(said, msg.End(t=44, cause="completed")), "f").forecast
    assert made is not None
    assert made.epoch_seconds.method == "measured: 5280 timed steps, all there are"
    assert made.run_seconds.method.startswith("forecast")


def test_nothing_measured_has_its_reason() -> None:
    said = msg.Forecast(
        steps=0, asked_steps=5, reasons={"epoch": "all warm-up", "run": "all warm-up"}
    )
    made = record.build_record(SPEC, run(said, msg.End(t=44, cause="completed")), "f").forecast
    assert made is not None
    assert made.epoch_seconds.reason == made.run_seconds.reason == "all warm-up"
    assert made.start_seconds.reason == "no step was done"
    unsaid = record.build_record(SPEC, run(msg.End(t=4, cause="killed", signal=9)), "f")
    assert unsaid.forecast is None
    assert unsaid.identity.probe_steps == 200


@pytest.mark.parametrize(
    ("devices", "shown", "nodes", "found"),
    [
        ((), None, ["nvidia0"], True),
        ((), None, ["nvidiactl"], False),
        ((), "", ["nvidia0"], False),
        ((), "-1", ["nvidia0"], False),
        ((), "1,0", ["nvidia0"], True),
        ((), "-1,0", ["nvidia0"], False),
        ((), "NoDevFiles", ["nvidia0"], False),
        ((), "MIG-1-2", ["nvidia0"], True),
        ((0,), None, [], True),
        ((0,), "", [], False),
    ],
)
def test_whether_an_engine_will_find_a_gpu(
    tmp_path: Path, devices: tuple[int, ...], shown: str | None, nodes: list[str], found: bool
) -> None:
    for node in nodes:
        (tmp_path / node).touch()
    environment = {} if shown is None else {"CUDA_VISIBLE_DEVICES": shown}
    assert gpu_devices.sees_gpu(devices, environment, cpu=False, nodes=tmp_path) == found
    assert not gpu_devices.sees_gpu(devices, environment, cpu=True, nodes=tmp_path)


def test_windows_driver_counts_only_where_it_is_nvidias(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "dxg").touch()
    for driver in (tmp_path / "libcuda.so.1", tmp_path / "dxg"):
        monkeypatch.setattr(gpu_devices, "WSL_DRIVER", driver)
        there = driver.exists()
        assert gpu_devices.sees_gpu((), {}, cpu=False, nodes=tmp_path) is there
        assert gpu_devices.driver_timeout(tmp_path) == (10 if there else 3)


def created(tmp_path: Path) -> list[p.Probe | None]:
    asked = plan.parse({**TABLE, "cost_probe": 50})
    folder = suite.create_suite(tmp_path, asked, expand.expand(asked, tmp_path))
    return [spec.probe for _, spec in suite.read_runs(folder)]


def test_a_costing_run_is_told_what_earlier_forecasts_missed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert created(tmp_path) == [p.Probe(steps=50)]  # no history: the engine assumes the usual

    def known(_: object, hostname: str, *, gpu: bool) -> cost_forecasts.SpeedVariation | None:
        assert (hostname, gpu) == ("here", False)
        return cost_forecasts.SpeedVariation(0.12, 5)

    monkeypatch.setattr(cost_forecasts, "estimate_speed_variation", known)
    monkeypatch.setattr(cost_probe.platform, "node", lambda: "here")
    monkeypatch.setattr(gpu_devices, "sees_gpu", lambda *_, cpu: cpu)
    assert created(tmp_path) == [
        p.Probe(steps=50, unseen=0.12, unseen_from="for what 5 earlier forecasts here missed")
    ]


def test_a_history_that_cannot_be_read_is_none(tmp_path: Path) -> None:
    (tmp_path / "results.jsonl").write_text('{"schema": 99}\n')
    with pytest.raises(store.NewerSchemaError):
        store.read_records(tmp_path / "results.jsonl").all()
    assert created(tmp_path) == [p.Probe(steps=50)]


def test_specs_from_before_still_read() -> None:
    old = SPEC.model_dump(mode="json")
    del old["probe"]["unseen"], old["probe"]["unseen_from"]
    assert p.RunSpec.model_validate(old) == SPEC
