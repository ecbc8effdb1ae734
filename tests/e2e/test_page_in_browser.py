"""The page of the gateway in a real browser: the whole tour without a mouse, hostile texts, and who may not."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from provisioning.orchestrator.loop import Orchestrator
from provisioning.views.text import safe_block
from tests.benchmark.place import AtOnce
from tests.browser import Visited
from tests.gateway import Gateway
from tests.installation import Gate, Installation
from tests.waiting import wait_for

pytestmark = [
    pytest.mark.nu,
    pytest.mark.skipif(shutil.which("chromium") is None, reason="there is no chromium: apt-get install chromium"),
]

SHOTS = os.environ.get("PROVISIONING_TEST_SCREENSHOTS")
"""A folder for screenshots, for who wants to look at them."""
NASTY = "</td><script>document.title='run'</script><img src=x onerror=alert(1)> \x1b[31m\u202eevil"


def script(task_id: str, text: str, *needs: str) -> dict[str, Any]:
    """A task that runs a script."""
    return {"id": task_id, "operation": "trial.again", "params": {"script": text}, "depends_on": list(needs)}


def nasty(site: Installation) -> str:
    """A workflow that has ended, and whose texts all try to be more than that."""
    fail = {"id": "b", "operation": "selftest.fail", "params": {"code": "provisioning::trial::nasty", "message": NASTY}}
    shout = script("c", f"printf '%s\\n' \"{NASTY}\"")
    return site.run([script("a", "echo begun"), {**fail, "depends_on": ["a"]}, shout, script("d", "true", "b")])


def tab_to(page: Page, text: str) -> None:
    """Press Tab until what has the focus says that."""
    for _ in range(80):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.textContent").strip() == text:
            outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
            assert outline != "none", "whoever has no mouse sees where they are"
            return
    raise AssertionError(f"{text} cannot be reached")


def look_at_what_runs(page: Page) -> None:
    """Its page: where the focus is, what runs, and the pictures; then the log of what runs, while it runs."""
    expect(page.locator("h1")).to_have_text("staging")
    assert page.evaluate("document.activeElement.tagName") == "H1"
    expect(page.locator("#content .badge").first).to_contain_text("running")
    expect(page.locator("svg.graph .node.running title")).to_have_text(re.compile("^db "))
    expect(page.locator("svg.time .attempt.running")).to_have_count(1)
    expect(page.locator("svg.graph .node.succeeded")).to_have_count(1)
    tab_to(page, "db")
    page.keyboard.press("Enter")
    expect(page.locator("pre.log")).to_have_text("one\n")
    page.go_back()
    expect(page.locator("h1")).to_have_text("staging")


def ask_and_think_better_of_it(page: Page, button: str) -> None:
    """Nothing is asked by mistake: the first choice leaves it, Escape too, and the focus comes back."""
    tab_to(page, button)
    page.keyboard.press("Enter")
    expect(page.get_by_role("dialog")).to_be_visible()
    assert page.evaluate("document.activeElement.textContent") == "Leave it as it is"
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_have_count(0)
    assert page.evaluate("document.activeElement.textContent") == button


def test_the_whole_tour_without_a_mouse(site: Installation, visit: Callable[..., Visited], tmp_path: Path) -> None:
    gate = Gate(tmp_path / "gate")
    door = Gateway(site)
    site.orchestrator()
    site.wait_ended(site.submit([script("a", "true")], name="nightly"))
    opened = visit(door)
    page = opened.page
    expect(page.locator("tbody tr")).to_have_count(1)

    # A workflow is submitted, and the list shows it by itself; the filter finds it.
    talk = f"echo one; {gate.script}; echo two"
    busy = site.submit([script("net", "true"), script("db", talk, "net"), script("lb", "true", "db")], name="staging")
    gate.reached()
    expect(page.locator("tbody tr")).to_have_count(2)
    page.locator("#name").focus()
    page.keyboard.type("STAG")
    expect(page.locator("tbody tr")).to_have_count(1)
    assert "name=STAG" in page.url
    tab_to(page, "staging")
    page.keyboard.press("Enter")

    look_at_what_runs(page)
    ask_and_think_better_of_it(page, "Cancel…")
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(page.locator("#content .badge").first).to_contain_text("cancelled")
    expect(page.locator("#said")).to_contain_text("cancelled")
    assert site.wait_ended(busy) == "cancelled"

    # Again, to its end: what happens comes by itself.
    tab_to(page, "Retry…")
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(page.locator("#content .badge").first).to_contain_text("running")
    gate.open(2)
    assert site.wait_ended(busy, 60) == "succeeded"
    expect(page.locator("#content .badge").first).to_contain_text("succeeded")
    expect(page.locator("svg.graph .node.succeeded")).to_have_count(3)
    expect(page.locator("#requests-title ~ div tbody tr")).to_have_count(2)
    assert site.outcomes(busy, "db") == ["cancelled", "succeeded"]
    assert opened.said == []
    gate.close()


@pytest.mark.parametrize("width", [360, 1400])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_texts_stay_texts_and_all_of_it_fits_and_can_be_read(
    shown: tuple[Gateway, str], visit: Callable[..., Visited], width: int, scheme: str
) -> None:
    door, workflow_id = shown
    opened = visit(door, width=width, scheme=scheme)
    page = opened.page
    parts = {
        "list": ("", "tbody tr"),
        "workflow": (f"workflows/{workflow_id}", "svg.time"),
        "failed": (f"workflows/{workflow_id}/b", "tbody tr"),
        "log": (f"workflows/{workflow_id}/c", "pre.log"),
        "nothing": ("workflows/7zzz", "[role=alert]"),
    }
    for name, (part, there) in parts.items():
        opened.go(part)
        page.locator(there).first.wait_for()
        assert page.evaluate("document.documentElement.scrollWidth") <= width, name
        assert page.locator("main script, main img, iframe, object, [style]").count() == 0
        assert opened.violations() == [], name
        if SHOTS:
            page.screenshot(path=f"{SHOTS}/page-{name}-{width}-{scheme}.png", full_page=True)
    opened.go(f"workflows/{workflow_id}")
    page.get_by_role("button", name="Roll back").click()
    assert opened.violations() == []
    if SHOTS:
        page.screenshot(path=f"{SHOTS}/page-asking-{width}-{scheme}.png")
    said = [each for each in opened.said if "404" not in each]  # of the workflow that is not there
    assert said == []


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory, cache_dir: Path) -> Iterator[tuple[Gateway, str]]:
    """A gateway for several tests that only look, and a workflow of hostile texts."""
    made = Installation(tmp_path_factory.mktemp("shown"), cache_dir)
    workflow_id = nasty(made)
    yield Gateway(made), workflow_id
    made.close()


def test_hostile_texts_are_shown_as_they_are(shown: tuple[Gateway, str], visit: Callable[..., Visited]) -> None:
    door, workflow_id = shown
    opened = visit(door, f"workflows/{workflow_id}")
    visible = NASTY.replace("\x1b", "\\x1b").replace("\u202e", "\\u202e")
    expect(opened.page.locator("#failures-title ~ div strong")).to_contain_text(visible)
    opened.go(f"workflows/{workflow_id}/c")
    expect(opened.page.locator("pre.log")).to_contain_text(visible)
    assert opened.page.title() != "run"
    assert opened.said == []


def test_it_writes_out_what_the_command_line_does(shown: tuple[Gateway, str], visit: Callable[..., Visited]) -> None:
    opened = visit(shown[0])
    texts = [f"a{chr(code)}b" for code in (*range(0x300), *range(0x2000, 0x2100), 0xFEFF, 0xFFF9, 0xE0001, 0x1F600)]
    assert opened.page.evaluate("texts => import('/page/elements.js').then(m => texts.map(m.safe))", texts) == [
        safe_block(text) for text in texts
    ]


def test_its_policy_lets_nothing_else_in(shown: tuple[Gateway, str], visit: Callable[..., Visited]) -> None:
    """What somebody might have got into the page does nothing: no markup of a text, no script, no style, no request."""
    opened = visit(shown[0])
    page = opened.page
    page.locator("tbody tr").first.wait_for()
    with pytest.raises(Exception, match="TrustedHTML"):
        page.evaluate("document.body.innerHTML = '<p>'")
    with pytest.raises(Exception, match="TrustedHTML"):
        page.evaluate("new DOMParser().parseFromString('<p>', 'text/html')")
    with pytest.raises(Exception, match=r"TrustedScript|unsafe-eval"):
        page.evaluate("setTimeout('document.title = 1', 0)")
    page.evaluate(
        """() => {
            const put = (name, set) => document.body.append(Object.assign(document.createElement(name), set));
            put("img", {src: "http://127.0.0.1:9/x"});
            put("iframe", {src: "/"});
            const styled = document.createElement("p");
            styled.setAttribute("style", "color: red");
            document.body.append(styled);
        }"""
    )
    wait_for(lambda: page.evaluate("0") or sum("Content Security Policy" in each for each in opened.said) >= 3)
    assert page.evaluate("fetch('http://127.0.0.1:9/').then(() => 'sent', () => 'held back')") == "held back"
    assert page.evaluate("getComputedStyle(document.querySelector('p[style]')).color") != "rgb(255, 0, 0)"


@pytest.mark.parametrize("count", [1000, pytest.param(5000, marks=pytest.mark.long)])
def test_many_tasks_stay_usable(site: Installation, visit: Callable[..., Visited], count: int) -> None:
    layered = [
        {"id": f"t{i}", "operation": "selftest.noop", "depends_on": [f"t{i - 50}"] if i >= 50 else []}
        for i in range(count)
    ]
    workflow_id = site.submit(layered, name="many")
    orchestrator = Orchestrator(site.spool, site.config, AtOnce(), lambda: site.nulib)
    while site.state(workflow_id) != "succeeded":
        orchestrator.tick()
    orchestrator.close()
    opened = visit(Gateway(site), f"workflows/{workflow_id}")
    page = opened.page
    page.locator("svg.time").wait_for()
    page.locator("svg.graph").wait_for()
    assert page.locator("svg.graph .node").count() <= 120
    expect(page.locator("tbody tr")).to_have_count(50)
    assert page.evaluate("document.querySelectorAll('*').length") < 6000
    page.get_by_role("link", name="The next part").click()
    expect(page.locator("tbody th").first).to_have_text("t50")
    assert page.evaluate("document.activeElement.textContent") == "The next part →"
    page.locator("#task-state").select_option("failed")
    expect(page.locator("#content")).to_contain_text("No task is failed now.")
    page.go_back()
    expect(page.locator("#task-state")).to_have_value("")
    expect(page.locator("tbody th").first).to_have_text("t50")
    if SHOTS:
        page.screenshot(path=f"{SHOTS}/page-many.png", full_page=True)
    assert opened.said == []
