"""The table of routes, and the small rules of the HTTP door."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from provisioning.config import Gateway
from provisioning.core.bearer import Token, hash_of, operator_of, token_of
from provisioning.core.catalogue import Catalogue, Operation, Param
from provisioning.core.identifiers import CHOSEN_ID, TASK_ID, WORKFLOW_ID
from provisioning.core.locate import Limits, decode
from provisioning.errors import ProvisioningError, Refused, UsageError
from provisioning.gateway import guard, page
from provisioning.gateway.answers import Declined
from provisioning.gateway.callers import Caller
from provisioning.gateway.changing import Asked, _id_of, _placed, _with_id
from provisioning.gateway.listening import open_all, parse
from provisioning.gateway.openapi import SCHEMAS, document
from provisioning.gateway.routes import PARTS, ROUTES

NAMED = Operation("servers.create", "create", "", "", (Param("name", {}, positional=True, required=True),), {})


def test_the_readme_names_every_route() -> None:
    text = (Path(__file__).parents[2] / "README.md").read_text().split("## The HTTP door")[1].split("\n## ")[0]
    for route in ROUTES:
        named = re.sub(r"\{(\w+)\}", lambda part: {"task_of": "ID.TASK"}.get(part[1], part[1].upper()), route.path)
        if named == "/workflows/DOMAIN/VERB":
            named = "/workflows/<domain>/<verb>"
        last = named.rsplit("/", 1)[1]
        assert named in text or (route.method == "POST" and f"`{last}`" in text), named


def test_every_schema_of_an_answer_is_there_and_used() -> None:
    assert {route.schema for route in ROUTES} - {""} == set(SCHEMAS)


def test_the_description_has_every_operation_with_its_params() -> None:
    found = document(Catalogue("0" * 64, {"servers.create": NAMED}))["paths"]["/workflows/servers/create"]["post"]
    params = found["requestBody"]["content"]["application/json"]["schema"]["properties"]["params"]
    assert params["additionalProperties"] is False
    assert params["required"] == [], "infra may be the name"


def test_no_pattern_of_the_description_lets_a_newline_be_behind_it() -> None:
    text = json.dumps(document(Catalogue("0" * 64, {"servers.create": NAMED})))
    patterns = {json.loads(found) for found in re.findall(r'"pattern": ("(?:[^"\\\\]|\\\\.)*")', text)}
    assert len(patterns) >= 5
    for pattern in patterns:
        for name in ("7zzz", "a", "web"):
            assert not re.search(pattern, f"{name}\n"), pattern
    assert any(re.search(pattern, "7zzz") for pattern in patterns)


@given(st.from_regex(WORKFLOW_ID, fullmatch=True))
def test_every_workflow_id_is_one_in_a_path(workflow_id: str) -> None:
    assert re.fullmatch(PARTS["{id}"][0], workflow_id)


@given(st.lists(st.from_regex("[a-z0-9][a-z0-9_-]{0,63}", fullmatch=True), min_size=1, max_size=5), st.booleans())
def test_every_task_id_is_one_in_a_path(parts: list[str], undo: bool) -> None:
    task_id = ".".join(parts) + "~undo" * undo
    assume(TASK_ID.match(task_id))
    assert re.fullmatch(PARTS["{task}"][0], task_id)
    assert re.fullmatch(PARTS["{task_of}"][0], f"01m8eancbpqn7z4fejb8jr6tcq.{task_id}")


@given(st.text())
def test_no_part_of_a_path_leads_out(text: str) -> None:
    for pattern, _ in PARTS.values():
        if re.fullmatch(pattern, text):
            assert "/" not in text
            assert not text.startswith((".", "-"))
            assert ".." not in text


@given(st.from_regex(CHOSEN_ID, fullmatch=True), st.sampled_from(["{}", '{"name": "x"}', ' \n{"tasks": [{}]}']))
def test_a_key_becomes_the_id_and_nothing_else(key: str, text: str) -> None:
    before = decode(text.encode(), form="json", file="", limits=Limits())[1]
    after = decode(_with_id(text.encode(), "json", key), form="json", file="", limits=Limits())[1]
    assert after == {"id": key, **before}


def test_what_an_editor_leaves_beside_the_page_is_no_file_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = page.read_files()
    folder = tmp_path / "static"
    shutil.copytree(page._FOLDER, folder)
    for name in ("page.js~", ".page.js.swp", "page.js.orig", "README", "#page.js#"):
        (folder / name).write_text("half of it")
    (folder / "__pycache__").mkdir()
    monkeypatch.setattr(page, "_FOLDER", folder)
    assert page.read_files() == files


@pytest.mark.parametrize("key", ["", '"', "a b", "../a", "a\n", 'a", "x": "', "a" * 129, "\u00e4"])
def test_what_can_be_no_id_is_refused(key: str) -> None:
    for own in (True, False):
        with pytest.raises(Declined):
            _id_of(Caller("alice", own), key)


def test_what_infra_means() -> None:
    assert _placed(NAMED, Asked("wuji", {})) == ("default", {"name": "wuji"})
    assert _placed(NAMED, Asked("wuji", {"name": "a"})) == ("wuji", {"name": "a"})
    assert _placed(NAMED, Asked("", {})) == ("default", {})


@given(st.binary(min_size=32, max_size=32))
def test_a_token_is_known_by_its_hash(randomness: bytes) -> None:
    token = token_of(randomness)
    known = [Token("alice", hash_of(token_of(b"x" * 32))), Token("bob", hash_of(token))]
    assert operator_of(token, known) == "bob"
    assert operator_of(token + "x", known) is None
    assert operator_of("", known) is None
    assert operator_of(hash_of(token), known) is None


@pytest.mark.parametrize(
    "text", ["", "9090", "localhost", "localhost:99999", "evil.example:80", "unix:s", "a b:1", "*:9"]
)
def test_where_nobody_can_listen(text: str) -> None:
    with pytest.raises(UsageError):
        parse(text)


@pytest.mark.parametrize("text", ["0.0.0.0:0", "[::]:0", "192.0.2.1:9090", "[2001:db8::1]:1"])
def test_others_are_let_in_with_tls_only(text: str) -> None:
    assert not parse(text).local
    with pytest.raises(Refused):
        open_all(Gateway(listen=("localhost:0", text)), has_tokens=True)


@pytest.mark.parametrize("text", ["localhost:1", "127.0.0.1:1", "127.0.0.7:1", "[::1]:1", "unix:/run/s"])
def test_this_host_needs_neither(text: str) -> None:
    assert parse(text).local


def test_no_socket_is_left_open_where_one_cannot_be_opened(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ProvisioningError):
        open_all(Gateway(listen=("localhost:0", f"unix:{tmp_path}/file")), has_tokens=False)
    assert (tmp_path / "file").exists()


@pytest.mark.parametrize(
    ("header", "name"),
    [("localhost:9090", "localhost"), ("LOCALHOST", "localhost"), ("[::1]:9", "[::1]"), ("[::1]", "[::1]"), ("", "")],
)
def test_the_name_in_a_host_header(header: str, name: str) -> None:
    assert guard.host_name(header) == name


def _said_by(code: str, *words: str) -> subprocess.CompletedProcess[str]:
    script = f"import sys; {code}; from provisioning.cli import run; sys.exit(run({list(words)!r}))"
    return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)


def test_without_aiohttp_it_says_what_to_install() -> None:
    done = _said_by("sys.modules['aiohttp'] = None", "serve")
    assert done.returncode == 2
    assert "pip install 'provisioning[web]'" in done.stderr
    assert "Traceback" not in done.stderr


def test_no_other_command_loads_it(tmp_path: Path) -> None:
    loaded = (
        "import atexit; atexit.register(lambda: print(*{'aiohttp', 'asyncio'} & set(sys.modules), file=sys.stderr))"
    )
    for words in (["spool", "init", str(tmp_path / "s")], ["serve", "--help"]):
        done = _said_by(loaded, *words)
        assert done.returncode == 0
        assert "aiohttp" not in done.stderr
        assert "asyncio" not in done.stderr
