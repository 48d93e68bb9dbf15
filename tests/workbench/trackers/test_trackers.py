"""Runs for trackers: names, resumed steps, and each library's own file, written twice."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

import pytest

from engines import gpu_readings, messages, protocol
from results.records.schema import MetricRecord, Reading
from tests.results.conftest import record, untimed
from workbench.trackers import mlflow, swanlab, tensorboard, trackio, wandb
from workbench.trackers.run_log import RunLog, build_log


def step(number: int, loss: float) -> messages.Step:
    return messages.Step(
        t=float(number), step=number, count=2, samples=8, seconds=0.5, loss=loss, lr=1e-3,
        grad_norm=float("nan"), metrics={"r@1": 0.5},
    )  # fmt: skip


MESSAGES = (
    step(2, 2.0),
    messages.Sample(t=2.5, rss_tree=1000, gpus=(gpu_readings.Gpu(index=0, used=5, power=9.5),)),
    step(4, 1.0),
    messages.EpochSummary(t=4.5, epoch=1, validation={"siglip": 0.25}),
    step(4, 1.5),  # of an attempt that was resumed at step 2
)


@pytest.fixture
def log(tmp_path: Path) -> RunLog:
    folder = tmp_path / "logs" / "suite" / "runs" / "01-run"
    folder.mkdir(parents=True)
    entries = (
        protocol.Entry(seq=seq, wall=1000.0 + seq, src="engine", msg=message)
        for seq, message in enumerate(MESSAGES)
    )
    (folder / "events.jsonl").write_bytes(b"".join(map(protocol.encode, entries)))
    run = record(
        "01-run", folder="suite/runs/01-run", identity={"suite": "suite", "label": "E5 정규화"},
        timing=untimed(step_median=Reading(value=0.25), mfu=Reading(value=0.3)),
        metrics=(MetricRecord(name="recall@1", value=0.5, split="val", n=9),),
    )  # fmt: skip
    return build_log(tmp_path / "logs", run)


def test_series_have_the_trackers_names_and_each_step_once(log: RunLog) -> None:
    assert (log.name, log.title, log.project) == ("suite/01-run", "E5 정규화", "retrieval")
    assert (log.params["lr"], log.params["layers"]) == (2e-5, "[3, 7, 11]")
    losses = [(s.step, s.value, s.wall) for s in log.scalars if s.name == "train/loss"]
    assert losses == [(2, 2.0, 1000.0), (4, 1.5, 1004.0)]
    others = {s.name: (s.step, s.value) for s in log.scalars}
    assert others["eval/siglip"] == (4, 0.25)
    assert others["system/gpu.0.memory"] == (2, 5.0)
    assert "train/grad_norm" not in others, "NaN is no value"
    assert log.metrics["eval/recall@1@val"] == 0.5
    assert log.metrics["cost/step_median_seconds"] == 0.25
    assert log.metrics["cost/mfu"] == 0.3
    assert "cost/hfu" not in log.metrics


def test_an_imported_run_has_no_series(tmp_path: Path) -> None:
    assert build_log(tmp_path, record("imported-x")).scalars == ()


def test_tensorboard(log: RunLog, tmp_path: Path) -> None:
    pytest.importorskip("tensorboardX")
    from tensorboardX.proto.event_pb2 import Event
    from tensorboardX.record_writer import masked_crc32c

    for _ in range(2):
        folder = tensorboard.write(log, tmp_path / "board")
    (file,) = folder.iterdir()
    data, values = file.read_bytes(), []
    while data:  # length, its CRC, the event, its CRC
        size = int.from_bytes(data[:8], "little")
        event = Event.FromString(data[12 : 12 + size])
        assert masked_crc32c(data[12 : 12 + size]) == int.from_bytes(
            data[12 + size :][:4], "little"
        )
        values += [
            (v.tag, event.step, v.simple_value, event.wall_time) for v in event.summary.value
        ]
        data = data[16 + size :]
    assert ("train/loss", 4, 1.5, 1004.0) in values
    assert [tag for tag, *_ in values].count("train/loss") == 2


def test_wandb(log: RunLog, tmp_path: Path) -> None:
    pytest.importorskip("wandb")
    for _ in range(2):
        folder = wandb.write(log, tmp_path)
    assert [path.name for path in (tmp_path / "wandb").glob("offline-run-*")] == [folder.name]
    (file,) = folder.glob("run-*.wandb")
    assert b"train/loss" in file.read_bytes()


@pytest.mark.filterwarnings("ignore")
def test_mlflow(log: RunLog, tmp_path: Path) -> None:
    pytest.importorskip("mlflow")
    for _ in range(2):
        database = mlflow.write(log, tmp_path)
    with sqlite3.connect(database) as connection:
        rows = connection.execute(
            "select m.step, m.value from metrics m join runs r using (run_uuid) "
            "where r.lifecycle_stage = 'active' and m.key = 'train/loss' order by m.step"
        ).fetchall()
        params = dict(connection.execute("select key, value from params").fetchall())
    assert rows == [(2, 2.0), (4, 1.5)]
    assert json.loads(params["layers"]) == [3, 7, 11]


def test_trackio(log: RunLog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path))  # restored afterwards
    pytest.importorskip("trackio")
    for _ in range(2):
        database = trackio.write(log, tmp_path)
    with sqlite3.connect(database) as connection:
        rows = connection.execute(
            "select run_id, run_name, step, timestamp, metrics from metrics order by id"
        ).fetchall()
        ((system,),) = connection.execute("select metrics from system_metrics").fetchall()
        ((config,),) = connection.execute("select config from configs").fetchall()
    values = [json.loads(row[4]) for row in rows]
    losses = [(*row[:3], value["train/loss"]) for row, value in zip(rows, values, strict=True)
              if "train/loss" in value]  # fmt: skip
    assert losses == [("suite/01-run", "E5 정규화", 2, 2.0), ("suite/01-run", "E5 정규화", 4, 1.5)]
    assert rows[-1][3] == "1970-01-01T00:16:44+00:00"
    assert values[-1]["final/eval/recall@1@val"] == 0.5
    assert json.loads(system)["system/gpu.0.memory"] == 5.0
    assert json.loads(config)["layers"] == "[3, 7, 11]"


@pytest.mark.filterwarnings("ignore")
def test_swanlab(log: RunLog, tmp_path: Path) -> None:
    pytest.importorskip("swanlab")
    from swanlab.sdk.internal.core_python.store import DataStoreReader

    folders = [swanlab.write(log, tmp_path) for _ in range(2)]
    assert folders[0].name.rpartition("-")[2] == folders[1].name.rpartition("-")[2], "the id"
    (folder,) = (tmp_path / log.file_name).glob("run-*")
    assert folder == folders[1]
    (file,) = folder.glob("*.swanlab")
    reader = DataStoreReader()
    reader.open(file)
    records = list(reader)
    reader.close()
    assert sum(b"train/loss" in each for each in records) >= 2
    assert any("E5 정규화".encode() in each for each in records)
    assert not (folder / "files" / "requirements.txt").exists(), "nothing of the machine"
