"""A SLURM cluster of one node with two CPUs, for the length of a test and below one folder.

with Cluster(tmp_path) as cluster:
    with mock.patch.dict(os.environ, cluster.env):
        ...  # sbatch, squeue, submitit

It has no accounting, so there is no `sacct`, as on many small clusters. Its ports, node name and key are its
own, so several can run side by side.
"""

import os
import secrets
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

# Debian keeps the daemons where only root's PATH looks.
PATH = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "scontrol", "squeue", "scancel", "setpriv")

# Two CPUs whatever the machine has (config_overrides): tests count on two jobs at once and a third waiting.
# cred_expire is how long a requeued job waits before it starts again, 5 s at least; the others are seconds too.
# ReturnToService=1 brings a node back that crashed, but not one that `down` took away.
CONFIG = """
ClusterName={node}
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller_port}
SlurmUser=root
SlurmdUser=root
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmdLogFile={folder}/steps.log
PlugStackConfig={folder}/plugstack.conf
MailProg=/bin/true
ProctrackType=proctrack/pgid
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SlurmdParameters=config_overrides
SchedulerParameters=sched_min_interval=0,sched_interval=1,bf_interval=1,batch_sched_delay=0
JobRequeue=1
ReturnToService=1
SlurmctldTimeout=10
SlurmdTimeout=10
MessageTimeout=5
KillWait=2
MinJobAge=60
NodeName={node} NodeHostname={host} NodeAddr=127.0.0.1 Port={node_port} CPUs=2 RealMemory={memory}
PartitionName=test Nodes={node} Default=YES
"""


def available() -> str | None:
    """Why no cluster can be started here; None if it can."""
    if os.geteuid() == 0 and all(shutil.which(program, path=PATH) for program in PROGRAMS):
        return None
    return "needs Debian's slurm-wlm and munge (apt-get install slurm-wlm munge) and root"


def eventually(condition: Callable[[], Any], within: float = 15) -> Any:
    """What `condition` gives, once it is true.

    Raises:
        AssertionError: it is still false after `within` seconds.
    """
    until = time.monotonic() + within
    while not (value := condition()):
        assert time.monotonic() < until, f"not within {within} s; the last answer was {value!r}"
        time.sleep(0.1)
    return value


