"""taskservs.* on real local servers: what runs there answers; what cannot is tested up to its generated files."""

import hashlib
import json
import shutil
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.nulib.attempts import NULIB, Operations, wait_until
from tests.nulib.sites import INFRA, LocalSite, local_site

pytestmark = pytest.mark.nu

NAMES = ["chrony", "containerd", "etcd", "haproxy", "nginx", "os"]


def needs(program: str) -> pytest.MarkDecorator:
    found = shutil.which(program) or shutil.which(program, path="/usr/sbin:/sbin")
    return pytest.mark.skipif(found is None, reason=f"{program} is not installed (.ci/run installs it)")


class Server:
    """One running server, and the taskservs on it."""

    def __init__(self, site: LocalSite) -> None:
        self.operations: Operations = site.operations
        self.name = site.name
        self.operations.run("servers.create", name=self.name, infra=INFRA)

    def taskserv(self, verb: str, *name: str, **given: Any) -> Any:
        named = {"name": name[0]} if name else {}
        return self.operations.run(f"taskservs.{verb}", **named, server=self.name, infra=INFRA, **given)

    def refused(self, verb: str, *name: str, **given: Any) -> dict[str, Any]:
        named = {"name": name[0]} if name else {}
        return self.operations.error(f"taskservs.{verb}", **named, server=self.name, infra=INFRA, **given)

    def inside(self, *argv: str) -> str:
        ended = self.operations.run("servers.exec", name=self.name, infra=INFRA, argv=list(argv), allow_failure=True)
        return str(ended["stdout"] + ended["stderr"])

    def get(self, port: int) -> str:
        """The page at `/` of that port, asked for in the server."""
        script = 'exec 3<>"/dev/tcp/127.0.0.1/$0"; printf "GET / HTTP/1.0\\r\\n\\r\\n" >&3; cat <&3'
        return self.inside("bash", "-c", script, str(port))


@pytest.fixture
def server() -> Iterator[Server]:
    with local_site() as site:
        yield Server(site)


@needs("nginx")
def test_nginx(server: Server) -> None:
    data = {"port": 8080, "index": "first"}
    would = server.taskserv("create", "nginx", data=data, check=True)
    files = ["/etc/nginx/nginx.conf", "/var/www/site/index.html"]
    assert (would["changed"], would["files"]) == (True, files)
    assert server.taskserv("list") == []
    created = server.taskserv("create", "nginx", data=data)
    assert (created["changed"], created["files"]) == (True, files)
    assert server.get(8080).endswith("first\n")

    again = server.taskserv("create", "nginx", data=data)
    assert (again["changed"], again["files"]) == (False, [])
    assert server.taskserv("check", "nginx")["healthy"]
    assert [one["name"] for one in server.taskserv("list")] == ["nginx"]
    assert server.taskserv("check-updates") == [{"name": "nginx", "installed": "1", "available": "1", "update": False}]

    updated = server.taskserv("create", "nginx", data={**data, "index": "second"})
    assert (updated["changed"], updated["files"]) == (True, ["/var/www/site/index.html"])
    assert server.get(8080).endswith("second\n")
    server.inside("sh", "-c", "echo broken >/etc/nginx/nginx.conf")
    assert server.taskserv("create", "nginx", data={**data, "index": "second"})["files"] == ["/etc/nginx/nginx.conf"]
    assert server.get(8080).endswith("second\n")

    server.operations.settings(INFRA, "[taskservs.nginx]\nworker_connections = 64\n")
    assert server.taskserv("check-updates")[0]["update"]
    server.inside("nginx", "-s", "stop")
    assert server.refused("check", "nginx")["code"] == "provisioning::taskservs::unhealthy"
    assert server.taskserv("create", "nginx", data=data)["changed"]
    assert "worker_connections 64;" in server.inside("cat", "/etc/nginx/nginx.conf")

    assert server.taskserv("delete", "nginx")["changed"]
    assert server.taskserv("list") == []
    assert "refused" in server.get(8080)
    assert not server.taskserv("delete", "nginx")["changed"]
    assert server.refused("check", "nginx")["code"] == "provisioning::taskservs::not-found"


@needs("nginx")
def test_a_configuration_that_nginx_refuses(server: Server) -> None:
    error = server.refused("create", "nginx", data={"port": 8080, "body_limit": "huge"})
    assert error["code"] == "provisioning::taskservs::step-failed"
    assert "client_max_body_size" in error["msg"]
    assert server.taskserv("list") == []


