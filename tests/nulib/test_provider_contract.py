"""What every provider promises, held against each of them: nothing is made twice, nothing is lost."""

from collections.abc import Iterator
from typing import Any

import pytest

from tests.nulib.attempts import Attempt, wait_until
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


def begin_create(site: Site, task: int) -> Attempt:
    """A create of the site's server, by a task of its own."""
    site.operations.env["PROVISIONING_IDEMPOTENCY_KEY"] = f"01jdq000000000000000000{task:03}/web"
    return site.operations.start("servers.create", name=site.name, infra=INFRA, provider=site.provider, plan=site.plan)


def result_of(site: Site, task: int, attempt: Attempt) -> dict[str, Any]:
    """What a create answers in the end. What says that it passes is tried again, as an orchestrator would."""
    answer = attempt.answer()
    for _ in range(3):
        if "retry_after" in answer.get("error", {}):
            answer = begin_create(site, task).answer()
    result: dict[str, Any] = answer["result"]
    return result


def test_two_creates_at_once_make_one(site: Site) -> None:
    attempts = [begin_create(site, task) for task in range(3)]
    results = [result_of(site, task, attempt) for task, attempt in enumerate(attempts)]
    assert site.there() == [site.name]
    assert {result["name"] for result in results} == {site.name}
    kept = result_of(site, 9, begin_create(site, 9))
    assert not kept["changed"]
    # Who was told of another was told before an older one came: see "At once" in nulib/providers/README.md.
    assert kept["id"] in {result["id"] for result in results}
    if site.has_lock:
        assert [result["changed"] for result in results].count(True) == 1


def test_plans_and_zones_are_lists(site: Site) -> None:
    for plan in site.operations.run("servers.plans", infra=INFRA, provider=site.provider):
        assert plan.keys() >= {"name", "cpus", "memory_gb"}
    for zone in site.operations.run("servers.zones", infra=INFRA, provider=site.provider):
        assert zone.keys() == {"id", "description"}
    price = site.operations.run("servers.price", infra=INFRA, provider=site.provider, plan=site.plan)
    assert price["provider"] == site.provider
