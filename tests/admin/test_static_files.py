"""The files beside the pages: packed, versioned, and nothing else."""

from __future__ import annotations

import re

import pytest

from egressproxy.admin.static_files import address_of, static_files


def test_an_address_changes_with_the_content() -> None:
    for name, file in static_files().items():
        assert address_of(name) == f"/static/{name}?v={file.version}"
        assert file.content


def test_no_file_asks_for_another_place() -> None:
    for name, file in static_files().items():
        text = file.content.decode()
        found = re.findall(r"https?://[^\"'\s)]+", text)
        assert not [each for each in found if each != "http://www.w3.org/2000/svg"], name
        assert "@import" not in text
        assert "url(" not in text


def test_the_script_sets_no_markup() -> None:
    text = static_files()["live.js"].content.decode()
    for word in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval("):
        assert word not in text


@pytest.mark.parametrize("name", ["../access.py", "", "style.css/"])
def test_nothing_else_is_there(name: str) -> None:
    assert name not in static_files()