@needs("nginx")
@needs("haproxy")
def test_haproxy_in_front_of_nginx(server: Server) -> None:
    server.taskserv("create", "nginx", data={"port": 8080, "index": "behind"})
    backends = [{"name": "web-1", "address": "127.0.0.1:8080"}]
    assert server.taskserv("create", "haproxy", data={"port": 8000, "backends": backends})["changed"]
    assert server.get(8000).endswith("behind\n")
    assert not server.taskserv("create", "haproxy", data={"port": 8000, "backends": backends})["changed"]
    assert server.taskserv("create", "haproxy", data={"port": 8001, "backends": backends})["changed"]
    assert server.get(8001).endswith("behind\n")
    assert server.taskserv("delete", "haproxy")["changed"]
    assert "refused" in server.get(8001)


def test_os(server: Server) -> None:
    users = [{"name": "ops", "keys": ["ssh-ed25519 AAAA ops"], "groups": ["www-data"]}]
    several = "0 65536" in " ".join(server.inside("cat", "/proc/self/uid_map").split()[1:])
    data: dict[str, Any] = {"timezone": "Europe/Helsinki", "domain": "example.org"}
    data |= {"hosts": [{"ip": "192.0.2.7", "name": "db"}], "sysctl": [{"key": "net.ipv4.ip_default_ttl", "value": 63}]}
    data |= {"users": users if several else []}
    assert server.taskserv("create", "os", data=data)["changed"]
    assert not server.taskserv("create", "os", data=data)["changed"]
    assert server.inside("hostname") == f"{server.name}\n"
    assert "192.0.2.7 db\n" in server.inside("cat", "/etc/hosts")
    assert server.inside("readlink", "/etc/localtime") == "/usr/share/zoneinfo/Europe/Helsinki\n"
    assert server.inside("cat", "/proc/sys/net/ipv4/ip_default_ttl") == "63\n"
    if several:
        assert server.inside("stat", "-c", "%a %U", "/home/ops/.ssh/authorized_keys") == "600 ops\n"
        assert "www-data" in server.inside("id", "-nG", "ops")
        assert "AAAA ops" in server.inside("cat", "/home/ops/.ssh/authorized_keys")


@pytest.mark.parametrize(
    "data", [{"users": [{"name": "a b"}]}, {"sysctl": [{"key": "a/../b", "value": 1}]}, {"timezone": "../../etc"}]
)
def test_os_refuses_what_is_no_name(server: Server, data: dict[str, Any]) -> None:
    assert server.refused("create", "os", data=data)["code"] == "provisioning::taskservs::invalid-data"
    assert "90-provisioning" not in server.inside("ls", "/etc/sysctl.d")


def test_what_is_needed_comes_first(server: Server) -> None:
    error = server.refused("create", "etcd")
    assert error["code"] == "provisioning::taskservs::invalid-dependency"
    assert f"taskserv create os --server {server.name}" in error["help"]
    server.taskserv("create", "os")
    records = {"name": "etcd", "version": "1", "digest": "", "data": {}}
    script = "cat >/var/lib/provisioning/taskservs/etcd.json"
    server.operations.run(
        "servers.exec", name=server.name, infra=INFRA, argv=["sh", "-c", script], input=json.dumps(records) + "\n"
    )
    error = server.refused("delete", "os")
    assert error["code"] == "provisioning::taskservs::invalid-removal"


