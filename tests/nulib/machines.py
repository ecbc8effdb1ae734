"""Machines that answer to ssh: real sshds, each with files and processes of its own, in one network namespace."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from pathlib import Path

from tests.nulib.attempts import wait_until

SSHD = shutil.which("sshd") or "/usr/sbin/sshd"

_BOOT = """\
set -eu
mount -t tmpfs tmpfs /run
mount -t tmpfs tmpfs /root
mkdir /run/sshd
mkdir -p /var/lib
mount --bind "$1/lib" /var/lib
while :; do
  cat /proc/sys/kernel/random/uuid >"$1/boot"
  unshare --pid --fork --kill-child --mount-proc sh -c '
    mount --bind "$1/boot" /proc/sys/kernel/random/boot_id
    exec "$2" -D -e -f "$1/config"' machine "$1" "$2" 2>>"$1/said" || :
  [ -e "$1/up" ] || exit 0
done
"""


def why_no_machines() -> str:
    """What keeps machines from running here; empty if nothing does."""
    if os.geteuid() != 0:
        return "only root can run a machine in namespaces of its own"
    missing = [program for program in (SSHD, "ssh", "ssh-keygen") if shutil.which(program) is None]
    return f"not installed: {', '.join(missing)} (openssh-server, openssh-client)" if missing else ""


class Machine:
    """One sshd. Its /var/lib is `folder/lib`; `kill 1` in it is its reboot."""

    def __init__(self, folder: Path, network: int, port: int, user_key: Path) -> None:
        folder.mkdir()
        (folder / "lib").mkdir()
        (folder / "up").touch()
        (folder / "bin").mkdir()
        self.folder, self.port = folder, port
        make_key(folder / "host_key")
        (folder / "authorized_keys").write_text(user_key.with_suffix(".pub").read_text())
        (folder / "config").write_text(
            f"Port {port}\nListenAddress 127.0.0.1\nHostKey {folder}/host_key\nUsePAM no\nStrictModes no\n"
            f"PidFile none\nAuthorizedKeysFile {folder}/authorized_keys\nPasswordAuthentication no\n"
            f"SetEnv PATH={folder}/bin:{os.environ['PATH']}\n"
        )
        self._process = subprocess.Popen(
            ["nsenter", f"--net=/proc/{network}/ns/net", "unshare", "--mount", "sh", "-c", _BOOT, "boot", folder, SSHD],
            start_new_session=True,
        )
        wait_until(lambda: b"Server listening" in self.said(), "sshd")

    def said(self) -> bytes:
        """What the sshd has printed so far."""
        path = self.folder / "said"
        return path.read_bytes() if path.exists() else b""

    def known_host(self) -> str:
        """Its line for a file of known hosts."""
        kind, key = (self.folder / "host_key.pub").read_text().split()[:2]
        return f"[127.0.0.1]:{self.port} {kind} {key}\n"

    def stop(self) -> None:
        """End it and all its processes."""
        (self.folder / "up").unlink(missing_ok=True)
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()


def make_key(path: Path) -> None:
    """An ed25519 key without a passphrase."""
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", path], check=True)
