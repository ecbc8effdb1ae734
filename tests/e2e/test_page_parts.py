"""Parts of the page by themselves, in a real browser: what they leave behind, and what they say of a refusal."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.browser import Visited
from tests.gateway import Gateway
from tests.installation import Installation

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
