"""What was built works where there is nothing else: no source tree, no extras, each supported Python."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import urllib.request
from pathlib import Path

import pytest
from release.build import built
from release.environments import environment, install, interpreters

TIMEOUT_S = 120
HEAVY = ("boto3", "botocore", "aiobotocore", "chromadb", "redis", "psycopg", "onnxruntime", "numpy")

# Every module of the package that users may import, and a store in a folder that is really used.
IMPORT_ALL = """
import pkgutil, sys, importlib, anyio, everturn
for module in pkgutil.walk_packages(everturn.__path__, "everturn."):
    if not module.name.endswith("__main__") and module.name not in {leave_out}:
        importlib.import_module(module.name)
from everturn import *
async def use():
    async with TranscriptStore.open({url!r}, scope="task-1") as store:
        key = {{"project_key": "p", "session_id": "0b0f8a5e-6a0f-4f3a-9d58-2f1d5f1c7a11"}}
        await store.append(key, [{{"type": "user", "uuid": "1", "text": "hello"}}])
        assert [entry["uuid"] for entry in await store.load(key)] == ["1"]
anyio.run(use)
print(everturn.__file__)
print(*sorted(name for name in {heavy!r} if name in sys.modules))
"""
# Programs that are started by path, and tools for tests that need what the tests bring along.
PROGRAMS = {
    "everturn.testing.aws_server", "everturn.testing.express", "everturn.testing.directory_buckets",
    "everturn.testing.s3", "everturn.testing.serving",
}  # fmt: skip


@pytest.fixture(scope="module", params=list(interpreters()))
def python(request: pytest.FixtureRequest) -> Path:
    """The interpreter of a clean environment with the new wheel in it."""
    inside = environment(request.param, interpreters()[request.param])
    install(inside, built()[0])
    return inside


@pytest.fixture
def clean(tmp_path: Path, python: Path) -> dict[str, str]:
    """An environment with nobody's settings."""
    return {"PATH": f"{python.parent}:{os.environ['PATH']}", "HOME": str(tmp_path), "TMPDIR": str(tmp_path)}


def run(python: Path, *arguments: str, clean: dict[str, str], code: int = 0) -> str:
    command = [str(python.parent / arguments[0]), *arguments[1:]]
    done = subprocess.run(
        command, env=clean, cwd=clean["HOME"], capture_output=True, text=True, timeout=TIMEOUT_S, check=False
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout


def test_it_runs_from_where_it_is_installed_and_says_its_version(python: Path, clean: dict[str, str]) -> None:
    assert run(python, "everturn", "--version", clean=clean) == "everturn {}\n".format(built()[0].name.split("-")[1])


def test_no_module_needs_an_extra_or_imports_one(python: Path, clean: dict[str, str], tmp_path: Path) -> None:
    program = IMPORT_ALL.format(leave_out=PROGRAMS, url=(tmp_path / "store").as_uri(), heavy=HEAVY)
    place, heavy = run(python, "python", "-I", "-c", program, clean=clean).split("\n", 1)
    assert Path(place).is_relative_to(python.parents[1])
    assert heavy.strip() == ""


def test_the_doctor_finds_all_in_place(python: Path, clean: dict[str, str], tmp_path: Path) -> None:
    told = json.loads(
        run(python, "everturn", "doctor", "--json", "--store", (tmp_path / "store").as_uri(), clean=clean)
    )
    assert told["summary"]["failed"] == 0


def test_the_demo_kills_a_worker_and_loses_nothing(python: Path, clean: dict[str, str]) -> None:
    report = json.loads(run(python, "everturn", "demo", "--json", clean=clean).splitlines()[-1])
    assert (report["resumed"], report["finished"], report["entries_lost"]) == (True, True, 0)


def test_a_store_can_be_listed_and_verified(python: Path, clean: dict[str, str], tmp_path: Path) -> None:
    url = (tmp_path / "store").as_uri()
    run(python, "python", "-I", "-c", IMPORT_ALL.format(leave_out=PROGRAMS, url=url, heavy=HEAVY), clean=clean)
    assert "0b0f8a5e" in run(python, "everturn", "sessions", "list", "--store", url, "--json", clean=clean)
    run(python, "everturn", "sessions", "verify", "--store", url, clean=clean)


def test_the_service_starts_shows_its_pages_and_stops(python: Path, clean: dict[str, str], tmp_path: Path) -> None:
    environment = {**clean, "EVERTURN_STORE": (tmp_path / "store").as_uri()}
    command = [str(python.parent / "everturn"), "serve", "--port", "0", "--json"]
    with subprocess.Popen(command, env=environment, cwd=tmp_path, stdout=subprocess.PIPE, text=True) as service:
        try:
            assert service.stdout
            address = json.loads(service.stdout.readline())["address"]
            opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
            for page in ("/", "/metrics", "/healthz"):
                with opener.open(address + page, timeout=TIMEOUT_S) as answer:
                    assert answer.status == 200
        finally:
            service.send_signal(signal.SIGTERM)
            assert service.wait(TIMEOUT_S) == 0


def test_the_sdist_installs_and_runs_too(tmp_path: Path) -> None:
    version, base = next(iter(interpreters().items()))
    inside = environment(version, base)
    try:
        install(inside, built()[1])
        clean = {"PATH": os.environ["PATH"], "HOME": str(tmp_path)}
        assert run(inside, "everturn", "--version", clean=clean).startswith("everturn ")
    finally:
        install(inside, built()[0])


def test_the_types_are_there_for_those_who_check_them(python: Path, clean: dict[str, str]) -> None:
    tell = "import everturn, pathlib; print((pathlib.Path(everturn.__file__).parent / 'py.typed').exists())"
    assert run(python, "python", "-I", "-c", tell, clean=clean) == "True\n"
