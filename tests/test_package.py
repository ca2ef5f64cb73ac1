"""The wheel as a user gets it: built, installed apart from the checkout, and asked."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path
from typing import Final

import pytest

from egressproxy.catalog import load_catalog

pytestmark = pytest.mark.slow

ROOT: Final = Path(__file__).parents[1]
_COPIED: Final = ("egressproxy", "pyproject.toml", "setup.py", "README.md", "LICENSE")
_PIP: Final = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet")
_OFFLINE: Final = ("--no-index", "--no-deps")


def run(*command: str, cwd: Path, **environment: str) -> str:
    done = subprocess.run(
        command, cwd=cwd, env={**os.environ, **environment}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel of this checkout, built without network in a copy, so that nothing is left here.

    Interpreted; the compiled one is ``tests/planes/test_build.py``'s.
    """
    source = tmp_path_factory.mktemp("source")
    for name in _COPIED:
        if (ROOT / name).is_dir():
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(ROOT / name, source / name, ignore=ignored)
        else:
            shutil.copy(ROOT / name, source)
    out = tmp_path_factory.mktemp("wheel")
    build = (*_PIP, "wheel", "--no-build-isolation", *_OFFLINE, "--wheel-dir", str(out), ".")
    run(*build, cwd=source, EGRESSPROXY_NATIVE="0")
    (built,) = out.glob("egressproxy-*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("installed")
    run(*_PIP, "install", *_OFFLINE, "--target", str(target), str(wheel), cwd=target)
    return target


@pytest.fixture(scope="module")
def policies(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shipped policies, away from the checkout."""
    return Path(shutil.copytree(ROOT / "policies", tmp_path_factory.mktemp("etc") / "policies"))


def ask(installed: Path, cwd: Path, *arguments: str) -> str:
    """``python -m egressproxy`` of the installed wheel; the checkout is not on its path."""
    return run(sys.executable, "-m", "egressproxy", *arguments, cwd=cwd, PYTHONPATH=str(installed))


def test_wheel_has_the_package_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    tops = {name.partition("/")[0] for name in names}
    assert {top.partition("-")[0] for top in tops} == {"egressproxy"}
    for data in ("*.py", "*.yaml", "py.typed", "templates/*", "static/*"):
        for path in (ROOT / "egressproxy").rglob(data):
            assert str(path.relative_to(ROOT)) in names


def test_it_is_the_installed_package_that_answers(installed: Path, policies: Path) -> None:
    where = run(
        *(sys.executable, "-c", "import egressproxy; print(egressproxy.__file__)"),
        cwd=policies,
        PYTHONPATH=str(installed),
    )
    assert Path(where.strip()).is_relative_to(installed)


def test_version(installed: Path, policies: Path) -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    told = ask(installed, policies, "--version")
    assert told == f"egressproxy {version} (flow path interpreted)\n"


def test_catalog_is_packaged(installed: Path, policies: Path) -> None:
    shown = ask(installed, policies, "catalog", "list")
    assert all(requirement.id in shown for requirement in load_catalog().requirements)


def test_policy_and_check(installed: Path, policies: Path) -> None:
    assert "good" in ask(installed, policies, "policy", "validate", "aks-global.yaml")
    shown = ask(installed, policies, "check", "mcr.microsoft.com", "--policy", "aks-global.yaml")
    assert shown.startswith("allow  mcr.microsoft.com")


def test_console_script_is_there(installed: Path) -> None:
    text = (installed / "bin" / "egressproxy").read_text()
    assert "egressproxy.cli.main" in text


def test_service_starts_its_workers_and_ends(installed: Path, policies: Path) -> None:
    options = ("--policy", "lab.yaml", "--explicit", "127.0.0.1:0", "--admin", "none")
    with subprocess.Popen(
        [sys.executable, "-m", "egressproxy", "run", *options, "--workers", "2"],
        cwd=policies,
        env={**os.environ, "PYTHONPATH": str(installed)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as service:
        assert service.stderr is not None
        said = []
        for line in service.stderr:
            said.append(line)
            if '"event": "ready"' in line:
                service.terminate()
    assert service.returncode == 0, "".join(said)
    assert any('"event": "ready"' in line for line in said)
