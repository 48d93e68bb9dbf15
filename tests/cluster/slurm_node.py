"""A real Slurm cluster of one node, for tests: munge, controller and node on the loopback address.

Debian's packages slurmctld, slurmd, slurm-client and munge, as root; no systemd, no control
groups, no accounting. Two partitions: a job in `high` takes the node from jobs in `low`, which are
requeued.
Two GPUs are character devices that nobody opens.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scontrol", "scancel")
CONFIGURATION = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
SlurmdPort={node_port}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={root}/munge/socket
StateSaveLocation={root}/state
SlurmdSpoolDir={root}/spool
SlurmctldPidFile={root}/slurmctld.pid
SlurmdPidFile={root}/slurmd.pid
SlurmctldLogFile={root}/slurmctld.log
SlurmdLogFile={root}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SwitchType=switch/none
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
SchedulerParameters=batch_sched_delay=0,bf_interval=2,sched_min_interval=100000
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SlurmctldParameters=preempt_send_user_signal
SlurmdParameters=config_overrides
ReturnToService=2
KillWait=10
DefMemPerCPU=500
GresTypes=gpu
NodeName={host} NodeAddr=127.0.0.1 CPUs=2 RealMemory=2000 Gres=gpu:2 State=UNKNOWN
PartitionName=low Nodes={host} Default=YES MaxTime=INFINITE State=UP PriorityTier=1 GraceTime=30
PartitionName=high Nodes={host} MaxTime=INFINITE State=UP PriorityTier=9 PreemptMode=OFF
"""


def missing_programs() -> list[str]:
    """Programs of Slurm that are not installed."""
    folders = f"{os.environ['PATH']}:/usr/sbin:/sbin"
    return [name for name in PROGRAMS if shutil.which(name, path=folders) is None]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class SlurmNode:
    """The cluster; `stop` ends its daemons and removes its files."""

    def __init__(self) -> None:
        self.root = Path(tempfile.mkdtemp(prefix="wb-slurm-"))  # a socket's path must be short
        self.root.chmod(0o711)
        self.host = socket.gethostname().split(".")[0]
        self.environment = {
            "PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin",
            "SLURM_CONF": str(self.root / "slurm.conf"),
        }

    def start(self) -> None:
        """Start the daemons and wait for the node."""
        munge, root = self.root / "munge", self.root
        for folder in (munge, root / "state", root / "spool"):
            folder.mkdir(mode=0o700)
        key = munge / "key"
        key.write_bytes(os.urandom(128))
        key.chmod(0o600)
        text = CONFIGURATION.format(
            root=root, host=self.host, port=free_port(), node_port=free_port()
        )
        (root / "slurm.conf").write_text(text)
        (root / "cgroup.conf").write_text("CgroupAutomount=no\n")
        for number in (0, 1):
            os.mknod(root / f"gpu{number}", 0o020666, os.makedev(1, 3))  # as /dev/null
        (root / "gres.conf").write_text(f"NodeName={self.host} Name=gpu File={root}/gpu[0-1]\n")
        self.run(
            "munged", "--force", f"--key-file={key}", f"--socket={munge}/socket",
            f"--pid-file={munge}/munged.pid", f"--log-file={munge}/log",
            f"--seed-file={munge}/seed",
        )  # fmt: skip
        self.run("slurmctld", "-f", self.environment["SLURM_CONF"])
        self.run("slurmd", "-f", self.environment["SLURM_CONF"], "-N", self.host)
        deadline = time.monotonic() + 30
        while "idle" not in self.run("sinfo", "--noheader", "--format=%t", check=False):
            assert time.monotonic() < deadline, (root / "slurmctld.log").read_text()[-2000:]
            time.sleep(0.2)

    def run(self, *words: str, check: bool = True) -> str:
        """Standard output of a command of Slurm."""
        done = subprocess.run(
            words, env={**os.environ, **self.environment}, capture_output=True, text=True,
            timeout=60, check=False, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        assert not check or done.returncode == 0, f"{words}: {done.stderr}"
        return done.stdout

    def state(self, job: str) -> str:
        """Slurm's word for a job or a task."""
        return self.run("squeue", "--noheader", "--states=all", "--format=%T", f"--jobs={job}",
                        check=False).strip()  # fmt: skip

    def stop(self) -> None:
        """End all jobs and daemons."""
        self.run("scancel", "--user=root", check=False)
        deadline = time.monotonic() + 20
        while self.run("squeue", "--noheader", check=False) and time.monotonic() < deadline:
            time.sleep(0.2)
        for file in ("slurmd.pid", "slurmctld.pid", "munge/munged.pid"):
            path = self.root / file
            if path.exists():
                os.kill(pid := int(path.read_text()), signal.SIGTERM)
                while Path(f"/proc/{pid}/stat").exists() and time.monotonic() < deadline + 10:
                    time.sleep(0.1)
        shutil.rmtree(self.root, ignore_errors=True)
