from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import select, text

from egressproxy.errors import StoreError
from egressproxy.review import schema
from egressproxy.review.bounds import Bounds
from egressproxy.review.store import Store, open_store
from egressproxy.review.writer import Writer
from tests.review.records import flow

if TYPE_CHECKING:
    from tests.review.postgresql import Server


def versions(store: Store) -> list[str]:
    with store.connect() as connection:
        asked = select(schema.meta.c.value).where(schema.meta.c.key == "schema_version")
        return list(connection.execute(asked).scalars())


SECRET = "s3cr3t"


@pytest.mark.parametrize(
    "url",
    [
        f"postgresql://user:{SECRET}@127.0.0.1:1/db",
        f"postgresql://user:{SECRET}@[::1]:1/db?sslmode=disable",
        f"postgresql://user@127.0.0.1:1/db?password={SECRET}",
        f"postgresql://user:x@{SECRET}@127.0.0.1/db",
        f"postgresql://user:{SECRET}@127.0.0.1:port/db",
        f"postgresql://user:{SECRET}@127.0.0.1:1/db?sslmode={SECRET}",
        f"mysql://user:{SECRET}@127.0.0.1/db",
        f"postgresql+asyncpg://user:{SECRET}@127.0.0.1/db",
        f"https://user:{SECRET}@127.0.0.1/db",
    ],
)
def test_no_error_tells_a_password(url: str) -> None:
    with pytest.raises(StoreError) as raised:
        open_store(url)
    assert SECRET not in str(raised.value)
    assert "@" not in raised.value.message


def test_the_place_of_a_url_has_no_secrets(postgresql_server: Server) -> None:
    url = postgresql_server.url().replace("postgres@", f"postgres:{SECRET}@")
    with open_store(url.replace("postgresql:", "postgres:")) as store:
        assert store.place.startswith("postgresql://")
        assert SECRET not in store.place
        assert store.dialect == "postgresql"


def test_a_database_that_does_not_exist(postgresql_server: Server) -> None:
    with pytest.raises(StoreError) as raised:
        open_store(postgresql_server.url().replace("/review", "/no-such-review"))
    assert raised.value.code == "missing"
    assert "createdb" in raised.value.hint


def test_a_server_that_was_restarted_is_met_again(postgresql_server: Server) -> None:
    with open_store(postgresql_server.url()) as store:
        assert versions(store) == ["1"]
        postgresql_server.restart()
        assert versions(store) == ["1"]


def test_tables_of_others_in_the_same_database_do_not_matter(postgresql_server: Server) -> None:
    url = postgresql_server.url()
    with open_store(url) as store, store.begin() as connection:
        schema.metadata.drop_all(connection)
        connection.execute(text("CREATE TABLE invoices (id int)"))
    with open_store(url) as store:
        assert versions(store) == ["1"]


def test_a_writer_goes_on_after_the_server_was_restarted(postgresql_server: Server) -> None:
    with open_store(postgresql_server.url()) as store:
        writer = Writer(store, gateway="gw", bounds=Bounds())
        writer.add([flow()])
        postgresql_server.restart()
        assert writer.add([flow()]).stored == 1


def test_a_row_that_does_not_fit_leaves_nothing_of_its_batch(postgresql_server: Server) -> None:
    with open_store(postgresql_server.url()) as store:
        writer = Writer(store, gateway="gw", bounds=Bounds())
        with pytest.raises(StoreError, match="out of range"):
            writer.add([flow(), flow(src_port=1 << 40)])
        assert writer.add([flow()]).new_names == ("evil.example",)
        with store.connect() as connection:
            assert len(connection.execute(select(schema.record)).all()) == 1


def test_without_its_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(StoreError, match="no driver") as raised:
        open_store("postgresql://user@db.internal/review")
    assert "egressproxy[postgres]" in raised.value.hint
