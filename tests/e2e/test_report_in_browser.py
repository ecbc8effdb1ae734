"""A report opened from the disk in a real browser without a network: what it shows, and to whom."""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from provisioning.storage.spool import Spool
from provisioning.views.report import report_of
from provisioning.views.report_html import report_html
from tests.browser import Opened
from tests.unit.test_report import NASTY, at, failed, many_tasks

pytestmark = pytest.mark.skipif(
    shutil.which("chromium") is None, reason="there is no chromium: apt-get install chromium"
)

SHOTS = os.environ.get("PROVISIONING_TEST_SCREENSHOTS")
"""A folder for screenshots, for who wants to look at them."""


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report in which every text tries to be more than that."""
    folder = tmp_path_factory.mktemp("report")
    with contextlib.closing(Spool.create(folder / "spool")) as spool:
        (folder / "small.html").write_text(report_html(report_of(failed(spool), at(60))), "utf-8")
    return folder / "small.html"


@pytest.mark.parametrize("width", [360, 1400])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_needs_nothing_runs_nothing_and_fits(browser: Browser, small: Path, width: int, scheme: str) -> None:
    opened = Opened(browser, small, width=width, scheme=scheme)
    assert opened.said == []
    assert opened.page.evaluate("document.documentElement.scrollWidth") <= width
    assert opened.page.locator("script, img, iframe, link, object").count() == 0
    assert NASTY[:20] in opened.page.locator("h1").inner_text()
    assert opened.page.locator("#failures pre").inner_text().endswith("last line")
    assert (
        opened.page.evaluate("getComputedStyle(document.body).backgroundColor") != "rgba(0, 0, 0, 0)"
    )  # the style is on
    if SHOTS:
        opened.page.screenshot(path=f"{SHOTS}/report-{width}-{scheme}.png", full_page=True)
    assert opened.violations() == []
    opened.context.close()


def test_its_policy_lets_nothing_in(browser: Browser, small: Path, tmp_path: Path) -> None:
    """What someone might have got into the file does nothing: no script, no style, no request."""
    harm = '<script>document.title="run"</script><p style="color:red" onclick="1">x</p><img src="http://127.0.0.1:9/x">'
    changed = tmp_path / "harm.html"
    changed.write_text(small.read_text("utf-8").replace("</main>", f"{harm}</main>"), "utf-8")
    opened = Opened(browser, changed)
    assert opened.page.title() != "run"
    assert sum("Content Security Policy" in each for each in opened.said) >= 3
    assert opened.page.evaluate("getComputedStyle(document.querySelector('p[style]')).color") != "rgb(255, 0, 0)"
    opened.context.close()


def test_it_is_worked_without_a_mouse_and_says_all_to_a_screen_reader(browser: Browser, small: Path) -> None:
    opened = Opened(browser, small)
    page = opened.page
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.locator("#failures h3 a").focus()
    page.keyboard.press("Enter")
    assert page.evaluate("document.querySelector('tr:target th').textContent") == "b"
    details = page.locator("tr:target details").first
    details.locator("summary").focus()
    page.keyboard.press("Enter")
    assert details.get_attribute("open") is not None
    tree = page.locator("body").aria_snapshot()
    for said in (
        'heading "Failures"',
        'img "Who waits for whom',
        'img "When the attempts',
        'table "3 tasks"',
        "rowheader",
    ):
        assert said in tree, tree
    opened.context.close()


def test_it_is_whole_on_paper(browser: Browser, small: Path, tmp_path: Path) -> None:
    opened = Opened(browser, small, scheme="dark")
    opened.page.emulate_media(media="print")
    assert opened.page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    closed = opened.page.locator("details:not([open]) pre")
    assert closed.count() > 2
    assert all(closed.nth(i).bounding_box() for i in range(closed.count()))  # what is closed on a screen is printed
    opened.page.pdf(path=str(tmp_path / "report.pdf"))
    assert (tmp_path / "report.pdf").read_bytes().startswith(b"%PDF")
    opened.context.close()


def test_five_thousand_tasks_stay_usable(browser: Browser, tmp_path: Path) -> None:
    file = tmp_path / "many.html"
    file.write_text(report_html(many_tasks(5000)), "utf-8")
    begin = time.monotonic()
    opened = Opened(browser, file)
    opened.page.wait_for_load_state("load")
    assert time.monotonic() - begin < 60  # about one second on an idle machine
    assert opened.said == []
    page = opened.page
    if SHOTS:
        page.screenshot(path=f"{SHOTS}/report-many-top.png", full_page=True)
    assert page.locator("svg.graph .node").count() <= 120
    page.goto(f"{file.as_uri()}#task-group-7.47")
    row = page.locator("tr:target")
    page.wait_for_function("document.querySelector('tr:target').getBoundingClientRect().height > 0")  # its group opens
    assert "group-7.47" in row.inner_text()
    if SHOTS:
        page.screenshot(path=f"{SHOTS}/report-many.png")
    opened.context.close()
