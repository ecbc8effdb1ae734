"""What only root gives a local server: several users, a network, and limits. In a network namespace of its own."""

import re
import subprocess
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.nulib.attempts import Operations, end_servers, network_namespace, why_no_namespaces

pytestmark = [pytest.mark.nu, pytest.mark.root]

SETTINGS = """
[networks.default]
cidr = "10.201.7.0/29"
[networks.back]
cidr = "10.201.8.0/24"
"""


@pytest.fixture
def network() -> Iterator[int]:
    """A process in a network namespace of its own, where bridges are nobody else's matter."""
    with network_namespace() as pid:
        yield pid


@pytest.fixture
def operations(network: int) -> Iterator[Operations]:
    """Operations of root whose host is that network namespace."""
    if forbidden := why_no_namespaces(0):
        pytest.skip(forbidden)
    with tempfile.TemporaryDirectory(prefix="nulib-") as name:
        made = Operations(Path(name), 0)
        made.before = ["nsenter", f"--net=/proc/{network}/ns/net"]
        made.settings("site", SETTINGS)
        yield made
        end_servers(made)


@pytest.fixture
def name() -> str:
    return f"t-{uuid.uuid4().hex[:12]}"


def host(network: int, *words: str) -> str:
    """What a command says in the network namespace that plays the host's."""
    done = subprocess.run(
        ["nsenter", f"--net=/proc/{network}/ns/net", *words], capture_output=True, text=True, check=False
    )
    return done.stdout + done.stderr


def test_servers_of_a_network_reach_each_other(operations: Operations, network: int, name: str) -> None:
    one = operations.run("servers.create", name=name, infra="site")
    two = operations.run("servers.create", name=f"{name}-2", infra="site")
    other = operations.run("servers.create", name=f"{name}-3", infra="site", network="back")
    assert (one["ip"], two["ip"], other["ip"]) == ("10.201.7.2", "10.201.7.3", "10.201.8.2")

    def inside(argv: list[str]) -> dict[str, object]:
        answer: dict[str, object] = operations.run(
            "servers.exec", name=name, infra="site", argv=argv, allow_failure=True
        )
        return answer

    listen = "exec 3<>/dev/tcp/10.201.7.3/22"
    assert "refused" in str(inside(["bash", "-c", listen])["stderr"])  # answered, by the other server's kernel
    assert "inet 10.201.7.2/29" in str(inside(["ip", "-4", "address", "show", "eth0"])["stdout"])
    assert "refused" in host(network, "bash", "-c", "exec 3<>/dev/tcp/10.201.7.2/22")

    operations.run("servers.stop", name=name, infra="site")
    assert operations.run("servers.start", name=name, infra="site")["ip"] == "10.201.7.2"
    assert "refused" in str(inside(["bash", "-c", listen])["stderr"])

    for server in (name, f"{name}-2", f"{name}-3"):
        operations.run("servers.delete", name=server, infra="site")
    assert "pv" not in host(network, "ip", "-o", "link")


def test_a_bridge_without_address_is_finished(operations: Operations, network: int, name: str) -> None:
    """A kill between the steps that make a bridge leaves it so."""
    operations.run("servers.create", name=name, infra="site")
    (bridge,) = re.findall(r"pv-[0-9a-f]{8}", host(network, "ip", "-o", "link", "show", "type", "bridge"))
    host(network, "ip", "address", "flush", "dev", bridge)
    host(network, "ip", "link", "set", "dev", bridge, "down")
    operations.run("servers.create", name=f"{name}-2", infra="site")
    assert "refused" in host(network, "bash", "-c", "exec 3<>/dev/tcp/10.201.7.3/22")


def test_a_block_that_the_host_uses_already(operations: Operations, network: int, name: str) -> None:
    operations.run("servers.create", name=name, infra="site")
    operations.settings("other", SETTINGS)
    error = operations.error("servers.create", name=name, infra="other")
    assert error["code"] == "provisioning::local::no-network"
    assert "in use on this host, by pv-" in error["msg"]
    assert operations.run("servers.list", infra="other") == []
    assert "refused" in host(network, "bash", "-c", "exec 3<>/dev/tcp/10.201.7.2/22")


def test_a_network_that_is_full(operations: Operations, network: int, name: str) -> None:
    for number in range(5):
        operations.run("servers.create", name=f"{name}-{number}", infra="site")
    error = operations.error("servers.create", name=f"{name}-5", infra="site")
    assert error["code"] == "provisioning::local::network-full"
    assert not (operations.servers / "site" / f"{name}-5").exists()
    operations.run("servers.delete", name=f"{name}-2", infra="site")
    assert operations.run("servers.create", name=f"{name}-5", infra="site")["ip"] == "10.201.7.4"


@pytest.mark.parametrize("cidr", ["10.1.1.0", "10.1.1.0/31", "10.1.1.0/8", "10.1.1.300/24", "fd00::/64", "$(id)/24"])
def test_a_network_without_a_usable_block(operations: Operations, cidr: str) -> None:
    operations.settings("bad", f'[networks.default]\ncidr = "{cidr}"\n')
    error = operations.error("servers.create", name="web-1", infra="bad")
    assert error["code"] == "provisioning::servers::invalid-network"
    assert cidr in error["msg"]


def test_an_unknown_network(operations: Operations) -> None:
    error = operations.error("servers.create", name="web-1", infra="site", network="front")
    assert error["code"] == "provisioning::servers::invalid-network"
    assert "default, back" in error["help"]


def test_a_server_has_several_users(operations: Operations, name: str) -> None:
    operations.run("servers.create", name=name)
    become = "setpriv --reuid=www-data --regid=www-data --clear-groups"
    script = f"touch /srv/x && chown www-data:www-data /srv/x && {become} id -un"
    assert operations.run("servers.exec", name=name, argv=["sh", "-c", script])["stdout"] == "www-data\n"
    owner = (operations.servers / "default" / name / "root/srv/x").stat().st_uid
    assert owner > 1879048192


def test_a_plan_sets_limits(operations: Operations, name: str) -> None:
    operations.run("servers.create", name=name, plan="1xCPU-1GB")
    record = operations.servers / "default" / name / "cgroups"
    if not record.exists():
        pytest.skip("this host has no control groups that root may use")
    groups = [Path(line) for line in record.read_text().splitlines()]
    names = ("memory.max", "memory.limit_in_bytes")
    limits = [(group / name).read_text().strip() for group in groups for name in names if (group / name).exists()]
    assert limits == [str(1 << 30)]
    script = "head -c 1200M /dev/zero | tail -c 1200M | wc -c"
    ended = operations.run("servers.exec", name=name, argv=["bash", "-c", script], allow_failure=True)
    assert ended["stdout"].strip() != str(1200 << 20)
    operations.run("servers.delete", name=name)
    assert not any(group.exists() for group in groups)