class Cluster:
    """Starts on entering, and on leaving kills every process that was told of it, jobs included.

    Args:
        folder: where its files go. Sockets are among them, whose paths must stay below 108 characters.

    Attributes:
        env: what a process needs in its environment to use this cluster.
        node: the name of its node.
    """

    def __init__(self, folder: Path):
        self.folder = folder.resolve()
        self.env = {"SLURM_CONF": str(self.folder / "slurm.conf"), "PATH": PATH}
        self._daemons: dict[str, subprocess.Popen] = {}
        self._ports = _free_ports(2)
        self.node = f"node{self._ports[1]}"

    def __enter__(self) -> "Cluster":
        self._configure()
        try:
            socket_ = self.folder / "munge.socket"
            files = [f"--{name}-file={self.folder}/munge.{name}" for name in ("key", "pid", "seed")]
            self._start("munged", "--foreground", "--force", f"--socket={socket_}", *files)
            eventually(socket_.exists)
            self.start_controller()
            self._start("slurmd", "-D", "-N", self.node)
            eventually(lambda: self.node_state() == "idle")
        except BaseException as error:
            self.stop()
            logs = "".join(f"--- {path.name}\n{path.read_text()}" for path in sorted(self.folder.glob("*.log")))
            raise RuntimeError(f"no SLURM cluster in {self.folder}:\n{logs}") from error
        return self

    def __exit__(self, *_: Any) -> None:
        self.stop()

    def stop(self) -> None:
        eventually(lambda: not self._killed())
        for daemon in self._daemons.values():
            daemon.wait()

    # ------------------------------------------------------------------------------------- commands

    def run(self, *command: str) -> str:
        """What `command` prints.

        Raises:
            subprocess.CalledProcessError: it failed; `stderr` says why.
        """
        env = {**os.environ, **self.env}
        return subprocess.run(command, env=env, check=True, capture_output=True, text=True, timeout=60).stdout

    def scontrol(self, *words: str) -> str:
        return self.run("scontrol", *words)

    def squeue(self, format: str = "%i %T %r", *words: str) -> list[str]:
        """A line per job that waits or runs, the oldest first; tasks of arrays have a line each."""
        return self.run("squeue", "--noheader", "--array", "--sort=i", f"--format={format}", *words).splitlines()

    def processes(self) -> list[int]:
        """Everything that runs for this cluster: daemons, jobs, and commands that ask it something.

        Jobs leave the process groups and sessions of their parents, but they keep the variable that says
        which cluster they belong to.
        """
        mark = f"SLURM_CONF={self.env['SLURM_CONF']}".encode()
        pids = []
        for path in Path("/proc").glob("[0-9]*/environ"):
            try:
                if mark in path.read_bytes().split(b"\0"):
                    pids.append(int(path.parent.name))
            except OSError:  # it has just ended
                continue
        return [pid for pid in pids if pid != os.getpid()]

    # ------------------------------------------------------------------------------- what can happen

    def node_state(self) -> str:
        """Such as "idle", "mixed", "allocated", "draining", "drained", "down"; "" while nobody answers."""
        try:
            return self.run("sinfo", "--noheader", "--format=%T").strip()
        except subprocess.CalledProcessError:
            return ""

    def drain(self) -> None:
        """What runs goes on; nothing new starts."""
        self._update_node("drain")

    def down(self) -> None:
        """As when a node fails: what ran is told to end, killed after KillWait, and requeued."""
        self._update_node("down")
        # A job that starts where its former self still ends is held, and its node drained.
        eventually(lambda: not any(_name(pid) == "slurmstepd" for pid in self.processes()))

    def resume(self) -> None:
        self._update_node("resume")

    def start_controller(self) -> None:
        self._start("slurmctld", "-D")
        eventually(self.node_state)

    def stop_controller(self) -> None:
        """Jobs run on, but no command is answered until `start_controller`; it saves its state first."""
        self._daemons["slurmctld"].terminate()
        self._daemons["slurmctld"].wait(60)

    # --------------------------------------------------------------------------------------- inside

    def _configure(self) -> None:
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20
        config = CONFIG.format(
            folder=self.folder,
            host=socket.gethostname().partition(".")[0],
            node=self.node,
            controller_port=self._ports[0],
            node_port=self._ports[1],
            memory=memory,
        )
        for name in ("state", "spool"):
            (self.folder / name).mkdir(parents=True)
        (self.folder / "slurm.conf").write_text(config)
        (self.folder / "plugstack.conf").touch()
        key = self.folder / "munge.key"
        key.touch(0o600)
        key.write_bytes(secrets.token_bytes(128))

    def _start(self, program: str, *options: str) -> None:
        # Should this process be killed before it can stop the daemons, they still end with it.
        command = ["setpriv", "--pdeathsig", "TERM", program, *options]
        with (self.folder / f"{program}.log").open("a") as log:
            self._daemons[program] = subprocess.Popen(
                command, env={**os.environ, **self.env}, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
            )

    def _update_node(self, state: str) -> None:
        self.scontrol("update", f"NodeName={self.node}", f"State={state}", "Reason=test")

    def _killed(self) -> list[int]:
        pids = self.processes()
        for pid in pids:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        return pids


def _name(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:  # it has just ended
        return ""


def _free_ports(count: int) -> list[int]:
    with socket.create_server(("127.0.0.1", 0)) as taken:  # held meanwhile, so that no port comes twice
        others = _free_ports(count - 1) if count > 1 else []
        return [taken.getsockname()[1], *others]
