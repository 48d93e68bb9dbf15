"""A real Slurm cluster of one node, for tests: munge, controller and node on the loopback address.

Debian's packages slurmctld, slurmd, slurm-client and munge, as root; no systemd, no control
groups, no accounting. Two partitions: a job in `high` takes the node from jobs in `low`, which are
requeued. Partition `pair` has two nodes more, on the same address. Two GPUs are character devices
that nobody opens. Job numbers are no other cluster's, since tests look for processes by them.
"""

from __future__ import annotations

import contextlib
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
FirstJobId={port}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={root}/munge/socket
StateSaveLocation={root}/state
SlurmdSpoolDir={root}/spool-%n
SlurmctldPidFile={root}/slurmctld.pid
SlurmdPidFile={root}/slurmd-%n.pid
SlurmctldLogFile={root}/slurmctld.log
SlurmdLogFile={root}/slurmd-%n.log
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
KillWait=30
DefMemPerCPU=500
GresTypes=gpu
NodeName={host} NodeAddr=127.0.0.1 Port={ports[0]} CPUs=4 RealMemory=2000 Gres=gpu:2
NodeName=pair1 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[1]} CPUs=1 RealMemory=1500
NodeName=pair2 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[2]} CPUs=1 RealMemory=1500
PartitionName=low Nodes={host} Default=YES MaxTime=INFINITE State=UP PriorityTier=1 GraceTime=30
PartitionName=high Nodes={host} MaxTime=INFINITE State=UP PriorityTier=9 PreemptMode=OFF
PartitionName=pair Nodes=pair[1-2] MaxTime=INFINITE State=UP PriorityTier=1 PreemptMode=OFF
"""


def missing_programs() -> list[str]:
    """Programs of Slurm that are not installed."""
    folders = f"{os.environ['PATH']}:/usr/sbin:/sbin"
    return [name for name in PROGRAMS if shutil.which(name, path=folders) is None]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


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
        names = (self.host, "pair1", "pair2")
        for folder in (munge, root / "state", *(root / f"spool-{name}" for name in names)):
            folder.mkdir(mode=0o700)
        key = munge / "key"
        key.write_bytes(os.urandom(128))
        key.chmod(0o600)
        text = CONFIGURATION.format(
            root=root, host=self.host, port=free_port(), ports=[free_port() for _ in names]
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
        for name in names:
            self.run("slurmd", "-f", self.environment["SLURM_CONF"], "-N", name)
        deadline = time.monotonic() + 30
        words = ("sinfo", "--noheader", "--Node", "--states=idle", "--format=%N")
        while set(self.run(*words, check=False).split()) != set(names):
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

    def find_processes(self, title: str) -> list[int]:
        """Processes whose command line begins with `title`."""
        pids = []
        for process in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                line = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode()
                pids += [int(process.name)] if line.startswith(title) else []
        return pids

    def stop(self) -> None:
        """End all jobs and daemons."""
        self.run("scancel", "--user=root", check=False)
        deadline = time.monotonic() + 20
        while self.run("squeue", "--noheader", check=False) and time.monotonic() < deadline:
            time.sleep(0.2)
        daemons = [*self.root.glob("slurmd-*.pid"), self.root / "slurmctld.pid",
                   self.root / "munge/munged.pid"]  # fmt: skip
        for path in daemons:
            if path.exists():
                os.kill(pid := int(path.read_text()), signal.SIGTERM)
                while _is_running(pid) and time.monotonic() < deadline + 10:
                    time.sleep(0.1)
        shutil.rmtree(self.root, ignore_errors=True)
