"""The units under a real systemd, in a container of its own: readiness, restarts that cost no task, the watchdog."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.e2e.built import Built

pytestmark = [
    pytest.mark.root,
    pytest.mark.long,
    pytest.mark.timeout(900),
    pytest.mark.skipif(
        not (shutil.which("systemd-nspawn") and shutil.which("debootstrap")),
        reason="needs systemd-nspawn and debootstrap",
    ),
]

INSIDE = r"""
exec >/root/said 2>&1
as_user() { setpriv --reuid=provisioning --regid=provisioning --clear-groups env -u HOME provisioning "$@"; }
until_active() { until test "$(systemctl is-active provisioning-orchestrator)" = active; do sleep 0.1; done; }
main() { systemctl show -p MainPID --value provisioning-orchestrator; }
/root/provisioning install --start >/dev/null
echo "== ready $(systemctl show -p StatusText --value provisioning-orchestrator)"
echo "== does $(as_user selftest echo what-it-should --orchestrated --wait)"
as_user commands run --orchestrated --wait -- env >/root/variables
echo "== foreign $(grep -cE '^(LD_|PYTHON|NOTIFY_|WATCHDOG_|INVOCATION)' /root/variables)"
id=$(as_user selftest sleep 15 --orchestrated)
until ls /var/spool/provisioning/workflows/$id/logs/* >/dev/null 2>&1; do sleep 0.05; done
mkdir -p /etc/systemd/system/provisioning-orchestrator.service.d
printf '[Service]\nEnvironment=PROVISIONING_ORCHESTRATOR_DRAIN_SECONDS=0.1\nWatchdogSec=3\n' \
    >/etc/systemd/system/provisioning-orchestrator.service.d/test.conf
systemctl daemon-reload
before=$(main); kill -9 $before
until test "$(main)" != "$before" -a "$(main)" != 0; do sleep 0.1; done; until_active
systemctl restart provisioning-orchestrator
as_user workflow watch $id >/dev/null
kept=$(as_user workflow status $id --json | grep -c '"attempt":')
echo "== kept $kept attempt, $(as_user workflow list | grep -c succeeded) succeeded"
before=$(main); kill -STOP $before
until test "$(main)" != "$before" -a "$(main)" != 0; do sleep 0.1; done; until_active
echo "== watchdog $(journalctl -u provisioning-orchestrator | grep -c 'Watchdog timeout')"
mkdir -p /etc/systemd/system/provisioning-gateway.service.d
printf '[Service]\nEnvironment=PROVISIONING_GATEWAY_LISTEN=unix:/run/provisioning/gateway.sock\n' \
    >/etc/systemd/system/provisioning-gateway.service.d/test.conf
systemctl daemon-reload
systemctl enable --now provisioning-gateway 2>/dev/null
echo "== gateway $(systemctl show -p StatusText --value provisioning-gateway)"
systemctl disable --now provisioning-orchestrator provisioning-gateway 2>/dev/null
systemctl enable --now provisioning-drain.path provisioning-drain.timer 2>/dev/null
echo "== drained $(as_user selftest echo by-the-path-unit --orchestrated --wait --max-wait 60 2>/dev/null)"
until test "$(systemctl is-active provisioning-drain.service)" = inactive; do sleep 0.1; done
echo "== failed units: $(systemctl list-units --failed --no-legend 'provisioning*' | wc -l)"
provisioning uninstall >/dev/null 2>&1
echo "== left $(systemctl list-unit-files --no-legend 'provisioning*' | wc -l)"
"""

UNIT = """
[Unit]
After=dbus.service
[Service]
Type=oneshot
WorkingDirectory=/
ExecStart=/bin/bash /root/inside
ExecStopPost=/usr/bin/systemctl poweroff
[Install]
WantedBy=multi-user.target
"""


def test_under_a_real_systemd(built: Built, tmp_path: Path) -> None:
    root = tmp_path / "root"
    packages = "--include=systemd,systemd-sysv,dbus"
    made = subprocess.run(
        ["debootstrap", "--variant=minbase", packages, "bookworm", root], capture_output=True, check=False
    )
    if made.returncode:
        pytest.skip("no Debian can be bootstrapped here")
    shutil.copy(built.file, root / "root" / "provisioning")
    (root / "root" / "inside").write_text(INSIDE)
    units = root / "etc" / "systemd" / "system"
    (units / "inside.service").write_text(UNIT)
    (units / "multi-user.target.wants").mkdir(exist_ok=True)
    (units / "multi-user.target.wants" / "inside.service").symlink_to("/etc/systemd/system/inside.service")
    console = subprocess.run(
        ["systemd-nspawn", "--quiet", "--register=no", "--keep-unit", "--boot", "--directory", root],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=400,
        check=False,
    )
    said = (root / "root" / "said").read_text() if (root / "root" / "said").exists() else ""
    lines = [line for line in said.splitlines() if line.startswith("== ")]
    assert lines == [
        "== ready works /var/spool/provisioning with 10 slots",
        "== does what-it-should",
        "== foreign 0",
        "== kept 1 attempt, 3 succeeded",
        "== watchdog 1",
        "== gateway listens on unix:/run/provisioning/gateway.sock",
        "== drained by-the-path-unit",
        "== failed units: 0",
        "== left 0",
    ], said + console.stdout.decode(errors="replace")[-3000:]
