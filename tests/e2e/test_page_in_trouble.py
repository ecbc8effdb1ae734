"""The page of the gateway when something is amiss: nobody answers, no streams come through, somebody may not."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Route, expect

from tests.browser import Held, Visited
from tests.e2e.test_page_in_browser import script
from tests.gateway import Gateway, certified, grant, token_of
from tests.installation import Gate, Installation
from tests.waiting import wait_for

pytestmark = [
    pytest.mark.nu,
    pytest.mark.skipif(shutil.which("chromium") is None, reason="there is no chromium: apt-get install chromium"),
]


def test_it_goes_on_where_no_events_come_through(
    site: Installation, visit: Callable[..., Visited], tmp_path: Path
) -> None:
    """A proxy that holds back streams: what happens is looked for all the same."""
    gate = Gate(tmp_path / "gate")
    site.orchestrator()
    busy = site.submit([script("a", gate.script)])
    gate.reached()
    opened = visit(Gateway(site))
    streams: list[str] = []

    def held_back(route: Route) -> None:
        streams.append(route.request.url)
        route.abort()

    opened.page.route("**/events*", held_back)
    opened.go(f"workflows/{busy}")
    expect(opened.page.locator("svg.graph .node.running")).to_have_count(1)
    gate.open()
    expect(opened.page.locator("svg.graph .node.succeeded")).to_have_count(1)
    assert streams, "it asks for events"
    gate.close()


def test_the_gateway_goes_away_and_comes_back(
    site: Installation, visit: Callable[..., Visited], tmp_path: Path
) -> None:
    gate = Gate(tmp_path / "gate")
    door = Gateway(site)
    site.orchestrator()
    busy = site.submit([script("a", gate.script)])
    gate.reached()
    opened = visit(door, f"workflows/{busy}")
    page = opened.page
    expect(page.locator("svg.graph .node.running")).to_have_count(1)
    door.process.send_signal(signal.SIGTERM)
    door.process.wait(20)
    expect(page.locator("#connection")).to_contain_text("does not answer")
    expect(page.locator("h1")).to_have_text("trial")  # what was known is still there
    page.get_by_role("button", name="Pause").click()
    page.get_by_role("button", name="Pause it").click()
    expect(page.get_by_role("alert")).to_contain_text("not known whether it was asked: the gateway does not answer")
    assert opened.violations() == []
    page.keyboard.press("Escape")
    gate.open()
    site.wait_ended(busy)
    again = site.start("serve", "--port", str(door.port))
    expect(page.locator("#content .badge").first).to_contain_text("succeeded")
    expect(page.locator("#connection")).to_be_empty()
    expect(page.locator("svg.graph .node.succeeded")).to_have_count(1)
    assert again.poll() is None
    gate.close()


def test_with_a_token_over_tls_and_who_may_not_is_told_why(site: Installation, visit: Callable[..., Visited]) -> None:
    grant(site, "selftest.*", operator="alice")
    alice = token_of(site, "alice")
    certified(site)
    door = Gateway(site, "--listen", "0.0.0.0:0")
    origin = f"https://127.0.0.1:{door.said.split('https://0.0.0.0:')[1].split()[0]}"
    others = site.submit([{"id": "a", "operation": "selftest.noop"}], not_before="2099-01-01T00:00:00Z", name="later")
    opened = visit(origin, ignore_https_errors=True)
    page = opened.page
    expect(page.locator("#caller")).to_contain_text("who owns the spool")  # the kernel says so, also here
    page.evaluate("sessionStorage.setItem('provisioning-token', 'one-that-was-taken-back')")
    page.reload()
    page.get_by_role("heading", name="Who are you?").wait_for()
    expect(page.get_by_role("alert")).to_contain_text("this token is not known")
    assert opened.violations() == []
    for given, told in (("no such token", "no spaces"), ("wrong", "this token is not known")):
        page.get_by_label("Token").fill(given)
        page.keyboard.press("Enter")
        if told == "no spaces":
            assert told in page.get_by_label("Token").evaluate("field => field.validationMessage")
        else:
            expect(page.get_by_role("alert")).to_contain_text(told)
    page.get_by_label("Token").fill(alice)
    page.keyboard.press("Enter")
    expect(page.locator("#caller")).to_contain_text("You are alice")
    assert page.evaluate("document.activeElement.textContent") == "Workflows", "the focus is not lost"
    expect(page.locator("#content")).to_contain_text("There is no workflow yet")  # what waits has no plan yet: not hers
    fail = {"params": {"code": "provisioning::trial::no", "message": "no"}}
    headers = {"Authorization": f"Bearer {alice}"}
    made = door.post("/workflows/selftest/fail", fail, **headers).data["workflow_id"]
    site.drain()
    opened.go(f"workflows/{made}")
    expect(page.locator("#content .badge").first).to_contain_text("failed")
    grant(site, "servers.list", operator="alice")
    page.get_by_role("button", name="Retry").click()
    page.get_by_role("button", name="Do it again").click()
    expect(page.get_by_role("alert")).to_contain_text("Not asked: alice may not run this workflow any more")
    expect(page.get_by_role("alert")).to_contain_text("ask for a grant")
    page.keyboard.press("Escape")
    assert page.evaluate("document.cookie + localStorage.length") == "0"
    assert alice not in page.url
    page.get_by_role("button", name="Sign out").click()
    expect(page.locator("#caller")).to_contain_text("who owns the spool")
    assert page.evaluate("document.activeElement.tagName") == "H1"
    assert page.evaluate("sessionStorage.length") == 0
    assert site.state(others) == "queued"
    assert [each for each in opened.said if "401" not in each and "403" not in each] == []


def test_who_may_not_cancel_is_told_why(site: Installation, visit: Callable[..., Visited], tmp_path: Path) -> None:
    """An operator sees what they might have submitted, and may end it, until that is taken from them."""
    gate = Gate(tmp_path / "gate")
    grant(site, "trial.*", operator="alice")
    alice = token_of(site, "alice")
    site.orchestrator()
    busy = site.submit([script("a", gate.script)])
    gate.reached()
    opened = visit(Gateway(site))
    page = opened.page
    page.evaluate("token => sessionStorage.setItem('provisioning-token', token)", alice)
    opened.go(f"workflows/{busy}")
    expect(page.locator("#caller")).to_contain_text("You are alice")
    page.get_by_role("button", name="Cancel").click()
    grant(site, "servers.list", operator="alice")
    page.get_by_role("button", name="End the workflow").click()
    expect(page.get_by_role("dialog").get_by_role("alert")).to_contain_text(f"Not asked: no workflow '{busy}'")
    assert opened.violations() == []
    page.get_by_role("button", name="Leave it").click()
    assert site.state(busy) == "running"
    gate.open()
    assert site.wait_ended(busy) == "succeeded"
    gate.close()


def test_where_the_answer_is_lost_it_is_not_said_that_nothing_was_asked(
    site: Installation, visit: Callable[..., Visited], tmp_path: Path
) -> None:
    gate = Gate(tmp_path / "gate")
    site.orchestrator()
    busy = site.submit([script("a", gate.script), script("b", "true", "a")])
    gate.reached()
    opened = visit(Gateway(site), f"workflows/{busy}")
    page = opened.page

    def lost(route: Route) -> None:
        assert route.fetch().status == 202
        route.abort()

    page.route("**/pause", lost)
    page.get_by_role("button", name="Pause").click()
    page.get_by_role("button", name="Pause it").click()
    expect(page.get_by_role("dialog").get_by_role("alert")).to_contain_text("It is not known whether it was asked")
    expect(page.locator("#content .badge").first).to_contain_text("paused")
    page.keyboard.press("Escape")
    expect(page.locator("tbody tr", has_text="b").first).to_contain_text("waits for a; the workflow is paused")
    gate.open()
    gate.close()


def test_whoever_leaves_a_question_that_is_being_asked_learns_how_it_ends(
    site: Installation, visit: Callable[..., Visited], tmp_path: Path
) -> None:
    gate = Gate(tmp_path / "gate")
    site.orchestrator()
    busy = site.submit([script("a", gate.script)])
    gate.reached()
    opened = visit(Gateway(site), f"workflows/{busy}")
    page = opened.page
    held = Held(page, "**/pause")
    page.get_by_role("button", name="Pause").click()
    page.get_by_role("button", name="Pause it").click()
    held.come()
    page.keyboard.press("Escape")
    page.get_by_role("button", name="Cancel").click()
    held.go_on()
    expect(page.locator("#content .badge").first).to_contain_text("paused")
    expect(page.get_by_role("dialog")).to_contain_text("Cancel: trial")  # another question, which stays
    page.keyboard.press("Escape")

    held = Held(page, "**/resume")
    page.get_by_role("button", name="Resume").click()
    page.get_by_role("button", name="Resume it").click()
    held.come()
    page.keyboard.press("Escape")
    site.ask("resume", busy)
    gate.open()
    assert site.wait_ended(busy) == "succeeded"
    held.go_on()
    expect(page.locator("#said")).to_contain_text("Resume: trial. Not asked: ")
    expect(page.locator("#said")).to_contain_text("there is nothing to resume")
    assert page.locator("#said").evaluate("said => said.getBoundingClientRect().height") > 10, "everybody sees it"
    assert opened.violations() == []
    gate.close()


def test_a_tab_that_goes_out_of_sight_meanwhile_keeps_no_stream(
    site: Installation, visit: Callable[..., Visited], tmp_path: Path
) -> None:
    gate = Gate(tmp_path / "gate")
    site.orchestrator()
    busy = site.submit([script("a", gate.script)])
    gate.reached()
    opened = visit(Gateway(site))
    page = opened.page
    streams: list[str] = []
    page.on("request", lambda request: streams.append(request.url) if "/events" in request.url else None)
    held = Held(page, f"**/workflows/{busy}")
    opened.go(f"workflows/{busy}")
    held.come()
    page.evaluate("Object.defineProperty(document, 'hidden', {value: true, configurable: true})")
    held.go_on()
    expect(page.locator("svg.graph .node.running")).to_have_count(1)  # it looks to its end
    assert streams == []
    page.evaluate("delete document.hidden; document.dispatchEvent(new Event('visibilitychange'))")
    wait_for(lambda: page.evaluate("0") or streams, 60, "a stream")
    gate.open()
    expect(page.locator("svg.graph .node.succeeded")).to_have_count(1)
    gate.close()


def test_who_calls_is_asked_again_and_an_old_answer_does_not_count(
    site: Installation, visit: Callable[..., Visited]
) -> None:
    grant(site, "selftest.*", operator="alice")
    alice = token_of(site, "alice")
    opened = visit(Gateway(site))
    page = opened.page
    expect(page.locator("#caller")).to_contain_text("who owns the spool")
    (site.root / "tokens.toml").chmod(0o644)
    page.evaluate("token => sessionStorage.setItem('provisioning-token', token)", alice)
    page.reload()
    expect(page.get_by_role("alert")).to_contain_text("tokens cannot be checked now")
    expect(page.locator("#caller")).to_have_text("Forget the token")
    (site.root / "tokens.toml").chmod(0o600)
    expect(page.locator("#caller")).to_contain_text("You are alice")

    page.evaluate("sessionStorage.setItem('provisioning-token', 'one-that-was-taken-back')")
    held = Held(page, "**/caller")
    page.reload()
    page.get_by_role("heading", name="Who are you?").wait_for()
    old = held.come()
    page.get_by_label("Token").fill(alice)
    page.keyboard.press("Enter")
    expect(page.locator("#caller")).to_contain_text("You are alice")
    wait_for(lambda: page.evaluate("0") or old.request.failure, 60, "the end of the call of before")
    expect(page.locator("#caller")).to_contain_text("You are alice")
