"""The close codes of the server, of the scripts and of ``docs/reference/websockets.rst`` are the same ones."""

import json
import subprocess

import pytest

from tests.docs.test_docs import ROOT, rows
from tests.requires import need
from wsloop.protocol import close_codes

NAMES = {
    name: value for name, value in vars(close_codes).items() if name.isupper() and type(value) is int and value >= 4000
}

MODULE = "wsloop/static/wsloop/close-codes.js"
NOT_WSLOOP = {1008}  # a proxy or an application may send it; the reference has the codes of wsloop only


@pytest.fixture(scope="module")
def script_codes():
    """``CLOSE_CODES`` for scripts: by code, as the script has it."""
    script = f"import {{ CLOSE_CODES }} from './{MODULE}'; console.log(JSON.stringify(CLOSE_CODES))"
    command = [need("node"), "--input-type=module", "--eval", script]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=True)
    return {int(code): row for code, row in json.loads(run.stdout).items()}


@pytest.fixture(scope="module")
def page_codes():
    """The table of the reference: meaning and action by code."""
    return {
        int(code): (" ".join(meaning.split()), " ".join(action.split()))
        for code, meaning, action in rows(ROOT / "docs/reference/websockets.rst", "Code")
    }


def test_scripts_explain_close_codes_in_the_words_of_the_reference(script_codes, page_codes):
    explained = {code: (row["meaning"], row["action"]) for code, row in script_codes.items() if code not in NOT_WSLOOP}
    assert explained == page_codes


def test_the_table_of_the_server_has_the_same_rows(script_codes, page_codes):
    table = close_codes.CLOSE_CODES
    assert {code: (row.meaning, row.action) for code, row in table.items()} == page_codes
    come_back = {code: row["reconnect"] for code, row in script_codes.items() if code not in NOT_WSLOOP}
    assert {code: row.reconnect for code, row in table.items()} == come_back


def test_scripts_come_back_when_the_reference_says_so(script_codes, page_codes):
    never = {code for code, row in script_codes.items() if row["reconnect"] == "never"}
    later = {code for code, row in script_codes.items() if row["reconnect"] == "later"}
    assert never - NOT_WSLOOP == {code for code, (_, action) in page_codes.items() if "do not reconnect" in action}
    assert later == {code for code, (_, action) in page_codes.items() if "not at once" in action}


def test_scripts_and_server_have_the_same_names_for_the_same_codes(script_codes):
    names = {row["name"]: code for code, row in script_codes.items()}
    assert len(names) == len(script_codes)
    assert {name: names.get(name) for name in NAMES} == NAMES


def test_scripts_and_server_agree_after_which_codes_the_client_does_not_come_back(script_codes):
    assert {code for code, row in script_codes.items() if row["reconnect"] == "never"} == close_codes.FINAL
