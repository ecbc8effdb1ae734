"""What every provider promises, held against each of them: nothing is made twice, nothing is lost."""

from collections.abc import Iterator
from typing import Any

import pytest

from tests.nulib.attempts import wait_until
from tests.nulib.cloud_sites import aws_site, upcloud_site
from tests.nulib.sites import INFRA, Site, local_site, ssh_site

pytestmark = pytest.mark.nu


SITES: dict[str, Any] = {"local": local_site, "ssh": ssh_site, "upcloud": upcloud_site, "aws": aws_site}
SLOW = {"aws"}
"""Each look at EC2 is a start of the `aws` command, which takes half a second."""
PARAMS = [
    pytest.param(name, marks=[pytest.mark.long, pytest.mark.timeout(600)] if name in SLOW else []) for name in SITES
]


@pytest.fixture(params=PARAMS)
def site(request: pytest.FixtureRequest) -> Iterator[Site]:
    """A site of each provider."""
    with SITES[request.param]() as made:
        yield made


def test_life(site: Site) -> None:
    run, name = site.operations.run, site.name
    provider = site.operations.run("servers.list", infra=INFRA)
    assert provider == []
    error = site.operations.error("servers.show", name=name, infra=INFRA)
    assert error["code"] == "provisioning::servers::not-found"

    created = run("servers.create", name=name, infra=INFRA, provider=site.provider, plan=site.plan)
    assert (created["name"], created["infra"], created["provider"]) == (name, INFRA, site.provider)
    assert (created["state"], created["changed"]) == ("running", True)
    server = {key: value for key, value in created.items() if key != "changed"}
    assert site.there() == [name]

    again = run("servers.create", name=name, infra=INFRA, provider=site.provider, plan=site.plan)
    assert again == server | {"changed": False}
    assert run("servers.list", infra=INFRA) == [server]
    assert run("servers.show", name=name, infra=INFRA) == server
    assert not run("servers.start", name=name, infra=INFRA)["changed"]
    if site.can_stop:
        stopped = run("servers.stop", name=name, infra=INFRA)
        assert (stopped["state"], stopped["changed"]) == ("stopped", True)
        assert not run("servers.stop", name=name, infra=INFRA)["changed"]
        started = run("servers.start", name=name, infra=INFRA)
        assert (started["state"], started["changed"]) == ("running", True)
    restarted = run("servers.restart", name=name, infra=INFRA)
    assert (restarted["state"], restarted["changed"]) == ("running", True)
    assert site.there() == [name]

    assert run("servers.delete", name=name, infra=INFRA) == {"name": name, "infra": INFRA, "changed": True}
    assert site.there() == []
    assert not run("servers.delete", name=name, infra=INFRA)["changed"]
    assert run("servers.list", infra=INFRA) == []


def test_killed_in_mid_create(site: Site) -> None:
    pause = site.pause()
    first = site.operations.start("servers.create", name=site.name, infra=INFRA, provider=site.provider, plan=site.plan)
    wait_until(pause.reached, "the midst of the create")
    first.kill()
    again = site.operations.start("servers.create", name=site.name, infra=INFRA, provider=site.provider, plan=site.plan)
    pause.go_on()
    answer = again.answer()
    assert answer["result"]["state"] == "running", answer
    assert site.there() == [site.name]
    assert [server["name"] for server in site.operations.run("servers.list", infra=INFRA)] == [site.name]
    site.operations.run("servers.delete", name=site.name, infra=INFRA)
    assert site.there() == []


def test_two_creates_at_once_make_one(site: Site) -> None:
    attempts = [
        site.operations.start("servers.create", name=site.name, infra=INFRA, provider=site.provider, plan=site.plan)
        for _ in range(3)
    ]
    ids = {attempt.answer()["result"]["id"] for attempt in attempts}
    assert len(ids) == 1
    assert site.there() == [site.name]


def test_plans_and_zones_are_lists(site: Site) -> None:
    for plan in site.operations.run("servers.plans", infra=INFRA, provider=site.provider):
        assert plan.keys() >= {"name", "cpus", "memory_gb"}
    for zone in site.operations.run("servers.zones", infra=INFRA, provider=site.provider):
        assert zone.keys() == {"id", "description"}
    price = site.operations.run("servers.price", infra=INFRA, provider=site.provider, plan=site.plan)
    assert price["provider"] == site.provider
