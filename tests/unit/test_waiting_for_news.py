"""The sleep of whoever works a spool: what ends it, and what is heeded in it."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from provisioning.clock import boottime
from provisioning.execution.executor import HEED_SECONDS, wait_for_news


class Pipe:
    """Readable once something was said."""

    def __init__(self) -> None:
        self.descriptor, self._end = os.pipe()

    def say(self) -> None:
        os.write(self._end, b"x")

    def take(self) -> None:
        os.read(self.descriptor, 1)

    def close(self) -> None:
        os.close(self.descriptor)
        os.close(self._end)


@pytest.fixture
def news() -> Iterator[Pipe]:
    made = Pipe()
    yield made
    made.close()


@pytest.fixture
def other() -> Iterator[Pipe]:
    made = Pipe()
    yield made
    made.close()


def test_news_is_heeded_as_long_as_more_will_come(news: Pipe, other: Pipe) -> None:
    left = 3

    def heed() -> bool:
        nonlocal left
        left -= 1
        news.take()
        if left:
            news.say()
        return left > 0

    news.say()
    assert wait_for_news(news, [other.descriptor], 60.0, heed) == []
    assert left == 0


def test_news_without_end_ends_the_sleep_after_a_while(news: Pipe, other: Pipe) -> None:
    times = []

    def heed() -> bool:
        times.append(boottime())
        return True

    news.say()
    assert wait_for_news(news, [other.descriptor], 60.0, heed) == []
    assert HEED_SECONDS / 2 < times[-1] - times[0] <= HEED_SECONDS


def test_something_else_ends_it_and_then_no_news_is_heeded(news: Pipe, other: Pipe) -> None:
    news.say()
    other.say()
    assert wait_for_news(news, [other.descriptor], 60.0, pytest.fail) == [other.descriptor]


def test_it_ends_while_news_is_heeded(news: Pipe, other: Pipe) -> None:
    def heed() -> bool:
        other.say()
        return True

    news.say()
    assert wait_for_news(news, [other.descriptor], 60.0, heed) == [other.descriptor]


def test_the_time_is_over(news: Pipe, other: Pipe) -> None:
    begun = boottime()
    assert wait_for_news(news, [other.descriptor], 0.02, pytest.fail) == []
    assert boottime() - begun >= 0.02
    news.say()
    assert wait_for_news(news, [other.descriptor], 0.0, pytest.fail) == [], "a tick takes it"
