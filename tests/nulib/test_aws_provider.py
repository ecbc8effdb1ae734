"""The aws provider: the real `aws` against moto's EC2."""

from collections.abc import Iterator

import pytest

from tests.nulib.cloud_sites import AwsSite, aws_site
from tests.nulib.sites import INFRA

pytestmark = pytest.mark.nu


@pytest.fixture(scope="module")
def site() -> Iterator[AwsSite]:
    with aws_site() as made:
        yield made


def test_what_is_asked_for(site: AwsSite) -> None:
    given = {"name": "web-1", "infra": INFRA, "provider": "aws", "plan": "1xCPU-1GB"}
    created = site.operations.run("servers.create", **given, labels={"tier": "front"}, zone="eu-north-1b")
    (instance,) = site.instances()
    tags = {tag["Key"]: tag["Value"] for tag in instance["Tags"]}
    assert tags.pop("provisioning-created") == created["created_at"]
    assert tags == {"Name": "web-1", "provisioning-infra": INFRA, "provisioning-name": "web-1", "tier": "front"}
    assert instance["InstanceType"] == "t3.micro"
    assert (created["plan"], created["zone"], created["state"]) == ("1xCPU-1GB", "eu-north-1b", "running")
    assert created["id"] == instance["InstanceId"]
    site.operations.run("servers.delete", name="web-1", infra=INFRA)
    assert site.instances() == []


def test_plans_and_price(site: AwsSite) -> None:
    plans = site.operations.run("servers.plans", infra=INFRA, provider="aws")
    assert [(plan["name"], plan["cpus"], plan["memory_gb"]) for plan in plans] == [
        ("1xCPU-1GB", 2, 1.0),
        ("2xCPU-4GB", 2, 4.0),
    ]
    price = site.operations.run("servers.price", infra=INFRA, provider="aws", plan="1xCPU-1GB")
    assert (price["currency"], price["hourly"], price["monthly"]) == ("USD", 0.0104, 7.59)


def test_what_ec2_refuses(site: AwsSite) -> None:
    for setting, word in ({"image": ""}, "image"), ({"subnet": "subnet-0"}, "subnet"):
        site.configure(site.url, **setting)
        error = site.operations.error("servers.create", name="web-2", infra=INFRA, provider="aws", plan="t3.micro")
        site.configure(site.url)
        assert error["code"] == "provisioning::aws::invalid-request"
        assert word in error["msg"]
    assert site.instances() == []


@pytest.mark.long
def test_a_task_that_is_tried_again_gets_the_same(site: AwsSite) -> None:
    given = {"name": "web-3", "infra": INFRA, "provider": "aws", "plan": "t3.micro"}
    first = site.operations.run("servers.create", **given)
    site.operations.run("servers.delete", name="web-3", infra=INFRA)
    # The same task once more, whose token stands for an instance that is gone.
    second = site.operations.run("servers.create", **given)
    assert second["changed"]
    assert second["id"] != first["id"]
    site.operations.run("servers.delete", name="web-3", infra=INFRA)


def test_nobody_answers(site: AwsSite) -> None:
    site.configure("http://127.0.0.1:9")
    error = site.operations.error("servers.list", infra=INFRA)
    site.configure(site.url)
    assert (error["code"], error["retry_after"]) == ("provisioning::aws::unreachable", 10)
