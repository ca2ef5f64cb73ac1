"""All pages for people: each has its line in the module's table, and answers."""

from __future__ import annotations

from tests import reference


def test_every_page_has_its_line() -> None:
    assert set(reference.browser_pages()) == reference.browser_routes()


def test_the_table_is_of_people_s_pages_alone() -> None:
    assert all(
        path == "/" or path.split("/")[1] in ("review", "login", "logout", "static")
        for _, path in reference.browser_pages()
    )
