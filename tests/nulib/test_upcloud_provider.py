"""The upcloud provider against a fake of the API that refuses, is slow, and loses answers."""

from collections.abc import Iterator

import pytest

from tests.nulib.attempts import wait_until
from tests.nulib.cloud_sites import UpcloudSite, upcloud_site
from tests.nulib.sites import INFRA
from tests.nulib.upcloud_fake import Refusal

pytestmark = pytest.mark.nu


@pytest.fixture
def site() -> Iterator[UpcloudSite]:
    with upcloud_site() as made:
        yield made


def create(site: UpcloudSite, **more: object) -> dict[str, object]:
    result: dict[str, object] = site.operations.run("servers.create", **asked(**more))
    return result


def asked(**more: object) -> dict[str, object]:
    return {"name": "web-1", "infra": INFRA, "provider": "upcloud", "plan": "1xCPU-1GB", **more}


def test_what_is_asked_for(site: UpcloudSite) -> None:
    created = create(site, labels={"tier": "front"}, ssh_keys=["ssh-ed25519 BBBB dev"])
    (server,) = site.account.servers.values()
    labels = {each["key"]: each["value"] for each in server["labels"]["label"]}
    assert labels.pop("provisioning-created") == created["created_at"]
    assert labels == {"provisioning-infra": INFRA, "provisioning-name": "web-1", "tier": "front"}
    assert server["_keys"] == ["ssh-ed25519 AAAA ops", "ssh-ed25519 BBBB dev"]
    assert (created["id"], created["zone"], created["state"]) == (server["uuid"], "fi-hel1", "running")
    assert str(created["ip"]).startswith("192.0.2.")


def test_delete_stops_first_and_takes_the_storages_along(site: UpcloudSite) -> None:
    create(site)
    (uuid,) = site.account.servers
    site.account.calls.clear()
    assert site.operations.run("servers.delete", name="web-1", infra=INFRA)["changed"]
    steps = [call for call in site.account.calls if not call.startswith("GET")]
    assert steps == [f"POST /server/{uuid}/stop", f"DELETE /server/{uuid}/"]
    assert not site.account.storages


BUSY = Refusal(409, "SERVER_STATE_ILLEGAL", "It changes just now.", old=True)


@pytest.mark.parametrize(
    ("refusal", "case", "seconds"),
    [
        (BUSY, "busy", 5),
        (Refusal(429, "TOO_MANY_REQUESTS", "Slow down.", retry_after=17), "limited", 17),
        (Refusal(503, "SERVICE_UNAVAILABLE", "Maintenance.", retry_after=3), "unavailable", 3),
        (Refusal(503, "SERVICE_UNAVAILABLE", "Maintenance."), "unavailable", 10),
    ],
)
def test_what_passes_says_when(site: UpcloudSite, refusal: Refusal, case: str, seconds: int) -> None:
    site.account.inject("POST", "^/server$", refusal)
    error = site.operations.error("servers.create", **asked())
    assert (error["code"], error["retry_after"]) == (f"provisioning::upcloud::{case}", seconds)
    assert refusal.code in error["msg"]
    assert refusal.message in error["msg"]
    assert site.there() == []
    assert create(site)["changed"]
    assert site.there() == ["web-1"]


@pytest.mark.parametrize(
    "refusal", [BUSY, Refusal(429, "TOO_MANY_REQUESTS", "Slow down."), Refusal(503, "UNAVAILABLE", "Maintenance.")]
)
def test_a_way_under_way_is_gone_to_its_end(site: UpcloudSite, refusal: Refusal) -> None:
    create(site)
    for method, path in (("GET", "/server/.+"), ("POST", "/stop$"), ("DELETE", "/server/.+")):
        site.account.inject(method, path, refusal, times=2)
    assert site.operations.run("servers.delete", name="web-1", infra=INFRA)["changed"]
    assert site.there() == []


@pytest.mark.parametrize("kind", ["dropped", "slow"])
def test_a_create_whose_answer_is_lost_makes_one(site: UpcloudSite, kind: str) -> None:
    site.configure(site.account.url, timeout_seconds=1)
    site.account.inject("POST", "^/server$", kind)
    created = create(site)
    assert (created["state"], created["changed"]) == ("running", True)
    assert site.there() == ["web-1"]


def test_a_create_that_never_arrived_is_worth_another_attempt(site: UpcloudSite) -> None:
    site.account.inject("POST", "^/server$", "lost")
    error = site.operations.error("servers.create", **asked())
    assert (error["code"], error["retry_after"]) == ("provisioning::upcloud::unreachable", 10)
    assert create(site)["changed"]
    assert site.there() == ["web-1"]


