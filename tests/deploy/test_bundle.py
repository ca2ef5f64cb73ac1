"""deploy/bundle, install and egressproxy-install: what they do to a machine, in another root."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

if TYPE_CHECKING:
    from subprocess import CompletedProcess

ROOT: Final = Path(__file__).parents[2]
DEPLOY: Final = ROOT / "deploy"
PYTHON_FOLDER: Final = Path(sys.executable).parent


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Our wheel, built from a copy without asking for anything that is not here."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheels")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    shutil.copytree(ROOT / "egressproxy", source / "egressproxy")
    pip = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation"]
    subprocess.run([*pip, "-w", out, source], check=True)
    (found,) = out.glob("egressproxy-*.whl")
    return found


def bundle(folder: Path, wheel: Path, *, mark: str = "") -> Path:
    """An unpacked bundle; with a mark it is another release of the same version."""
    (folder / "wheels").mkdir(parents=True)
    shutil.copy(DEPLOY / "install", folder)
    shutil.copytree(DEPLOY / "systemd", folder / "systemd")
    copied = Path(shutil.copy(wheel, folder / "wheels"))
    if mark:
        with zipfile.ZipFile(copied, "a") as archive:
            archive.comment = mark.encode()
    return folder


def install(bundle: Path, root: Path) -> CompletedProcess[str]:
    return run(bundle / "install", root)


def roll_back(root: Path) -> CompletedProcess[str]:
    return run(root / "opt" / "egressproxy" / "rollback", root)


def run(script: Path, root: Path) -> CompletedProcess[str]:
    """Dependencies are not in these bundles: they are this environment's."""
    site = next(Path(each) for each in sys.path if each.endswith("site-packages"))
    environment = {
        **os.environ,
        "EGRESSPROXY_ROOT": str(root),
        "PATH": f"{PYTHON_FOLDER}:{os.environ['PATH']}",
        "PIP_NO_DEPS": "1",
        "PYTHONPATH": str(site),
    }
    return subprocess.run([str(script)], env=environment, capture_output=True, text=True)


def current(root: Path) -> str:
    return str((root / "opt" / "egressproxy").readlink())


@pytest.mark.timeout(180)
def test_releases_lie_beside_each_other_and_a_switch_is_a_link(wheel: Path, tmp_path: Path) -> None:
    root = tmp_path / "root"
    old = bundle(tmp_path / "old", wheel)
    new = bundle(tmp_path / "new", wheel, mark="another release")

    done = install(old, root)
    assert done.returncode == 0, done.stderr
    first = current(root)
    done = roll_back(root)
    assert done.returncode == 1
    assert "no release before" in done.stderr
    assert (root / "opt/egressproxy/bin/egressproxy").exists()
    assert (root / "etc/systemd/system/egressproxy.service").exists()
    assert (root / "usr/lib/sysusers.d/egressproxy.conf").exists()
    command = (root / "usr/local/bin/egressproxy").readlink()
    assert command == Path("/opt/egressproxy/bin/egressproxy")

    assert install(old, root).returncode == 0
    assert current(root) == first
    assert not (root / "opt/egressproxy-releases/previous").exists()

    assert install(new, root).returncode == 0
    second = current(root)
    assert second != first

    assert roll_back(root).returncode == 0
    assert current(root) == first
    assert roll_back(root).returncode == 0
    assert current(root) == second


@pytest.mark.timeout(180)
def test_a_release_that_does_not_start_is_not_switched_to(wheel: Path, tmp_path: Path) -> None:
    root = tmp_path / "root"
    assert install(bundle(tmp_path / "good", wheel), root).returncode == 0
    before = current(root)
    broken = bundle(tmp_path / "broken", wheel)
    (found,) = (broken / "wheels").glob("*.whl")
    found.write_bytes(b"no wheel")
    assert install(broken, root).returncode != 0
    assert current(root) == before


def test_an_option_that_there_is_not_is_refused(tmp_path: Path) -> None:
    command = [str(DEPLOY / "install"), "--roll-back"]
    assert subprocess.run(command, capture_output=True).returncode == 2
    assert not list(tmp_path.iterdir())


# egressproxy-install


def packed(folder: Path) -> tuple[Path, str]:
    """A bundle whose installer only leaves a file beside it."""
    folder.mkdir()
    script = folder / "install"
    script.write_text(f"#!/bin/sh\ntouch '{folder}/installed'\n")
    script.chmod(0o755)
    archive = folder / "bundle.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(script, "install")
    return archive, hashlib.sha256(archive.read_bytes()).hexdigest()


def fetched(*arguments: str | Path) -> CompletedProcess[str]:
    command = [str(DEPLOY / "egressproxy-install"), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True)


def test_a_bundle_with_its_hash_is_installed(tmp_path: Path) -> None:
    archive, sha256 = packed(tmp_path / "bundle")
    done = fetched(archive, sha256)
    assert done.returncode == 0, done.stderr
    assert (archive.parent / "installed").exists()


def test_a_bundle_with_another_hash_is_not_run(tmp_path: Path) -> None:
    archive, _ = packed(tmp_path / "bundle")
    assert fetched(archive, "0" * 64).returncode != 0
    assert not (archive.parent / "installed").exists()


@pytest.mark.parametrize("source", ["http://bundles.example/x", "bundle.tar.gz", "--help"])
def test_only_https_and_absolute_paths_are_sources(source: str) -> None:
    done = fetched(source, "0" * 64)
    assert done.returncode == 2
    assert "neither an https address nor an absolute path" in done.stderr
