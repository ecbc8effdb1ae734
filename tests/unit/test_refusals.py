"""Refused calls: what is kept of them is bounded whoever calls, and every caller has an allowance of their own."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from provisioning.gateway.refusals import (
    KEPT_CALLERS,
    KEPT_SECONDS,
    MOST,
    OTHERS,
    PER_SECONDS,
    Allowance,
    Refusal,
    Refusals,
)


def test_the_first_is_kept_at_once_and_how_many_followed_later() -> None:
    refusals = Refusals()
    assert refusals.add("mallory", "unknown-token", "GET /workflows", 10) == [
        Refusal("mallory", "unknown-token", "GET /workflows", 1)
    ]
    assert [refusals.add("mallory", "unknown-token", "GET /", 11 + i) for i in range(5)] == [[]] * 5
    assert refusals.add("mallory", "cross-site", "GET /", 20) == [Refusal("mallory", "cross-site", "GET /", 1)]
    later = refusals.add("eve", "unknown-token", "GET /", 10 + KEPT_SECONDS)
    assert later == [Refusal("mallory", "unknown-token", "", 5), Refusal("eve", "unknown-token", "GET /", 1)]
    assert refusals.due() == []


@given(st.lists(st.tuples(st.integers(0, 200), st.floats(0, 40)), max_size=300))
def test_none_is_lost_and_the_records_are_bounded(calls: list[tuple[int, float]]) -> None:
    refusals, now, kept = Refusals(), 0.0, list[tuple[float, Refusal]]()
    for number, pause in calls:
        now += pause
        kept += [(now, each) for each in refusals.add(f"caller-{number}", "unknown-token", "GET /", now)]
    kept += [(now, each) for each in refusals.due()]
    assert sum(each.times for _, each in kept) == len(calls)
    most = 2 * (KEPT_CALLERS + 1)
    assert len(kept) <= most * (2 + now // KEPT_SECONDS)
    named = {each.who for at, each in kept if at < KEPT_SECONDS}
    assert len(named - {OTHERS}) <= KEPT_CALLERS


def test_an_allowance_is_used_up_and_comes_back() -> None:
    allowance = Allowance()
    for _ in range(MOST):
        assert allowance.wait_seconds("mallory", 5.0) == 0
        allowance.take("mallory", 5.0)
    wait = allowance.wait_seconds("mallory", 5.0)
    assert wait == PER_SECONDS / MOST
    assert allowance.wait_seconds("alice", 5.0) == 0, "each has their own"
    assert allowance.wait_seconds("mallory", 5.0 + wait) == 0
    for _ in range(1000):
        allowance.take("mallory", 6.0)
    assert allowance.wait_seconds("mallory", 6.0 + PER_SECONDS) == 0, "and never waits for longer than that"


def test_many_callers_take_little_room() -> None:
    allowance = Allowance()
    for number in range(10_000):
        allowance.take(f"caller-{number}", float(number))
    assert len(allowance._taken) < 5000