def test_two_of_one_name_become_one(site: UpcloudSite) -> None:
    create(site)
    (uuid,) = site.account.servers
    (server,) = site.account.servers.values()
    site.account.servers["ff"] = server | {"uuid": "ff", "_storages": []}
    again = create(site)
    assert (again["id"], again["changed"]) == (uuid, False)
    assert list(site.account.servers) == [uuid]


def test_a_create_that_is_late_finds_one_or_leaves_one(site: UpcloudSite) -> None:
    """Both look before either asks, and what the first asks for reaches the API when the second is done."""
    late = site.account.inject("POST", "^/server$", "late")
    first = site.operations.start("servers.create", **asked())
    wait_until(late.reached.is_set, "the late request")
    second = create(site)
    assert second["changed"]
    late.go_on.set()
    answer = first.answer()["result"]
    (kept,) = site.account.servers.values()
    assert (answer["id"], answer["state"]) == (kept["uuid"], "running")
    again = create(site)
    assert (again["id"], again["changed"]) == (kept["uuid"], False)


def test_a_server_in_error(site: UpcloudSite) -> None:
    create(site)
    (server,) = site.account.servers.values()
    server["state"] = "error"
    assert site.operations.run("servers.show", name="web-1", infra=INFRA)["state"] == "error"
    error = site.operations.error("servers.start", name="web-1", infra=INFRA)
    assert error["code"] == "provisioning::upcloud::failed"
    assert site.operations.run("servers.delete", name="web-1", infra=INFRA)["changed"]


def test_servers_of_others_are_not_ours(site: UpcloudSite) -> None:
    create(site)
    (server,) = site.account.servers.values()
    other = [{"key": "provisioning-infra", "value": "other"}, {"key": "provisioning-name", "value": "web-1"}]
    site.account.servers["ff"] = server | {"uuid": "ff", "labels": {"label": other}}
    site.operations.run("servers.delete", name="web-1", infra=INFRA)
    assert list(site.account.servers) == ["ff"]


def test_servers_of_more_than_one_page(site: UpcloudSite) -> None:
    create(site)
    (server,) = site.account.servers.values()
    for number in range(2, 103):
        names = [{"key": "provisioning-infra", "value": INFRA}, {"key": "provisioning-name", "value": f"web-{number}"}]
        site.account.servers[f"{number}"] = server | {"uuid": f"{number}", "labels": {"label": names}}
    listed = site.operations.run("servers.list", infra=INFRA)
    assert {one["name"] for one in listed} == {f"web-{number}" for number in range(1, 103)}


@pytest.mark.parametrize(
    ("given", "case"),
    [
        ({"plan": "9xCPU-9GB"}, "upcloud::invalid-request"),
        ({"zone": "xx-nowhere1"}, "upcloud::not-found"),
        ({"image": "no such template"}, "upcloud::invalid-request"),
    ],
)
def test_what_the_api_refuses(site: UpcloudSite, given: dict[str, str], case: str) -> None:
    assert site.operations.error("servers.create", **asked(**given))["code"] == f"provisioning::{case}"
    assert site.there() == []


def test_credentials(site: UpcloudSite) -> None:
    def code() -> object:
        return site.operations.error("servers.list", infra=INFRA)["code"]

    site.token.chmod(0o444)
    assert code() == "provisioning::credential::unsafe"
    site.token.chmod(0o600)
    site.token.write_text("wrong")
    error = site.operations.error("servers.list", infra=INFRA)
    assert error["code"] == "provisioning::upcloud::invalid-credential"
    assert "wrong" not in str(error)
    real = site.token.rename(site.token.with_name("real"))
    site.token.symlink_to(real)
    assert code() == "provisioning::credential::unreadable"
    site.token.unlink()
    assert code() == "provisioning::credential::not-found"
    site.configure(site.account.url, credential="../real")
    assert code() == "provisioning::credential::invalid"


def test_plans_zones_and_price(site: UpcloudSite) -> None:
    plans = site.operations.run("servers.plans", infra=INFRA, provider="upcloud")
    assert plans[0] == {"name": "1xCPU-1GB", "cpus": 1, "memory_gb": 1.0, "storage_gb": 25}
    zones = site.operations.run("servers.zones", infra=INFRA, provider="upcloud")
    assert [zone["id"] for zone in zones] == ["de-fra1", "fi-hel1"]
    price = site.operations.run("servers.price", infra=INFRA, provider="upcloud", plan="1xCPU-1GB")
    assert (price["currency"], price["zone"]) == ("EUR", "fi-hel1")
    assert price["hourly"] == pytest.approx(0.00744)


def test_something_else_answers(site: UpcloudSite) -> None:
    site.configure("http://127.0.0.1:9")
    error = site.operations.error("servers.list", infra=INFRA)
    assert error["code"] == "provisioning::upcloud::unreachable"
