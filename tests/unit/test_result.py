"""What is made of an entry's answer: results, errors of every depth, and what no entry would write."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from typing import Any

import pytest

from provisioning.core.workflow import TaskError
from provisioning.execution.result import ERROR_TEXT, FAILURE_BYTES, NO_CODE, Reply, read_reply

Answering = Callable[..., Reply]


@pytest.fixture
def answering() -> Answering:
    """What is read of an answer of these bytes."""

    def read(data: bytes, limit: int = 1 << 20) -> Reply:
        descriptor = os.memfd_create("answer")
        try:
            os.write(descriptor, data)
            return read_reply(descriptor, limit, None)
        finally:
            os.close(descriptor)

    return read


def ours(case: str, **more: Any) -> dict[str, Any]:
    return {"code": f"provisioning::test::{case}", "msg": case, **more}


@pytest.mark.parametrize(
    ("failure", "told"),
    [
        (ours("one", help="do this"), TaskError("provisioning::test::one", "one", "do this")),
        ({"msg": "outer", "inner": [ours("one")]}, TaskError("provisioning::test::one", "one")),
        (ours("outer", inner=[ours("inner")]), TaskError("provisioning::test::inner", "inner")),
        (ours("ours", inner=[{"code": "nu::x", "msg": "theirs"}]), TaskError("provisioning::test::ours", "ours")),
        ({"inner": [ours("first"), ours("last")]}, TaskError("provisioning::test::last", "last")),
        ({"msg": "a", "inner": [{"msg": "b", "inner": [{"code": "nu::deep"}]}]}, TaskError("nu::deep")),
        ({"msg": "plain"}, TaskError(NO_CODE, "plain")),
        ({"msg": "m", "code": None, "labels": [{"text": "here"}, {"text": "no"}]}, TaskError(NO_CODE, "m: here")),
        ({"msg": "m", "labels": []}, TaskError(NO_CODE, "m")),
        (ours("m", labels=[{"text": "shown by nobody"}]), TaskError("provisioning::test::m", "m")),
        (ours("busy", url="retry-after:30"), TaskError("provisioning::test::busy", "busy", "", 30.0)),
        (ours("busy", url="see retry-after:30"), TaskError("provisioning::test::busy", "busy")),
        (ours("busy", url="retry-after:30\n"), TaskError("provisioning::test::busy", "busy")),
        (ours("more", rendered="the environment", debug={"x": 1}), TaskError("provisioning::test::more", "more")),
        ({}, TaskError(NO_CODE)),
    ],
)
def test_the_error_that_says_what_happened(answering: Answering, failure: dict[str, Any], told: TaskError) -> None:
    assert answering(json.dumps({"failure": failure}).encode()) == Reply(error=told, complete=True)


def test_an_entry_of_an_earlier_version_is_understood(answering: Answering) -> None:
    error = {"code": "provisioning::a::b", "msg": "m", "help": "h", "retry_after": 7}
    reply = answering(json.dumps({"error": error}).encode())
    assert reply == Reply(error=TaskError("provisioning::a::b", "m", "h", 7.0), complete=True)


def test_results(answering: Answering) -> None:
    assert answering(b"") == Reply()
    assert answering(b'{"result":null}') == Reply(complete=True)
    assert answering(b'{"result":{"failure":{}}}') == Reply(result={"failure": {}}, complete=True)


@pytest.mark.parametrize(
    "data",
    [
        b"{",
        b"\xff",
        b"[]",
        b'{"failure":1}',
        b'{"failure":{"inner":5}}',
        b'{"failure":{"inner":[null]}}',
        b'{"failure":{"code":7}}',
        b'{"failure":{"labels":{"text":"x"}}}',
        b'{"result":1,"more":2}',
        b'{"failure":' + b'{"inner":[' * 20_000 + b"{}" + b"]}" * 20_000 + b"}",
    ],
)
def test_what_no_entry_writes_is_an_error_and_no_more(answering: Answering, data: bytes) -> None:
    error = answering(data).error
    assert error is not None
    assert error.code == "provisioning::attempt::result-unreadable"


def test_long_texts_are_cut(answering: Answering) -> None:
    error = answering(json.dumps({"failure": {"msg": "x" * 10_000, "help": "y"}}).encode()).error
    assert error is not None
    assert (len(error.msg), error.help) == (ERROR_TEXT + 1, "y")


def test_what_a_result_may_have_limits_no_error(answering: Answering) -> None:
    failure = {"msg": "outer", "inner": [ours("inner", help="x" * 300)]}
    error = answering(json.dumps({"failure": failure}).encode(), 256).error
    assert error == TaskError("provisioning::test::inner", "inner", "x" * 300)
    for data in (json.dumps({"result": "x" * 300}).encode(), b" " * (FAILURE_BYTES + 1)):
        error = answering(data, 256).error
        assert error is not None
        assert error.code == "provisioning::attempt::result-too-large"
        assert error.msg == f"the answer has {len(data)} bytes, and at most 256 of a result are kept"
