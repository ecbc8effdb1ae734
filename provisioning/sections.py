"""Sections of the configuration: limits, doors, the disk, what is kept and shown, who is told, and the cluster."""

from __future__ import annotations

from pathlib import Path

import msgspec

from provisioning.core.identifiers import LOCAL, Executing
from provisioning.core.notices import NOTICES

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class Orchestrator(msgspec.Struct, frozen=True):
    """How much one orchestrator does at once, and how long it waits for what."""

    slots: int = 10
    active_workflows: int = 64
    scan_seconds: float = 5.0
    drain_seconds: float = 30.0
    idle_worker_seconds: float = 30.0
    standby_processes: int = 4
    """So many processes of Nushell at the most are started before their task is known; 0: none."""
    executor: Executing = LOCAL
    """Where attempts are made of which neither the task, its group nor its operation says it."""


class Bounds(msgspec.Struct, frozen=True):
    """What a manifest, a result, a log and the end of a process may take."""

    manifest_bytes: int = 64 << 20
    result_bytes: int = 1 << 20
    log_bytes: int = 10 << 20
    grace_seconds: float = 10.0
    """Between TERM and KILL."""


class Environment(msgspec.Struct, frozen=True):
    """What the process of a task gets: built from nothing, never inherited."""

    path: str = DEFAULT_PATH
    home: str = "/"
    lang: str = "C.UTF-8"
    tz: str = ""
    """Empty: the system's own."""
    variables: dict[str, str] = {}
    """Proxies, CA files and whatever else the operator named in [environment]."""


class Supervisor(msgspec.Struct, frozen=True):
    """Who started this process and wants to hear from it, as sd_notify(3) has it; not a setting of ours."""

    socket: str = ""
    """Absolute, or a name with @ before it; empty if nobody listens."""
    watchdog_seconds: float = 0.0
    """It is taken for hung after so long a silence; 0 is never."""


class Drop(msgspec.Struct, frozen=True):
    """What may come through the drop folders, how it must be proved, and how much of it there may be."""

    grace_seconds: float = 600.0
    """So long after its last change a file waits for the proof that it is whole."""
    max_bytes: int = 1 << 20
    trust_unsealed: bool = False
    """Take files that nothing proves whole: for those who only ever rename complete ones into the folder."""
    signature: str = "off"
    """`off`, `optional` or `required`."""
    parse_seconds: float = 0.3
    """Of processor time, for the text of one file."""
    parse_bytes: int = 256 << 20
    """Of memory, for one file."""
    max_values: int = 200_000
    files: int = 20_000
    """Of one operator at once in the folder; 0 is no bound, as below."""
    bytes: int = 1 << 30
    active_workflows: int = 20_000
    receipt_seconds: float = 30 * 86400.0
    """So long receipts are kept."""
    host: str = ""
    """What this host is called in `target_host`; empty: its own name."""


class Receive(msgspec.Struct, frozen=True):
    """What may come through `spool receive`."""

    signature: str = "off"


class Disk(msgspec.Struct, frozen=True):
    """What the disk under the spool must be, and have free before something is accepted or started; 0 is no mark."""

    network: bool = False
    """A file system that other hosts may have mounted is allowed: the operator says that only this one works it."""
    free_bytes: int = 64 << 20
    free_inodes: int = 1000


class Audit(msgspec.Struct, frozen=True):
    """The audit log: how large a part of it may be, and where its head is told."""

    bytes: int = 64 << 20
    syslog: Path = Path("/dev/log")


class Metrics(msgspec.Struct, frozen=True):
    """What an orchestrator writes for monitoring, how often and where."""

    seconds: float = 15.0
    """Between two writes; 0: none."""
    file: Path | None = None
    """In the folder of node_exporter's textfile collector, where everybody may read it; None: `metrics.prom` in the
    spool, which is its owner's alone."""


class Retention(msgspec.Struct, frozen=True):
    """How long what has ended is kept, and how much of it; 0 is for ever, and all."""

    age_seconds: float = 0.0
    count: int = 0
    """So many of the workflows that ended are kept, the latest."""


class Notify(msgspec.Struct, frozen=True):
    """The program that is told what happens to workflows, and of what."""

    command: tuple[str, ...] = ()
    """Its absolute path, and its arguments; without one nobody is told."""
    on: tuple[str, ...] = NOTICES
    seconds: float = 30.0
    """So long one run of it may take."""
    at_once: int = 4


class Gateway(msgspec.Struct, frozen=True):
    """What `provisioning serve` listens on, and what it needs where that is not this host alone."""

    listen: tuple[str, ...] = ("localhost:9090",)
    """`localhost:PORT`, `unix:/PATH`, or `HOST:PORT`, which needs certificate, key and tokens."""
    certificate: Path | None = None
    key: Path | None = None
    hosts: tuple[str, ...] = ()
    """Names under which it is reached by others, besides those in `listen`."""
    body_bytes: int = 8 << 20


class Slurm(msgspec.Struct, frozen=True):
    """The cluster that makes attempts: how it is asked, and how long it is waited for."""

    directory: Path | None = None
    """A folder of this user alone that this host and all nodes see by this path; None: there is no cluster."""
    slots: int = 100
    """So many attempts are with Slurm at once, waiting in its queue or running."""
    partition: str = ""
    """Empty: its default, as the account below."""
    account: str = ""
    arguments: tuple[str, ...] = ()
    """More for `sbatch`, such as `--mem=2G`."""
    poll_seconds: float = 2.0
    """Between two looks at the queue and the directory."""
    lost_seconds: float = 300.0
    """So long an attempt that was begun and that Slurm knows no more must give no sign of life until it is lost."""
    commands: Path = Path("/usr/bin")
    """The folder of sbatch, squeue, scancel, srun and sinfo."""
    conf: Path | None = None
    """Their SLURM_CONF, where it is not the one that they find themselves."""
    program: tuple[str, ...] = ()
    """What starts this program on a node; empty: what started it here, by the same path."""
