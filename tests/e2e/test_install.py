"""From one file to a host that works, to the next version, and back: on a host whose folders are a test's own."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.e2e.built import ROOT, Built

pytestmark = pytest.mark.root
"""Installing is root's."""

HOST = """
    cp -a /etc /mnt/etc && mount --bind /mnt/etc /etc
    for folder in /opt /var/spool /var/lib /var/cache /usr/local/bin /usr/local/share; do
        mount -t tmpfs -o mode=755 none $folder
    done
    cd /
    export HOME=/root PATH=/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin
    as_user() { setpriv --reuid=provisioning --regid=provisioning --clear-groups env -u HOME "$@"; }
"""
"""A host of its own: an own /etc, and empty folders for what an installation writes."""


def test_a_host_works_a_minute_later_and_is_left_as_it_was(built: Built) -> None:
    said = built.elsewhere(
        f"""{HOST}
        $FILE install --check >/mnt/check
        ls -A /opt /var/spool /usr/local/bin
        ! id provisioning 2>/dev/null
        $FILE install --cron ops@example.org >/mnt/done
        sed 's/^would //' /mnt/check | grep -v cron | diff - <(grep -v cron /mnt/done)
        echo == again; $FILE install
        echo == works; as_user provisioning spool check; as_user provisioning selftest echo hello
        stat -c '%U %a' /var/spool/provisioning /etc/provisioning/credentials
        provisioning-orchestrator --help | head -1
        man --local-file /usr/local/share/man/man1/provisioning.1 | head -1 || true
        echo == verify; command -v systemd-analyze >/dev/null && systemd-analyze verify /etc/systemd/system/prov*
        echo == by hand; echo '# mine' >>/etc/systemd/system/provisioning-drain.timer
        provisioning uninstall
        find /opt /usr/local /etc/systemd/system /etc/cron.d -name '*provisioning*' -not -type d
        ls /var/spool/provisioning/format /etc/provisioning/config.toml
        """
    )
    parts = dict(part.split("\n", 1) for part in said.split("== ")[1:])
    assert parts["again"].startswith("nothing to do")
    assert "hello\n" in parts["works"]
    assert "provisioning 700\nroot 700\n" in parts["works"]
    assert "Usage: provisioning" in parts["works"]
    assert parts["verify"] == ""
    left = parts["by hand"].splitlines()
    assert "note: /etc/systemd/system/provisioning-drain.timer was changed by hand, and stays" in left
    assert [line for line in left if line.startswith("/")] == [
        "/etc/systemd/system/provisioning-drain.timer",
        "/etc/provisioning/config.toml",
        "/var/spool/provisioning/format",
    ]


def test_another_choice_is_kept_by_the_next_install(built: Built) -> None:
    said = built.elsewhere(
        f"""{HOST}
        $FILE --spool /var/lib/queue install --user root --cron --local-servers --prefix /opt/other >/dev/null
        grep -hE 'mount|User=|ExecStart' /etc/systemd/system/provisioning-orchestrator.service
        grep MAILTO /etc/cron.d/provisioning
        stat -c '%U %a' /var/lib/queue
        $FILE install --prefix /opt/other
        echo == by hand; echo '# mine' >>/etc/systemd/system/provisioning-drain.timer; $FILE install --prefix /opt/other
        tail -1 /etc/systemd/system/provisioning-drain.timer.before
        echo == changed; $FILE install --prefix /opt/other --no-cron --no-local-servers
        $FILE uninstall --prefix /opt/other >/dev/null
        """
    )
    assert "SystemCallFilter=@mount\n" in said
    assert "ExecStart=/opt/other/current/bin/provisioning --config /etc/provisioning/config.toml" in said
    assert "MAILTO=root\nroot 700\nnothing to do" in said
    timer = "/etc/systemd/system/provisioning-drain.timer"
    by_hand = said.partition("== by hand\n")[2].splitlines()
    assert by_hand[:2] == [f"keep what {timer} was as {timer}.before", f"write {timer}"]
    assert "# mine" in by_hand
    changed = said.partition("== changed\n")[2]
    assert changed.splitlines()[:4] == [
        "write /etc/systemd/system/provisioning-orchestrator.service",
        "write /etc/systemd/system/provisioning-drain.service",
        "remove /etc/cron.d/provisioning",
        "write /opt/other/installed.json",
    ]


def test_operators_get_their_doors(built: Built) -> None:
    said = built.elsewhere(
        f"""{HOST}
        useradd --system alice
        $FILE install --operators alice,nobody-here
        echo == again; $FILE install --operators alice
        stat -c '%U %a' /var/spool/provisioning/drop/alice
        as_user provisioning spool check
        grep authority /etc/provisioning/config.toml; ls /etc/provisioning/authority.toml
        """
    )
    assert "let in alice, nobody-here: spool init /var/spool/provisioning --operators alice,nobody-here" in said
    assert "    Match User alice" in said or "sshd_config" in said
    again = said.partition("== again\n")[2].splitlines()
    assert again[0].startswith("nothing to do")
    assert "alice 2770" in again


