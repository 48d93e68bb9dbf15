"""The index of results.jsonl: what it holds, when its cache file is used, and when not."""

from __future__ import annotations

import json

import pytest

from results.listing import index
from results.listing.summary import AT_MOST, FORECAST, summarize_record
from results.records import store
from results.records.schema import ForecastRecord, MetricRecord, Reading

SCORE = MetricRecord(name="recall@1", value=0.5, split="emoji_val", n=748, low=0.4, high=0.6)


@pytest.fixture
def path(make, tmp_path, monkeypatch):
    monkeypatch.setattr(index, "SAVED_LINES", 1)
    file = tmp_path / "results.jsonl"
    for number in range(3):
        variant = SCORE.model_copy(update={"name": "recall@1[text only]"})
        record = make.record(f"0{number}-a", metrics=(SCORE, variant), train={"loss": 0.25})
        store.append_record(file, record)
    return file


def test_a_summary_has_what_lists_show(path):
    (first, *_) = index.read_index(path).summaries
    assert (first.run_id, first.offset, first.numbers["loss"]) == ("00-a", 0, 0.25)
    assert [(m.key, m.value, m.low) for m in first.metrics] == [("recall@1@emoji_val", 0.5, 0.4)]
    assert first.find_metric("") == first.find_metric("recall@1") == first.metrics[0]
    assert first.find_metric("recall@1@emoji_val") == first.metrics[0]
    assert first.find_metric("recall@1@other") is None


def test_forecasts_and_upper_bounds_are_marked(make):
    guess = Reading(value=9.0, method="forecast from 200 steps")
    probe = make.record(
        identity={"probe_steps": 200},
        forecast=ForecastRecord(steps=200, epoch_seconds=guess, run_seconds=guess,
                                start_seconds=Reading(value=1.0)),
    )  # fmt: skip
    summary = summarize_record(probe)
    assert not summary.measured
    assert summary.prefixes == {"wall": FORECAST, "epoch": FORECAST}
    full = make.record(timing=make.untimed(epoch_wall_seconds=Reading(value=3.0)))
    assert summarize_record(full).prefixes == {"epoch": AT_MOST}


def test_the_cache_gives_the_same_and_new_lines_are_added(make, path, tmp_path, monkeypatch):
    cache = tmp_path / "cache" / "index.json"
    first = index.read_index(path, cache)
    assert index.read_index(path, cache) == first
    with path.open("ab") as file:
        file.write(b"{torn\n")
    store.append_record(path, make.record("03-b"))
    calls = []
    monkeypatch.setattr(
        index, "summarize_record", lambda r, at: calls.append(at) or summarize_record(r, at)
    )
    again = index.read_index(path, cache)
    assert again == index.read_index(path)._replace(trouble=again.trouble)
    assert "line 4: not JSON" in again.trouble
    assert len(calls) == 1 + 4  # the new line, then all without a cache
    assert index.read_index(path, cache) == again


def test_a_process_of_its_own_writes_the_cache(path, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(index, "SAVED_LINES", 200)
    cache = tmp_path / "cache" / "index.json"
    assert index.count_new_bytes(path, cache) == path.stat().st_size
    assert index.count_new_bytes(tmp_path / "none", cache) == 0
    monkeypatch.setattr("sys.argv", ["index", str(path), str(cache)])
    index.main()
    assert json.loads(capsys.readouterr().out) == {"kind": "done"}
    assert index.count_new_bytes(path, cache) == 0
    assert index.read_index(path, cache) == index.read_index(path)


def test_a_torn_last_line_is_read_again_when_it_is_whole(make, path, tmp_path):
    cache, line = tmp_path / "index.json", make.record("03-b").model_dump_json().encode()
    with path.open("ab") as file:
        file.write(line[:100])
    half = index.read_index(path, cache)
    assert (len(half.summaries), "torn" in half.trouble) == (3, True)
    with path.open("ab") as file:
        file.write(line[100:])  # whole, but without its newline
    for _ in range(2):
        assert [s.run_id for s in index.read_index(path, cache).summaries][3:] == ["03-b"]


@pytest.mark.parametrize(
    "damage", ["edited", "shorter", "no cache", "old version", "other file", "a row less"]
)
def test_a_cache_of_something_else_is_not_used(make, path, tmp_path, damage):
    cache = tmp_path / "index.json"
    index.read_index(path, cache)
    lines = path.read_bytes().splitlines(keepends=True)
    head, *rows = cache.read_text().splitlines()
    match damage:
        case "edited":
            path.write_bytes(b"".join(lines).replace(b'"02-a"', b'"77-a"'))
        case "shorter":
            path.write_bytes(b"".join(lines[1:]))
        case "no cache":
            cache.write_bytes(b"[]")
        case "old version":
            cache.write_text(json.dumps({**json.loads(head), "version": -1}))
        case "other file":
            cache.write_text(json.dumps({**json.loads(head), "path": "/elsewhere"}))
        case "a row less":
            cache.write_text("\n".join([head, *rows[:-1]]))
    assert index.read_index(path, cache) == index.read_index(path)


def test_a_later_schema_is_refused_and_a_missing_file_is_empty(tmp_path):
    path = tmp_path / "results.jsonl"
    assert index.read_index(path, tmp_path / "c") == index.RecordIndex([])
    path.write_text('{"schema": 999}\n')
    with pytest.raises(store.NewerSchemaError, match=r"results\.jsonl line 1 .* newer workbench"):
        index.read_index(path, tmp_path / "c")
