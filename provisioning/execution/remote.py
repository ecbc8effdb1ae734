"""One attempt on a node of a cluster: its order, its claim, its signs of life. The rest is what a local worker does."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import socket
import threading
from pathlib import Path

import msgspec

from provisioning import __version__
from provisioning.clock import new_ulid
from provisioning.core.states import Outcome
from provisioning.core.workflow import FORMAT
from provisioning.errors import NotFound, ProvisioningError, Refused, SpoolUnusable
from provisioning.execution.attempt import Attempts, NotStarted
from provisioning.execution.executor import AttemptRequest
from provisioning.execution.family import adopt_orphans
from provisioning.ownership import refuse_unless_ours
from provisioning.storage import files, reading
from provisioning.storage.checkpoint import encode, load
from provisioning.storage.shared import AttemptFolder

TAKEN = 75
"""The exit code of whoever finds the attempt taken, or cannot begin it: nothing of it has happened here."""


class Order(msgspec.Struct, frozen=True):
    """What a node is asked to do."""

    format: int
    version: str
    """The program that asks: another may understand the request otherwise."""
    beat_seconds: float
    """Between two signs of life."""
    request: AttemptRequest


ANSWER = "answer."
"""How the names of the files begin in which nodes answer a probe."""


class Answer(msgspec.Struct, frozen=True):
    """What a node says of the shared directory."""

    format: int
    host: str
    version: str
    read: str
    claimed: bool


class _Told:
    """Whether Slurm, or who uses it, has told the attempt to end."""

    lag_seconds = 0.5

    def __init__(self) -> None:
        self.descriptor, end = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._told = False
        signal.set_wakeup_fd(end)
        signal.signal(signal.SIGTERM, lambda *_: None)  # the wakeup descriptor tells
        for number in (signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)

    def cancelled(self) -> bool:
        """Whether it has been told so."""
        with contextlib.suppress(BlockingIOError):
            while heard := os.read(self.descriptor, 64):
                self._told = self._told or signal.SIGTERM in heard
        return self._told


class OnNode:
    """The place of an attempt that is made here: it is wanted by whoever makes its claim."""

    read_elsewhere = True

    def __init__(self, folder: AttemptFolder) -> None:
        self._folder = folder
        self.log, self.outcome = str(folder.log), str(folder.outcome)
        self.locks = folder.path  # what it must hold, who asks for it holds
        self.claimed = False

    def is_wanted(self) -> bool:
        """Whether this process is the first that would make it."""
        self.claimed = self._folder.claim()
        return self.claimed


def run_attempt(path: Path) -> int:
    """Make the attempt of that folder, unless another makes it; the exit code: 0, 1 where it did not succeed, or 75.

    Refused where the folder is not of this user alone, or the order is of another version of the program.
    """
    folder = AttemptFolder(path)
    try:
        refuse_unless_ours(path, "folder of the attempt", os.geteuid())
        order = load(folder.order, Order)
    except FileNotFoundError:
        raise NotFound(f"there is no attempt in {path}", hint="it may have ended already") from None
    if order.version != __version__:
        text = f"{socket.gethostname()} has provisioning {__version__}, and {order.version} asks"
        raise Refused(text, hint="install the same version on every node; see: slurm.program")
    for needed in (order.request.argv[0], order.request.argv[-1]):
        if not os.path.exists(needed):
            text = f"{socket.gethostname()} does not have {needed}"
            raise NotFound(text, hint="install Nushell by the same path on every node, and mount the same directory")
    _settle_down()
    told, place = _Told(), OnNode(folder)
    scratch = files.Scratch(path / new_ulid())
    attempts = Attempts(scratch, told)
    beats = threading.Event()
    try:
        threading.Thread(target=_beat, args=(place, folder, order.beat_seconds, beats), daemon=True).start()
        record = attempts.run(order.request, place, lambda: None)
    except NotStarted as error:
        if place.claimed:
            folder.release()
        raise SpoolUnusable(str(error), hint="it is tried again") from error
    finally:
        beats.set()
        attempts.close()
        scratch.close()
    if record is None:
        return TAKEN
    return 0 if record.outcome is Outcome.SUCCEEDED else 1


def answer_probe(path: Path) -> None:
    """Say in that folder what this node reads there, and whether it made the claim."""
    folder = AttemptFolder(path)
    read = reading.read_regular(folder.order, 1000).decode(errors="replace")
    said = Answer(FORMAT, socket.gethostname(), __version__, read, claimed=folder.claim())
    scratch = files.Scratch(path / new_ulid())
    try:
        files.write_atomic(path / f"{ANSWER}{new_ulid()}", encode(said), durable=True, scratch=scratch)
    finally:
        scratch.close()


def _settle_down() -> None:
    """Be what a worker is: nobody's descriptors, the parent of orphans, no core files."""
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):  # the one that listed the folder
            if int(name) > 2:
                os.set_inheritable(int(name), False)
    adopt_orphans()
    os.chdir("/")
    os.umask(0o077)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _beat(place: OnNode, folder: AttemptFolder, seconds: float, ended: threading.Event) -> None:
    """Give signs of life. A file system that refuses one may take the next."""
    while not ended.wait(seconds):
        if place.claimed:
            with contextlib.suppress(ProvisioningError):
                folder.beat()


def is_current(order: Path) -> bool:
    """Whether the order is one that a node of this version would follow."""
    try:
        return load(order, Order).version == __version__
    except FileNotFoundError:
        return False


def longest_seconds(order: Path) -> float | None:
    """So long the ordered attempt takes at the most, until nothing of it lives; None where that is not known."""
    try:
        request = load(order, Order).request
    except FileNotFoundError:
        return None
    return None if request.timeout_seconds is None else request.timeout_seconds + 3 * request.grace_seconds


def order_of(request: AttemptRequest, lost_seconds: float) -> bytes:
    """The order for an attempt, as `run_attempt` reads it."""
    order = Order(FORMAT, __version__, max(0.1, min(10.0, lost_seconds / 5)), request)
    return msgspec.json.encode(order)
