"""A real browser without a network, for the tests of what people open in one."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, Route, sync_playwright

from tests.architecture.sources import ROOT
from tests.waiting import wait_for

AXE = ROOT / "packaging/browser/node_modules/axe-core/axe.min.js"
RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]


@contextmanager
def browsing() -> Iterator[Browser]:
    """Headless Chromium as Debian has it; the test is skipped where there is none."""
    program = shutil.which("chromium")
    if program is None:
        pytest.skip("there is no chromium: apt-get install chromium")
    # Tests may be root's, for whom Chromium has no sandbox.
    switches = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=program, args=switches)
        try:
            yield browser
        finally:
            browser.close()


class Tab:
    """One page of a browser, with all that it has said and asked for that it should not have."""

    def __init__(self, browser: Browser, *, width: int = 1400, scheme: Any = "light", **settings: Any) -> None:
        self.context = browser.new_context(
            viewport={"width": width, "height": 900}, color_scheme=scheme, java_script_enabled=True, **settings
        )
        self.page: Page = self.context.new_page()
        self.said: list[str] = []
        """Everything on the console, and every request but those for `expected` addresses."""
        self.page.on("console", lambda message: self.said.append(message.text))
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self.page.on("dialog", lambda dialog: self.said.append(f"dialog: {dialog.message}"))
        self.page.on("request", lambda r: None if self.expects(r.url) else self.said.append(r.url))

    def expects(self, address: str) -> bool:
        """Whether the page may ask for that."""
        raise NotImplementedError

    def violations(self) -> list[str]:
        """What axe finds, a line each; the test is skipped where axe is not installed."""
        if not AXE.exists():
            pytest.skip("axe-core is not installed: packaging/dev setup, with npm")
        self.page.evaluate(AXE.read_text("utf-8"))
        found = self.page.evaluate(f"axe.run(document, {{runOnly: {json.dumps(RULES)}, resultTypes: ['violations']}})")
        return [f"{each['id']}: {node['html'][:200]}" for each in found["violations"] for node in each["nodes"]]


class Opened(Tab):
    """A file that was opened from the disk, without a network."""

    def __init__(self, browser: Browser, file: Path, *, width: int = 1400, scheme: Any = "light") -> None:
        super().__init__(browser, width=width, scheme=scheme, offline=True)
        self._address = file.as_uri()
        self.page.goto(self._address)

    def expects(self, address: str) -> bool:
        """The file alone."""
        return address.partition("#")[0] == self._address


class Visited(Tab):
    """The page of a gateway, which asks that gateway and nobody else."""

    def __init__(self, browser: Browser, origin: str, part: str = "", **settings: Any) -> None:
        super().__init__(browser, **settings)
        self.origin = origin
        self.page.set_default_timeout(30_000)  # of predicates, on a busy machine
        self.go(part)

    def go(self, part: str) -> None:
        """Open a part of the page anew: "" is the list."""
        self.page.goto("about:blank")
        self.page.goto(f"{self.origin}/#/{part}")

    def expects(self, address: str) -> bool:
        """What this gateway answers."""
        return address.startswith(f"{self.origin}/") or address == "about:blank"


class Held:
    """The next call of the page for such an address, which waits for the test."""

    def __init__(self, page: Page, pattern: str) -> None:
        self._page = page
        self._routes: list[Route] = []
        page.route(pattern, self._hold, times=1)

    def _hold(self, route: Route) -> None:
        self._routes.append(route)

    def come(self) -> Route:
        """It, once it has come."""
        wait_for(lambda: self._page.evaluate("0") or self._routes, 60, "a call")
        return self._routes[0]

    def go_on(self) -> None:
        """Let it go on to the gateway."""
        self.come().continue_()
