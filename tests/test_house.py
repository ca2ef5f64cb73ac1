"""The house's own rules that no linter knows: what is committed, mirrored, locked and packed."""

from __future__ import annotations

import ast
import io
import json
import re
import shutil
import subprocess
import sys
import tomllib
from functools import cache
from pathlib import Path
from typing import Final

import pytest
from click.testing import CliRunner
from dockerfile_parse import DockerfileParser

from egressproxy.cli.main import cli
from egressproxy.cli.run import DEFAULT_ADMIN
from egressproxy.policy.load import load_policy

ROOT: Final = Path(__file__).parents[1]
PACKAGE: Final = ROOT / "egressproxy"
DOCKERFILE: Final = ROOT / "Dockerfile"


@cache
def tracked() -> tuple[Path, ...]:
    """What git tracks; in a copy without git, every text file that is not generated."""
    git = shutil.which("git")
    if git is not None and (ROOT / ".git").exists():
        done = subprocess.run([git, "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True)
        paths = [ROOT / name for name in done.stdout.decode().split("\0") if name]
    else:
        hidden = (".venv", ".git/", "cache", ".egg-info", "__pycache__")
        paths = [p for p in ROOT.rglob("*") if not any(word in f"{p}/" for word in hidden)]
    return tuple(path for path in paths if path.is_file())


def shown(path: Path) -> str:
    return str(path.relative_to(ROOT))


# Locks

_EXTRAS: Final = ("otlp", "postgres")
"""Of what the package itself can use; ``dev`` has them too."""


@pytest.mark.parametrize("name", ["run", "dev", "oracle", "bench"])
def test_locks_hold_names_versions_and_hashes_only(name: str) -> None:
    text = (ROOT / "locks" / f"{name}.lock").read_text()
    line_forms = re.compile(
        r"[a-z0-9][a-z0-9._-]*==[0-9][A-Za-z0-9.+!]*(?: ; [^\\]+)? \\"
        r"|    --hash=sha256:[0-9a-f]{64}(?: \\)?"
    )
    wrong = [line for line in text.splitlines() if not line_forms.fullmatch(line)]
    assert not wrong
    assert "://" not in text


def test_every_dependency_is_locked() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    run = {_name(each) for each in project["dependencies"]}
    extras = project["optional-dependencies"]
    run |= {_name(each) for extra in _EXTRAS for each in extras[extra]}
    dev = {_name(each) for each in extras["dev"]} - {"egressproxy"}
    assert run <= _locked("run")
    assert run | dev <= _locked("dev")


def _locked(name: str) -> set[str]:
    text = (ROOT / "locks" / f"{name}.lock").read_text()
    return set(re.findall(r"^([a-z0-9._-]+)==", text, re.MULTILINE))


def _name(requirement: str) -> str:
    return re.split(r"[^A-Za-z0-9._-]", requirement)[0].lower()


_IMPORTED_AS: Final = {
    "opentelemetry-exporter-otlp-proto-http": "opentelemetry",
    "opentelemetry-sdk": "opentelemetry",
    "prometheus-client": "prometheus_client",
    "pyyaml": "yaml",
}
_BY_URL: Final = frozenset({"psycopg"})
"""Loaded by SQLAlchemy where a URL asks for it."""


def test_dependencies_are_what_the_package_imports() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    declared = {_IMPORTED_AS.get(n, n) for n in map(_name, project["dependencies"])}
    imported = {
        name
        for path in PACKAGE.rglob("*.py")
        for name in _imports(path)
        if name not in sys.stdlib_module_names and name != "egressproxy"
    }
    optional = {
        _IMPORTED_AS.get(name, name)
        for extra in _EXTRAS
        for name in map(_name, project["optional-dependencies"][extra])
    }
    assert imported == declared | (optional - _BY_URL)


def _imports(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module.partition(".")[0])
    return names


# Tests mirror the package

_TESTED_IN: Final = {
    "admin/pages.py": "admin/test_server.py",
    "admin/registry.py": "admin/test_server.py",
    "admin/views.py": "admin/test_server.py",
    "catalog/integrity.py": "catalog/test_loader.py",
    "catalog/schema.py": "catalog/test_loader.py",
    "cli/catalog_page.py": "cli/test_catalog.py",
    "cli/classes.py": "cli/test_denies.py",
    "cli/explanation_page.py": "cli/test_check.py",
    "cli/filter_options.py": "cli/test_denies.py",
    "cli/listing.py": "cli/test_denies.py",
    "cli/listing_options.py": "cli/test_denies.py",
    "cli/nft_page.py": "cli/test_nft.py",
    "cli/policy_page.py": "cli/test_policy.py",
    "cli/replay_page.py": "cli/test_replay.py",
    "cli/review_page.py": "cli/test_denies.py",
    "cli/reload_page.py": "cli/test_reload.py",
    "cli/starter.py": "cli/test_init.py",
    "cli/suggest_page.py": "cli/test_suggest.py",
    "cli/tags_page.py": "cli/test_tags.py",
    "cli/unused_page.py": "cli/test_unused.py",
    "review/filters.py": "review/test_queries.py",
    "review/model.py": "review/test_report.py",
    "review/rows.py": "review/test_queries.py",
    "planes/context.py": "lab/test_relay.py",
    "planes/flow.py": "lab/test_relay.py",
    "planes/flows.py": "lab/test_relay.py",
    "planes/http_commands.py": "planes/test_http_session.py",
    "planes/http_exchanges.py": "planes/test_http_session.py",
    "planes/http_work.py": "planes/test_http_flow.py",
    "planes/ledger.py": "lab/test_relay.py",
    "planes/parts.py": "planes/test_engine.py",
    "policy/compile.py": "policy/test_ruleset.py",
    "policy/digest.py": "policy/test_diff.py",
    "policy/fields.py": "policy/test_document.py",
    "policy/files.py": "policy/test_load.py",
    "policy/include.py": "policy/test_load.py",
    "policy/near_miss.py": "policy/test_explain.py",
    "policy/near_name.py": "policy/test_explain.py",
    "policy/problems.py": "policy/test_document.py",
    "policy/program.py": "policy/test_ruleset.py",
    "policy/references.py": "policy/test_load.py",
    "policy/required.py": "policy/test_load.py",
    "policy/rules.py": "policy/test_decide.py",
    "policy/sources.py": "policy/test_load.py",
    "policy/targets.py": "policy/test_load.py",
    "policy/text.py": "policy/test_yaml_nodes.py",
    "policy/verdict.py": "policy/test_decide.py",
    "policy/written.py": "policy/test_load.py",
    "policy/yaml_scalars.py": "policy/test_document.py",
    "service/crew.py": "service/test_supervisor.py",
    "service/generation.py": "service/test_reloader.py",
    "service/orders.py": "service/test_supervisor.py",
    "service/recorder_messages.py": "service/test_recording.py",
    "service/report.py": "service/test_reloader.py",
    "service/serving.py": "service/test_supervisor.py",
    "service/slot.py": "service/test_supervisor.py",
    "service/worker.py": "service/test_supervisor.py",
}
"""Modules without a test file of their own, and the file that tests them; only shrinks."""


def _mirror(module: Path) -> Path:
    return ROOT / "tests" / module.relative_to(PACKAGE).parent / f"test_{module.name}"


MODULES: Final = [p for p in sorted(PACKAGE.rglob("*.py")) if not p.name.startswith("__")]


@pytest.mark.parametrize("module", MODULES, ids=shown)
def test_every_module_has_its_test_file(module: Path) -> None:
    name = str(module.relative_to(PACKAGE))
    if name in _TESTED_IN:
        assert not _mirror(module).exists(), "it has its own now: take it off the list"
        assert (ROOT / "tests" / _TESTED_IN[name]).exists()
    else:
        assert _mirror(module).exists()


def test_no_module_is_missed_that_is_gone() -> None:
    assert _TESTED_IN.keys() <= {str(module.relative_to(PACKAGE)) for module in MODULES}


# What may not be committed

# Written in pieces, so that this file does not have them.
_FORBIDDEN: Final = (
    r"\bfarm" + r"-[a-z]",
    "/wor" + "k/(?:main|shared|\\.)",
    r"/tmp/" + r"brief",
    r"\.lib" + "rary/",
    r"\bC" + r"EO\b",
    r"\bpy" + r"pi\.org\b",
    r"pythonho" + r"sted\.org",
    r"npm" + r"js\.(?:org|com)",
    r"\b(?:proxy|sum)\.gol" + r"ang\.org",
    r"\bcrat" + r"es\.io\b",
)
_FORBIDDEN_RE: Final = re.compile("|".join(_FORBIDDEN))


def test_nothing_tracked_names_a_workplace_or_a_package_host() -> None:
    found = []
    for path in tracked():
        try:
            text = path.read_text()
        except UnicodeDecodeError:
            continue
        for number, line in enumerate(text.splitlines(), start=1):
            if _FORBIDDEN_RE.search(line):
                found.append(f"{shown(path)}:{number}: {line.strip()[:100]}")
    assert not found


_BARE_IGNORE: Final = re.compile(
    r"#\s*(?:noqa: [A-Z0-9, ]+|type: ignore\[[a-z, -]+\])(?P<why>\s*(?:-|#)\s*\S.*)?$"
)


def test_every_ignore_in_the_package_has_its_reason_on_its_line() -> None:
    bare = []
    for path in PACKAGE.rglob("*.py"):
        for number, line in enumerate(path.read_text().splitlines(), start=1):
            found = _BARE_IGNORE.search(line)
            if found and not found["why"]:
                bare.append(f"{shown(path)}:{number}")
    assert not bare


def test_no_module_is_called_what_says_nothing_or_hides_the_standard_library() -> None:
    empty = {"utils", "util", "help" + "ers", "common", "manager", "misc"}
    roots = (PACKAGE, ROOT / "lab", ROOT / "bench")
    named = {path.stem for path in tracked() if path.suffix == ".py"}
    ours = {
        p.stem for p in tracked() if p.suffix == ".py" and any(p.is_relative_to(r) for r in roots)
    }
    assert not named & empty
    assert not ours & sys.stdlib_module_names - {"__main__"}


# Shell scripts


def _scripts() -> list[Path]:
    return [
        path
        for path in tracked()
        if path.suffix == ".sh" or path.read_bytes()[:20].startswith(b"#!")
    ]


SCRIPTS: Final = [path for path in _scripts() if b"sh" in path.read_bytes().splitlines()[0]]


@pytest.mark.parametrize("script", SCRIPTS, ids=shown)
def test_shell_scripts_parse(script: Path) -> None:
    bash = shutil.which("bash")
    assert bash is not None
    done = subprocess.run([bash, "-n", str(script)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    shellcheck = shutil.which("shellcheck")
    if shellcheck is not None:
        done = subprocess.run([shellcheck, str(script)], capture_output=True, text=True)
        assert done.returncode == 0, done.stdout


def test_scripts_are_executable_and_strict() -> None:
    for script in SCRIPTS:
        assert script.stat().st_mode & 0o111, shown(script)
        assert "set -euo pipefail" in script.read_text(), shown(script)


# The Dockerfile, which cannot be built here


@cache
def instructions() -> tuple[tuple[str, str], ...]:
    """Every instruction with its value, comments gone and continued lines joined."""
    structure = DockerfileParser(fileobj=io.BytesIO(DOCKERFILE.read_bytes())).structure
    return tuple(
        (each["instruction"], each["value"])
        for each in structure
        if each["instruction"] != "COMMENT"
    )


def values(instruction: str, stage: int | None = None) -> list[str]:
    """The values of an instruction, in one stage or in all."""
    found, number = [], -1
    for name, value in instructions():
        number += name == "FROM"
        if name == instruction and stage in (None, number):
            found.append(value)
    return found


def test_dockerfile_uses_known_instructions_only() -> None:
    known = {"FROM", "COPY", "RUN", "ENV", "USER", "EXPOSE", "STOPSIGNAL", "HEALTHCHECK"}
    assert {name for name, _ in instructions()} <= known | {"ENTRYPOINT", "CMD"}


def test_images_have_a_version_and_stages_agree_on_it() -> None:
    images = {value.split()[0] for value in values("FROM")}
    assert len(images) == 1
    assert re.fullmatch(r"python:3\.1[1-3]-slim", images.pop())


def test_the_site_packages_are_those_of_the_image() -> None:
    version = values("FROM")[0].split()[0].removeprefix("python:").removesuffix("-slim")
    assert f"/lib/python{version}/site-packages" in values("ENV")[0]


def test_the_service_runs_without_root() -> None:
    user = values("USER")[-1]
    made = " ".join(values("RUN", 1))
    assert user != "root"
    assert re.search(rf"useradd [^&]*\b{user}\b", made)
    assert instructions()[-1][0] == "CMD"
    names = [name for name, _ in instructions()]
    assert "RUN" not in names[names.index("USER") :]


def test_commands_are_exec_form_and_would_be_understood() -> None:
    entry, arguments = json.loads(values("ENTRYPOINT")[0]), json.loads(values("CMD")[0])
    assert entry[-2:] == ["-m", "egressproxy"]
    policy = Path(arguments[arguments.index("--policy") + 1])
    assert arguments[0] == "run"
    assert load_policy(ROOT / "policies" / policy.name).rules
    help_ = CliRunner().invoke(cli, ["run", "--help"]).output
    assert all(word in help_ for word in arguments if word.startswith("--"))


def test_health_is_asked_where_it_listens() -> None:
    _, _, command = values("HEALTHCHECK")[0].partition("CMD ")
    assert f"http://{DEFAULT_ADMIN}/healthz" in json.loads(command)[-1]
    compile(json.loads(command)[-1], "healthcheck", "exec")
    assert values("STOPSIGNAL") == ["SIGTERM"]


def test_copied_files_exist_and_are_sent_to_the_builder() -> None:
    sent = (ROOT / ".dockerignore").read_text().split()
    for value in values("COPY"):
        *sources, _ = [word for word in value.split() if not word.startswith("--")]
        if "--from=" in value:
            continue
        for source in sources:
            assert (ROOT / source).exists(), source
            assert f"!{source}" in sent, source


def test_packages_come_from_the_lock_and_apt_leaves_nothing() -> None:
    for run in values("RUN"):
        if "pip install" in run:
            assert "--require-hashes -r" in run or "--no-deps" in run
        if "apt-get install" in run:
            assert "--no-install-recommends" in run
            assert "rm -rf /var/lib/apt/lists/*" in run


def test_run_steps_are_shell() -> None:
    bash = shutil.which("bash")
    assert bash is not None
    for run in values("RUN"):
        done = subprocess.run([bash, "-n"], input=run, capture_output=True, text=True)
        assert done.returncode == 0, f"{run}: {done.stderr}"