def test_what_cannot_be_installed_is_refused_before_anything_is_done(built: Built) -> None:
    said = built.elsewhere(
        f"""{HOST}
        try() {{ "$@" 2>&1 && exit 99 || echo "-> $?"; }}
        mkdir -p /var/spool/provisioning; echo 99 >/var/spool/provisioning/format
        try $FILE install
        rm -r /var/spool/provisioning; mkdir /var/spool/provisioning; chown 33 /var/spool/provisioning
        useradd --system provisioning
        try $FILE install
        rm -r /var/spool/provisioning
        try $FILE install --prefix '/opt/a b'
        try $FILE install --user 'a;b'
        try $FILE install --cron 'a$(b)'
        echo x >/usr/local/bin/provisioning
        try $FILE install
        try setpriv --reuid=65534 --clear-groups env HOME=/nowhere PROVISIONING_CACHE=/mnt/own $FILE install
        ls -A /opt /etc/provisioning 2>/dev/null | grep -v : || echo nothing was done
        """
    )
    assert re.findall(r"-> (\d+)", said) == ["5", "5", "2", "2", "2", "5", "6"]
    assert "nothing was done" in said
    assert "format 99" in said
    assert "belongs to uid 33" in said
    assert "is not a link of ours" in said


def test_an_image_is_laid_down_below_a_folder(built: Built) -> None:
    image = built.folder / "image"
    built.run("install", "--root", str(image))
    assert (image / "opt/provisioning/current/bin/provisioning").exists()
    assert (image / "usr/local/bin/provisioning").readlink() == Path("/opt/provisioning/current/bin/provisioning")
    assert not (image / "var").exists()
    unit = (image / "etc/systemd/system/provisioning-orchestrator.service").read_text()
    assert "@" not in unit.replace("@system-service", "").replace("@privileged", "")
    built.run("uninstall", "--root", str(image))
    left = sorted(path.relative_to(image).as_posix() for path in image.rglob("*") if not path.is_dir())
    assert left == ["etc/provisioning/authority.toml", "etc/provisioning/config.toml"]


def test_a_wheel_does_not_install_itself(built: Built) -> None:
    done = subprocess.run(
        [ROOT / ".venv/bin/provisioning", "install", "--check"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, "with the one file" in done.stderr) == (5, True)


@pytest.mark.parametrize(("exposure", "local"), [("17", ()), ("32", ("--local-servers",))])
@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="there is no systemd-analyze here")
def test_the_units_are_hardened(built: Built, exposure: str, local: tuple[str, ...]) -> None:
    image = built.folder / "image"
    built.run("install", "--root", str(image), *local)
    for name in ("orchestrator", "drain", "gateway"):
        unit = image / f"etc/systemd/system/provisioning-{name}.service"
        done = subprocess.run(
            ["systemd-analyze", "security", "--offline=true", "--no-pager", f"--threshold={exposure}", unit],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.long
def test_an_upgrade_takes_over_what_runs(built: Built, tmp_path: Path) -> None:
    newer = tmp_path / "newer"
    subprocess.run(
        [ROOT / "packaging/dev", "binary", "--only-file", "--to", newer],
        env={"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": "/root", "SOURCE_DATE_EPOCH": "1800000000"},
        check=True,
        capture_output=True,
    )
    said = built.elsewhere(
        f"""{HOST}
        export PROVISIONING_ORCHESTRATOR_DRAIN_SECONDS=0.1
        $FILE install >/dev/null 2>&1
        as_user provisioning orchestrator start
        id=$(as_user provisioning selftest sleep 8 --orchestrated)
        until ls /var/spool/provisioning/workflows/$id/logs/* >/dev/null 2>&1; do sleep 0.05; done
        {newer}/provisioning-* install
        as_user provisioning orchestrator stop
        as_user provisioning orchestrator start
        readlink -f /proc/$(pgrep -o -f 'orchestrator run')/exe
        ls /opt/provisioning/versions | wc -l
        as_user provisioning workflow watch $id
        as_user provisioning workflow status $id --json >/mnt/status
        grep -c '"attempt":' /mnt/status; grep -o '"state": "[a-z]*"' /mnt/status | sort -u
        readlink /opt/provisioning/current
        until test $(ls /proc/*/exe | xargs -r readlink 2>/dev/null | grep -c /opt/provisioning/versions/) -le 4; do
            sleep 0.2
        done
        provisioning install
        ls /opt/provisioning/versions | wc -l
        as_user provisioning orchestrator stop
        """
    )
    assert "stays while processes of it run" in said
    assert "\n2\n" in said, "the old version is there as long as its worker lives"
    assert '1\n"state": "succeeded"\n' in said
    assert "remove the version" in said
