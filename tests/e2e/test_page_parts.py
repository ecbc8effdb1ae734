"""Parts of the page by themselves, in a real browser: what they leave behind, and what they say of a refusal."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from playwright.sync_api import expect

from provisioning.clock import now
from provisioning.gateway.looking import LOG_BYTES
from provisioning.views.page_text import WAITING, note
from provisioning.views.text import instant
from tests.browser import Held, Visited
from tests.gateway import Gateway
from tests.installation import Gate, Installation

pytestmark = [
    pytest.mark.nu,
    pytest.mark.skipif(shutil.which("chromium") is None, reason="there is no chromium: apt-get install chromium"),
]

COUNTED = """
    const controller = new AbortController();
    const {signal} = controller;
    let held = 0;
    const count = (name, by) => {
        const does = signal[name].bind(signal);
        signal[name] = (...given) => { held += by; does(...given); };
    };
    count("addEventListener", 1);
    count("removeEventListener", -1);
    const later = () => new Promise((resolve) => setTimeout(resolve));
"""
"""A signal that knows how many listen to it."""


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory, cache_dir: Path) -> Iterator[tuple[Gateway, str]]:
    """A gateway, and a workflow that has ended."""
    made = Installation(tmp_path_factory.mktemp("shown"), cache_dir)
    workflow_id = made.run([{"id": "a", "operation": "selftest.noop"}])
    yield Gateway(made), workflow_id
    made.close()


def test_a_picture_that_has_come_is_not_held(shown: tuple[Gateway, str], visit: Callable[..., Visited]) -> None:
    opened = visit(shown[0])
    left = opened.page.evaluate(
        f"""async (workflow) => {{
            const {{picture}} = await import("/page/calls.js");
            {COUNTED}
            for (let i = 0; i < 3; i++) await picture(`workflows/${{workflow}}/graph`, signal);
            await later();
            return held;
        }}""",
        shown[1],
    )
    assert left == 0


def test_no_picture_is_asked_for_once_one_has_left(shown: tuple[Gateway, str], visit: Callable[..., Visited]) -> None:
    opened = visit(shown[0])
    said = opened.page.evaluate(
        """async (workflow) => {
            const {picture} = await import("/page/calls.js");
            return picture(`workflows/${workflow}/graph`, AbortSignal.abort()).then(() => "came", ({name}) => name);
        }""",
        shown[1],
    )
    assert said == "AbortError"


def test_a_refused_picture_says_why(shown: tuple[Gateway, str], visit: Callable[..., Visited]) -> None:
    opened = visit(shown[0])
    said = opened.page.evaluate(
        """async () => {
            const {picture} = await import("/page/calls.js");
            const tell = ({status, message, hint}) => [status, message, hint];
            return picture("workflows/7zzz/graph", new AbortController().signal).then(() => "came", tell);
        }"""
    )
    error = shown[0].get("/workflows/7zzz/graph").body["error"]
    assert said == [404, error["message"], error["hint"]]


def test_a_tab_that_was_out_of_sight_holds_nothing(shown: tuple[Gateway, str], visit: Callable[..., Visited]) -> None:
    opened = visit(shown[0])
    left = opened.page.evaluate(
        f"""async () => {{
            const {{watch}} = await import("/page/live.js");
            {COUNTED}
            Object.defineProperty(document, "hidden", {{value: true, configurable: true}});
            const looked = watch(async () => null, signal);
            const meanwhile = held;
            delete document.hidden;
            document.dispatchEvent(new Event("visibilitychange"));
            await looked;
            return [meanwhile, held];
        }}"""
    )
    assert left == [1, 0]


def test_it_says_why_a_task_waits_as_the_command_line_does(
    shown: tuple[Gateway, str], visit: Callable[..., Visited]
) -> None:
    opened = visit(shown[0])
    soon = instant(now() + timedelta(seconds=30))
    waits = [[f"{kind}:some/{kind}" if kind in ("dependency", "target", "group") else kind] for kind in WAITING]
    waits += [["dependency:a.b", "paused"], ["unheard of"], []]
    tasks = [
        {"state": "pending", "attempts": [], "waiting_for": each, "next_attempt_at": soon, "held_by": ["other/task"]}
        for each in waits
    ]
    words = opened.page.evaluate('tasks => import("/page/elements.js").then(({waiting}) => tasks.map(waiting))', tasks)
    assert words == [note(task) for task in tasks]


def test_a_task_of_a_workflow_that_was_rolled_back_can_be_done_again(
    site: Installation, visit: Callable[..., Visited]
) -> None:
    workflow_id = site.run([{"id": "a", "operation": "selftest.noop"}])
    site.ask("rollback", workflow_id)
    site.drain()
    assert site.state(workflow_id) == "rolled_back"
    opened = visit(Gateway(site), f"workflows/{workflow_id}/a")
    opened.page.get_by_role("button", name="Do it again").click()
    opened.page.get_by_role("button", name="Do it again", exact=True).click()
    expect(opened.page.locator("#content .badge").first).to_contain_text("pending")
    site.drain()
    assert site.state(workflow_id) == "succeeded"
    assert len(site.outcomes(workflow_id, "a")) == 2


def test_a_log_that_grows_fast_is_caught_up_with_in_one_look(
    site: Installation, visit: Callable[..., Visited], tmp_path: Path
) -> None:
    begin, end = Gate(tmp_path / "begin"), Gate(tmp_path / "end")
    much = f"{begin.script}; yes 'a line of a log that grows fast' | head -c {3 * LOG_BYTES}; echo; echo last"
    site.orchestrator()
    busy = site.submit([{"id": "a", "operation": "trial.again", "params": {"script": f"{much}; {end.script}"}}])
    begin.reached()
    opened = visit(Gateway(site))
    asked: list[str] = []
    opened.page.on("request", lambda request: asked.append(request.url.rsplit("/", 1)[1].partition("?")[0]))
    opened.go(f"workflows/{busy}/a")
    expect(opened.page.locator("#content")).to_contain_text("It has printed nothing so far.")
    held = Held(opened.page, f"**/tasks/{busy}.a")
    held.come()  # the next look
    begin.open()
    end.reached(seconds=60)  # all of it is there
    asked.clear()
    held.go_on()
    expect(opened.page.locator("pre.log")).to_contain_text("\nlast\n")
    assert asked[:4] == [busy, "a", "a", "a"], "the log again and again"
    end.open()
    begin.close()
    end.close()