def test_a_bundle_is_checked(server: Server, tmp_path: Path) -> None:
    folder = server.operations.nulib / "taskservs" / "carried"
    (folder / "templates").mkdir(parents=True)
    (folder / "taskserv.toml").write_text('version = "2"\nprograms = ["carried-along"]\n')
    (folder / "steps.nu").write_text(
        "use ../../lib/steps.nu *\ndef main []: any -> nothing {\n"
        "  collect | take-steps { install: {|it| have-programs $it } }\n}\n"
    )
    settings = server.operations.settings(INFRA, 'offline = true\nbundle = "bundle"\n')
    error = server.refused("create", "carried")
    assert error["code"] == "provisioning::taskservs::invalid-bundle"
    assert "carried-along" in error["msg"]
    bundle = settings / "bundle" / "carried"
    bundle.mkdir(parents=True)
    (bundle / "carried-along").write_text("#!/bin/sh\necho carried\n")
    (bundle / "SHA256SUMS").write_text(f"{'0' * 64}  carried-along\n")
    assert server.refused("create", "carried")["code"] == "provisioning::taskservs::invalid-bundle"
    digest = hashlib.sha256((bundle / "carried-along").read_bytes()).hexdigest()
    (bundle / "SHA256SUMS").write_text(f"{digest}  carried-along\n")
    (bundle / "more").write_text("not listed")
    assert "more" in server.refused("create", "carried")["msg"]
    (bundle / "more").rename(bundle / ".more")
    assert ".more" in server.refused("create", "carried")["msg"]
    (bundle / ".more").unlink()
    error = server.refused("create", "carried")
    assert error["code"] == "provisioning::taskservs::step-failed"
    assert "Read-only" in error["msg"]  # the host's programs are not the server's to change
    server.inside("mount", "-t", "tmpfs", "tmpfs", "/usr/local/bin")
    assert server.taskserv("create", "carried")["changed"]
    assert server.inside("carried-along") == "carried\n"


GENERATED: dict[str, tuple[dict[str, Any], str, list[str]]] = {
    "chrony": (
        {"servers": ["10.0.0.1"], "allow": ["10.0.0.0/8"], "local_stratum": 10},
        "/etc/chrony/chrony.conf",
        ["server 10.0.0.1 iburst", "pool 2.debian.pool.ntp.org iburst", "allow 10.0.0.0/8", "local stratum 10"],
    ),
    "etcd": (
        {"members": [{"name": "db-1", "ip": "10.0.0.1"}, {"name": "db-2", "ip": "10.0.0.2"}]},
        "/etc/default/etcd",
        [
            "ETCD_NAME=db-1",
            "ETCD_LISTEN_PEER_URLS=http://10.0.0.1:2380",
            'ETCD_INITIAL_CLUSTER="db-1=http://10.0.0.1:2380,db-2=http://10.0.0.2:2380"',
        ],
    ),
    "containerd": (
        {"systemd_cgroup": False},
        "/etc/containerd/config.toml",
        ['root = "/var/lib/containerd"', "    SystemdCgroup = false", '  address = "/run/containerd/containerd.sock"'],
    ),
    "nginx": (
        {"upstreams": ["10.0.0.2:8080", "10.0.0.3:8080"]},
        "/etc/nginx/nginx.conf",
        ["user www-data;", "        server 10.0.0.2:8080;", "            proxy_pass http://others;"],
    ),
    "haproxy": (
        {"mode": "tcp", "check_path": "", "backends": [{"name": "a", "address": "10.0.0.2:1"}]},
        "/etc/haproxy/haproxy.cfg",
        ["    mode tcp", "    server a 10.0.0.2:1 check inter 1s", "    user haproxy"],
    ),
    "os": ({"domain": "example.org"}, "/etc/hosts", ["127.0.1.1 db-1.example.org db-1"]),
}


@pytest.mark.parametrize("name", NAMES)
def test_generated_files(operations: Operations, name: str) -> None:
    data, path, lines = GENERATED[name]
    out = operations.folder / "out"
    given = {"name": name, "out": str(out), "server": "db-1", "ip": "10.0.0.1", "data": data}
    files = operations.run("taskservs.generate", **given)
    text = (out / path.lstrip("/")).read_text()
    assert path in [file["path"] for file in files]
    for line in lines:
        assert line.strip() in [each.strip() for each in text.splitlines()]
    if path.endswith(".toml"):
        tomllib.loads(text)
    assert "{{" not in text


@pytest.mark.parametrize("given", [{}, {"out": ""}, {"out": "out"}])
def test_files_are_generated_into_an_absolute_path_alone(operations: Operations, given: dict[str, str]) -> None:
    error = operations.error("taskservs.generate", name="nginx", **given)
    assert error["code"] == "provisioning::taskservs::invalid-folder"


def test_definitions(operations: Operations) -> None:
    assert [one["name"] for one in operations.run("taskservs.list")] == NAMES
    assert sorted(path.parent.name for path in NULIB.glob("taskservs/*/taskserv.toml")) == NAMES
    error = operations.error("taskservs.generate", name="nginx", out="/x", data={"prot": 1})
    assert error["code"] == "provisioning::taskservs::invalid-data"
    assert "port" in error["help"]
    assert (
        operations.error("taskservs.generate", name="ngnix", out="/x")["code"] == "provisioning::taskservs::not-found"
    )
    assert operations.error("taskservs.generate", name="../x", out="/x")["code"].endswith("::invalid-taskserv")


