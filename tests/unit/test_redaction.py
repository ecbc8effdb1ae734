"""Secrets are taken out of whatever is written: however it is cut into chunks, encoded, or mixed with others."""

from __future__ import annotations

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provisioning.core.redaction import Redactor

SECRET = "s3cr3t/+\"value'é of 4711"
SECRETS = {"token": SECRET, "short": "abcd"}


def streamed(redactor: Redactor, chunks: list[bytes]) -> bytes:
    return b"".join(map(redactor.feed, chunks)) + redactor.finish()


def cut(data: bytes, places: list[int]) -> list[bytes]:
    ends = sorted(place % (len(data) + 1) for place in places)
    return [data[start:end] for start, end in zip([0, *ends], [*ends, len(data)], strict=True)]


@given(st.lists(st.sampled_from([SECRET, "abcd", "abc", "x" * 50, "\n", SECRET[:7]])), st.lists(st.integers(0, 5000)))
def test_chunks_make_no_difference(parts: list[str], places: list[int]) -> None:
    data = "".join(parts).encode()
    whole = Redactor(SECRETS).text(data.decode()).encode()
    assert streamed(Redactor(SECRETS), cut(data, places)) == whole
    for secret in SECRETS.values():
        assert secret.encode() not in whole


@given(st.text(min_size=8, max_size=200).filter(lambda text: len(text.encode("utf-8", "ignore")) >= 8))
def test_any_secret_is_taken_out_of_any_stream(secret: str) -> None:
    secret = secret.encode("utf-8", "ignore").decode()
    if len(secret) < 8:
        return
    data = f"before {secret} after".encode()
    said = streamed(Redactor({"n": secret}), [data[i : i + 1] for i in range(len(data))])
    assert secret.encode() not in said
    assert said.startswith(b"before ")
    assert said.endswith(b" after")


@pytest.mark.parametrize("prefix", [b"", b"a", b"ab", b"abc"])
@pytest.mark.parametrize("encode", [base64.b64encode, base64.urlsafe_b64encode, base64.encodebytes])
def test_base64_at_every_offset(prefix: bytes, encode: object) -> None:
    secret = "a-rather-long-secret-of-more-than-57-bytes-so-that-lines-are-wrapped-somewhere-within"
    coded: bytes = encode(prefix + secret.encode() + b"end")  # type: ignore[operator]
    said = streamed(Redactor({"n": secret}), [coded])
    assert b"[secret n]" in said
    kept = said.replace(b"[secret n]", b"")
    assert len(kept) <= 16, "what is left of it says nothing"


def test_json_and_hex() -> None:
    for text in (json.dumps({"x": SECRET}), json.dumps({"x": SECRET}, ensure_ascii=False), SECRET.encode().hex()):
        assert "[secret token]" in Redactor(SECRETS).text(text)


def test_each_line_of_a_key() -> None:
    key = "-----BEGIN KEY-----\n" + "\n".join(f"{n:02}" + "k" * 62 for n in range(20)) + "\n-----END KEY-----"
    indented = "\n".join(f"    {line}" for line in key.splitlines())
    assert "kkkk" not in Redactor({"key": key}).text(indented)


def test_a_secret_that_begins_another() -> None:
    made = Redactor({"a": "abcdefgh", "b": "abcdefghijkl"})
    assert made.text("abcdefghijkl abcdefgh") == "[secret b] [secret a]"


def test_values_of_any_shape() -> None:
    value = {"a": [SECRET, 1, None, {SECRET: True}], "b": 1.5}
    assert Redactor(SECRETS).value(value) == {"a": ["[secret token]", 1, None, {"[secret token]": True}], "b": 1.5}


def test_without_secrets_nothing_is_held_back() -> None:
    assert Redactor().feed(b"abcd") == b"abcd"
