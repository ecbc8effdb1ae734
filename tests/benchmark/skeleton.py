"""What the records and the isolation of an attempt cost by themselves: files, syncs, pipes and processes, no more.

One process hands tasks to workers, as the orchestrator does, and both make the system calls of an attempt, in their
order; nothing is decided, checked, redacted or recovered. It shows how far below the program Python could be here.

skeleton.py NU ENTRY REQUEST SLOTS COUNT FOLDER     a flat shape of so many tasks
"""

from __future__ import annotations

import fcntl
import json
import os
import select
import sys
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from typing import Any

Words = tuple[str, ...]
ENVIRONMENT = {"PATH": "/nonexistent", "HOME": "/nonexistent", "LANG": "C.UTF-8", "NO_COLOR": "1"}


def replace(temporary: str, path: str, data: bytes) -> None:
    """A checkpoint: a new file that takes the name."""
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    os.write(descriptor, data)
    os.close(descriptor)
    os.rename(temporary, path)


class Worker:
    """Runs one task after the other, with the process of the next one waiting."""

    def __init__(self, pipe: Connection, argv: Words, request: bytes, folder: str) -> None:
        self.pipe, self.argv, self.request, self.folder = pipe, argv, request, folder
        self.scratch = f"{folder}/tmp/{os.getpid()}"
        os.mkdir(self.scratch)
        self.outcomes = os.open(f"{folder}/outcomes", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    def start(self) -> None:
        """A process that waits for its request, and the locked log that will be its attempt's."""
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        self.log = os.open(f"{self.scratch}/log", flags, 0o600)
        fcntl.flock(self.log, fcntl.LOCK_EX | fcntl.LOCK_NB)
        self.reply = os.memfd_create("reply", os.MFD_CLOEXEC)
        self.output, output = os.pipe2(os.O_CLOEXEC)
        source, self.feed = os.pipe2(os.O_CLOEXEC)
        nothing = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        ends = [fcntl.fcntl(each, fcntl.F_DUPFD_CLOEXEC, 20) for each in (nothing, output, output, source)]
        ends += [fcntl.fcntl(each, fcntl.F_DUPFD_CLOEXEC, 20) for each in (self.reply, self.log)]
        moves = [(os.POSIX_SPAWN_DUP2, each, place) for place, each in enumerate(ends)]
        self.pid = os.posix_spawn(self.argv[0], self.argv, ENVIRONMENT, file_actions=moves, setpgroup=0)
        self.exit = os.pidfd_open(self.pid)
        for each in (nothing, output, source, *ends):
            os.close(each)

    def run(self, name: str) -> None:
        """One attempt, from its log's name to its outcome."""
        os.rename(f"{self.scratch}/log", f"{self.folder}/logs/{name}.1.log")
        with open(f"{self.folder}/tasks/{name}.json", "rb") as file:
            json.loads(file.read())
        os.write(self.feed, self.request)
        os.close(self.feed)
        with open(f"/proc/{self.pid}/stat", "rb") as file:
            file.read()
        poll = select.poll()
        poll.register(self.output, select.POLLIN)
        poll.register(self.exit, select.POLLIN)
        while self.exit not in dict(poll.poll()):
            if not os.read(self.output, 1 << 16):
                poll.unregister(self.output)
        os.waitpid(self.pid, 0)
        self.pipe.send_bytes(b"free")
        record = {"task_id": name, "answer": os.pread(self.reply, 1 << 16, 0).decode()}
        here = os.open(self.scratch, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        descriptor = os.open("outcome", os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600, dir_fd=here)
        os.write(descriptor, json.dumps(record).encode())
        os.fsync(descriptor)
        os.link("outcome", f"{name}.1.json", src_dir_fd=here, dst_dir_fd=self.outcomes)
        os.fsync(self.outcomes)
        os.unlink("outcome", dir_fd=here)
        for each in (descriptor, here, self.exit, self.output, self.reply, self.log):
            os.close(each)
        self.pipe.send_bytes(b"ended")

    def work(self) -> None:
        """Until there is nothing to do."""
        self.start()
        while name := self.pipe.recv_bytes():
            self.run(name.decode())
            self.start()
        os.kill(self.pid, 9)
        os.waitpid(self.pid, 0)


def main(nu: str, entry: str, request: str, slots: str, count: str, folder: str) -> None:
    """Hand out all tasks to twice as many workers as there are slots, and record their starts and ends."""
    for name in ("tmp", "tasks", "logs", "outcomes", "tmp/0"):
        os.makedirs(f"{folder}/{name}", exist_ok=True)
    pipes: dict[int, Connection] = {}
    for _ in range(2 * int(slots)):
        ours, theirs = Pipe()
        if not os.fork():
            ours.close()
            Worker(theirs, (nu, "--no-config-file", "--no-std-lib", entry), request.encode(), folder).work()
            os._exit(0)
        theirs.close()
        pipes[ours.fileno()] = ours
    poll = select.epoll()
    for each in pipes:
        poll.register(each, select.EPOLLIN)
    idle, busy, free, begun, ended = list(pipes), dict[int, str](), int(slots), 0, 0
    with open(f"{folder}/events.jsonl", "ab", buffering=0) as events:

        def record(name: str, state: str, **more: Any) -> None:
            data = json.dumps({"task_id": name, "state": state, **more}).encode()
            replace(f"{folder}/tmp/0/{begun}.{ended}", f"{folder}/tasks/{name}.json", data)
            events.write(data + b"\n")

        while ended < int(count):
            while free and idle and begun < int(count):
                free, begun, each, name = free - 1, begun + 1, idle.pop(0), f"t{begun}"
                busy[each] = name
                record(name, "running")
                pipes[each].send_bytes(name.encode())
            for each, _ in poll.poll():
                if pipes[each].recv_bytes() == b"free":
                    free += 1
                    continue
                ended += 1
                record(busy.pop(each), "succeeded")
                idle.append(each)
    for pipe in pipes.values():
        pipe.send_bytes(b"")
    for _ in pipes:
        os.wait()


if __name__ == "__main__":
    main(*sys.argv[1:])