def test_a_local_server_lacks_what_its_host_lacks(server: Server) -> None:
    folder = server.operations.nulib / "taskservs" / "lacking"
    folder.mkdir()
    (folder / "taskserv.toml").write_text('packages = ["no-such-package"]\nprograms = ["no-such-program"]\n')
    (folder / "steps.nu").write_text(
        "use ../../lib/steps.nu *\ndef main []: any -> nothing {\n"
        "  collect | take-steps { install: {|it| have-programs $it } }\n}\n"
    )
    error = server.refused("create", "lacking")
    assert error["code"] == "provisioning::taskservs::invalid-host"
    assert "lacks no-such-program" in error["msg"]
    assert "apt install no-such-package" in error["help"]


def test_killed_in_mid_create(server: Server) -> None:
    """Some of its files are there, and no record: the next create makes it whole."""
    files = server.operations.servers / INFRA / server.name / "root"
    data = {"domain": "example.org"}
    first = server.operations.start("taskservs.create", name="os", server=server.name, infra=INFRA, data=data)
    wait_until(lambda: "example.org" in (files / "etc/hosts").read_text(), "a file of it")
    first.kill()
    assert server.taskserv("list") == []
    assert server.taskserv("create", "os", data=data)["changed"]
    assert not server.taskserv("create", "os", data=data)["changed"]
    assert [one["name"] for one in server.taskserv("list")] == ["os"]
    assert (files / "etc/sysctl.d/90-provisioning.conf").exists()


def test_a_damaged_record_counts_as_none(server: Server) -> None:
    server.taskserv("create", "os")
    folder = "/var/lib/provisioning/taskservs"
    bad = ["not json", "[1]", '{"name": "x"}', '{"name": 1, "version": "1", "digest": "", "data": []}']
    words = "".join(f"printf '%s\\n' '{line}' >{folder}/bad-{n}.json; " for n, line in enumerate(bad))
    server.inside("sh", "-c", words)
    assert [one["name"] for one in server.taskserv("list")] == ["os"]
    server.inside("sh", "-c", f"echo broken >{folder}/os.json")
    assert server.taskserv("list") == []
    assert server.taskserv("create", "os")["changed"]
    assert [one["name"] for one in server.taskserv("list")] == ["os"]


@pytest.mark.parametrize(
    ("definition", "said"),
    [
        ("version =", "taskserv.toml cannot be read"),
        ('[[files]]\npath = "etc/x"\ntemplate = "x.tmpl"\n', "no absolute path"),
        ('[[files]]\npath = "/etc/x"\ntemplate = "../../os/taskserv.toml"\n', 'no template "../../os/taskserv.toml"'),
        ('[[files]]\npath = "/etc/x"\ntemplate = "y.tmpl"\n', 'no template "y.tmpl"'),
        ("", "no steps.nu"),
    ],
)
def test_a_bad_definition_is_named_and_stops_no_other(operations: Operations, definition: str, said: str) -> None:
    folder = operations.nulib / "taskservs" / "bad"
    (folder / "templates").mkdir(parents=True)
    (folder / "taskserv.toml").write_text(definition)
    if definition:
        (folder / "steps.nu").write_text("")
    error = operations.error("taskservs.generate", name="bad", out=str(operations.folder / "out"))
    assert error["code"] == "provisioning::taskservs::invalid-definition"
    assert said in error["msg"]
    listed = {one["name"]: one["description"] for one in operations.run("taskservs.list")}
    assert said in listed.pop("bad")
    assert list(listed) == NAMES


@pytest.mark.parametrize("steps", ["def main []: any -> nothing { collect | ", "print not-json", ""])
def test_steps_that_give_no_answer(server: Server, steps: str) -> None:
    folder = server.operations.nulib / "taskservs" / "bad"
    folder.mkdir()
    (folder / "taskserv.toml").write_text('version = "1"\n')
    (folder / "steps.nu").write_text(steps)
    error = server.refused("create", "bad")
    assert error["code"] == "provisioning::taskservs::step-failed"
    assert "the step install gave no answer" in error["msg"]
