"""A PostgreSQL of one's own: made in a folder, reached by a Unix socket, gone afterwards."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Final

import psycopg

if TYPE_CHECKING:
    from collections.abc import Sequence

_DEBIAN: Final = Path("/usr/lib/postgresql")
_SETTINGS: Final = (
    "listen_addresses=",
    "fsync=off",
    "synchronous_commit=off",
    "full_page_writes=off",
    "max_connections=40",
    "shared_buffers=64MB",
)


def programs() -> Path | None:
    """The folder of ``initdb`` and ``postgres``: Debian's newest, or the path's."""
    versions = sorted(_DEBIAN.glob("*/bin/initdb"), key=lambda path: float(path.parts[-3]))
    if versions:
        return versions[-1].parent
    found = shutil.which("initdb")
    return Path(found).resolve().parent if found else None


class Server:
    """A running server; ``url`` makes a new database in it."""

    def __init__(self, folder: Path, settings: Sequence[str] = _SETTINGS) -> None:
        where = programs()
        assert where is not None
        self._where = where
        self._folder = folder
        self._numbers = count(1)
        self._user = _other_user()
        self._data = folder / "data"
        if self._user:
            _open_way(folder)
            os.chown(folder, self._user.pw_uid, self._user.pw_gid)
        self._run("initdb", "-D", str(self._data), "-U", "postgres", "-A", "trust", "--no-sync")
        with (self._data / "postgresql.auto.conf").open("a") as conf:
            for each in settings:
                key, _, value = each.partition("=")
                conf.write(f"{key} = '{value}'\n")
            conf.write(f"unix_socket_directories = '{folder}'\n")
        log = str(folder / "log")
        self._run("pg_ctl", "-D", str(self._data), "-l", log, "-w", "-t", "30", "start")

    def url(self) -> str:
        """The URL of a database that was just made."""
        name = f"review{next(self._numbers)}"
        with psycopg.connect(self._conninfo("postgres"), autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}".encode())
        return f"postgresql://postgres@/{name}?host={self._folder}"

    def stop(self) -> None:
        """End it, whoever is connected."""
        self._run("pg_ctl", "-D", str(self._data), "-m", "immediate", "-w", "stop")

    def restart(self) -> None:
        """End all connections and start again."""
        log = str(self._folder / "log")
        self._run("pg_ctl", "-D", str(self._data), "-m", "fast", "-w", "-l", log, "restart")

    def _conninfo(self, database: str) -> str:
        return f"host={self._folder} user=postgres dbname={database}"

    def _run(self, program: str, *arguments: str) -> None:
        command = [str(self._where / program), *arguments]
        if self._user:  # PostgreSQL refuses to run as root
            ids = [f"--reuid={self._user.pw_uid}", f"--regid={self._user.pw_gid}"]
            command = ["setpriv", *ids, "--clear-groups", "--", *command]
        done = subprocess.run(
            command,
            cwd=self._folder,
            # What postgres inherits it keeps open, so no pipe that somebody waits to end.
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            stdin=subprocess.DEVNULL,
            timeout=60,
            check=False,
        )
        log = self._folder / "log"
        said = log.read_text()[-2000:] if log.exists() else ""
        assert done.returncode == 0, f"{program}: {done.returncode}\n{said}"


def _other_user() -> pwd.struct_passwd | None:
    if os.geteuid() != 0:
        return None
    try:
        return pwd.getpwnam("postgres")
    except KeyError:
        return pwd.getpwnam("nobody")


def _open_way(folder: Path) -> None:
    """Let another user through the folders above, which pytest makes for its own user alone."""
    for parent in folder.parents:
        if parent.stat().st_uid == os.geteuid() and not parent.stat().st_mode & 0o001:
            parent.chmod(parent.stat().st_mode | 0o011)
