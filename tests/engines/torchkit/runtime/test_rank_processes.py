"""Who is named when several ranks fail: the first cause, not the one that only lost a peer."""

import signal
from pathlib import Path

import pytest

from engines.child import write_failure
from engines.messages import Failed
from engines.torchkit.runtime import rank_processes

LOST = "RuntimeError: gloo/transport/tcp/pair.cc:545 Connection reset by peer"
NCCL = "DistBackendError: NCCL error: remote process exited or there was a network error"


def ended(folder, *ranks: tuple[int, int, float, str, str]) -> list[int]:
    """Exit codes of (rank, exit code, t, error, hint) each; without an error it left no file."""
    codes = [0] * (1 + max(rank for rank, *_ in ranks))
    for rank, code, t, error, hint in ranks:
        if error:
            write_failure(folder / f"rank{rank}.json", Failed(error=error, hint=hint), t)
        codes[rank] = code
    return codes


@pytest.mark.parametrize("lost", [LOST, NCCL])
def test_an_error_of_its_own_wins_over_a_lost_peer(tmp_path, lost):
    found = rank_processes.find_first_cause(
        tmp_path,
        ended(tmp_path, (0, 1, 1.0, lost, "failed"), (1, 1, 2.0, "ValueError: x", "failed")),
    )
    assert found.error == "rank 1: ValueError: x (see ranks/rank1.log)"


def test_the_earlier_of_two_errors_wins_and_keeps_its_hint(tmp_path):
    found = rank_processes.find_first_cause(
        tmp_path,
        ended(
            tmp_path,
            (0, 1, 3.0, "ValueError: late", "failed"),
            (2, 1, 2.5, "OutOfMemoryError: CUDA out of memory", "oom-cuda"),
        ),
    )
    assert found.hint == "oom-cuda"
    assert found.error.startswith("rank 2: OutOfMemoryError")


def test_a_rank_that_was_killed_is_named_by_its_signal(tmp_path):
    found = rank_processes.find_first_cause(
        tmp_path, ended(tmp_path, (0, 1, 1.0, LOST, "failed"), (3, -9, 0, "", ""))
    )
    assert found.error == "rank 3 was ended by SIGKILL; see ranks/rank3.log"
    assert found.hint == "failed"


def test_a_sigterm_to_the_other_ranks_is_no_cause(tmp_path):
    found = rank_processes.find_first_cause(
        tmp_path, ended(tmp_path, (0, -signal.SIGTERM, 0, "", ""), (1, 3, 0, "", ""))
    )
    assert found.error == "rank 1 exited with 3 and did not say why; see ranks/rank1.log"


def test_a_lost_peer_is_told_when_nothing_better_is_known(tmp_path):
    found = rank_processes.find_first_cause(tmp_path, ended(tmp_path, (0, 1, 1.0, LOST, "failed")))
    assert found.error == f"rank 0: {LOST} (see engine.log)"


def test_a_usage_error_is_the_run_s_and_ranks_that_stopped_follow_it(tmp_path):
    said = "text_layers = [7]: the text tower takes 0 to 1"
    found = rank_processes.find_first_cause(
        tmp_path,
        ended(tmp_path, (0, 1, 2.0, said, "usage"), (1, 143, 1.0, "Stopped as asked.", "stopped")),
    )
    assert (found.error, found.hint) == (said, "usage")


def test_stopped_is_stopped_only_if_no_rank_failed_meanwhile(tmp_path):
    ended(tmp_path, (0, 143, 1.0, "Stopped as asked.", "stopped"))
    assert rank_processes.failure_after_stop(tmp_path, 2).hint == "stopped"
    ended(tmp_path, (1, 1, 1.0, "OSError: No space left on device", "failed"))
    assert rank_processes.failure_after_stop(tmp_path, 2).error.startswith(
        "rank 1: OSError: No space left"
    )


def test_a_failure_that_was_cut_is_as_none(tmp_path):
    (tmp_path / "rank0.json").write_text('{"kind": "failed", "err')
    found = rank_processes.find_first_cause(tmp_path, ended(tmp_path, (0, -11, 0, "", "")))
    assert found.error == "rank 0 was ended by SIGSEGV; see engine.log"


def test_nobody_outside_the_machine_reaches_the_store():
    store = rank_processes.open_store()
    port = f":{store.port:04X}"
    tables = [Path("/proc/net/tcp").read_text(), Path("/proc/net/tcp6").read_text()]
    rows = [line.split() for table in tables for line in table.splitlines()[1:]]
    listening = [row[1] for row in rows if row[3] == "0A" and row[1].endswith(port)]
    assert listening == [f"0100007F{port}"]
