"""What leaves this folder: the wheel, and the image with its compose files."""

from __future__ import annotations

import configparser
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import tomllib
import venv
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from gemproxy import __version__
from gemproxy.config import SECRETS, SETTINGS
from gemproxy.gemini.cli.install import NODE_MAJOR, PINNED_VERSION
from testing.processes import free_port
from tests.support import ROOT

SOURCES = ("LICENSE", "README.md", "gemproxy", "pyproject.toml", "setup.cfg", "twisted")
DEFAULTS = {setting.env: setting.default for setting in SETTINGS}

# What can be given: a secret may be a file.
NAMES = DEFAULTS.keys() | {secret.file_env for secret in SECRETS}

# What the image says of itself, and nobody need change.
OF_THE_IMAGE = {"HOST", "PORT", "STREAM_PORT", "GEMINI_CLI", "LOG_DIR"}


def run(*command: str | Path, cwd: Path = ROOT, **environ: str) -> str:
    """What a command prints; it has to succeed."""
    result = subprocess.run(
        command,
        cwd=cwd,
        env={"PATH": os.environ["PATH"]} | environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=120,
    )
    assert result.returncode == 0, result.stdout
    return result.stdout


# --- The wheel.


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    source = tmp_path_factory.mktemp("source")
    for name in SOURCES:
        if (ROOT / name).is_dir():
            ignored = shutil.ignore_patterns("__pycache__", "dropin.cache")
            shutil.copytree(ROOT / name, source / name, ignore=ignored)
        else:
            shutil.copy(ROOT / name, source)
    out = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", out, cwd=source)
    [built] = out.iterdir()
    return built


def names_in(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def test_the_wheel_holds_every_module_and_the_mark_of_types(wheel: Path):
    ours = [*ROOT.glob("gemproxy/**/*.py"), ROOT / "gemproxy" / "py.typed"]
    assert {str(path.relative_to(ROOT)) for path in ours} <= names_in(wheel)


def test_of_twisted_the_wheel_holds_the_plugin_alone(wheel: Path):
    """A package of that name would take the place of Twisted."""
    assert {name for name in names_in(wheel) if name.startswith("twisted")} == {
        "twisted/plugins/gemproxy_plugin.py"
    }


def test_the_wheel_holds_nothing_else(wheel: Path):
    tops = {name.partition("/")[0] for name in names_in(wheel)}
    assert tops == {"gemproxy", "twisted", f"gemproxy-{__version__}.dist-info"}


@pytest.fixture(scope="module")
def twistd(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str | Path]:
    """The command where the wheel is installed, with the other packages of these tests."""
    home = tmp_path_factory.mktemp("venv")
    venv.create(home, symlinks=True)
    python = home / "bin" / "python"
    run(
        *(sys.executable, "-m", "pip", "--python", python, "--quiet"),
        *("install", "--no-deps", "--no-index", wheel),
    )
    printed = run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))")
    packages = Path(pytest.__file__).parent.parent
    (Path(printed.strip()) / "others.pth").write_text(f"{packages}\n")
    return [python, "-c", "from twisted.scripts.twistd import run; run()"]


def test_twistd_has_the_command_after_an_installation(twistd: list[str | Path], tmp_path: Path):
    assert re.search(r"(?m)^ +gemproxy +\S", run(*twistd, "--help", cwd=tmp_path))


def test_the_command_tells_its_version(twistd: list[str | Path], tmp_path: Path):
    assert run(*twistd, "gemproxy", "--version", cwd=tmp_path) == f"gemproxy {__version__}\n"


def test_the_command_tells_its_options(twistd: list[str | Path], tmp_path: Path):
    printed = run(*twistd, "gemproxy", "--help", cwd=tmp_path)
    assert {f"--{setting.option}" for setting in SETTINGS} <= set(
        re.findall(r"--[a-z][a-z-]*", printed)
    )


def test_the_installed_package_is_the_one_that_runs(twistd: list[str | Path], tmp_path: Path):
    where = run(twistd[0], "-c", "import gemproxy; print(gemproxy.__file__)", cwd=tmp_path)
    assert Path(where.strip()).is_relative_to(Path(twistd[0]).parent.parent)


# --- What is installed with it.

LOCKS = ("requirements.lock", "requirements-test.lock", "requirements-lowest.lock")


def required(*extras: str) -> list[Requirement]:
    """What setup.cfg asks for."""
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    listed = [setup["options"]["install_requires"]]
    listed += [setup["options.extras_require"][extra] for extra in extras]
    return [Requirement(line) for text in listed for line in text.split("\n") if line]


def locked(name: str) -> dict[str, str]:
    """The versions of a lock file."""
    return dict(re.findall(r"(?m)^([a-z0-9-]+)==([^ ]+)", (ROOT / name).read_text()))


@pytest.mark.parametrize("name", LOCKS)
def test_a_lock_file_pins_with_hashes_and_nothing_else(name: str):
    """One that named where packages are would send everybody there."""
    text = (ROOT / name).read_text()
    lines = re.sub(r" *\\\n *", " ", re.sub(r"(?m)^ *#.*\n", "", text)).splitlines()
    pin = r"[a-z0-9-]+==[0-9][^ ]*( ; [^\\]+?)?( --hash=sha256:[0-9a-f]{64})+"
    assert [line for line in lines if not re.fullmatch(pin, line)] == []
    assert "://" not in text


@pytest.mark.parametrize("name", LOCKS)
def test_a_lock_file_holds_each_requirement(name: str):
    pins = locked(name)
    extras = ("build",) if name == "requirements.lock" else ("build", "test")
    for wanted in required(*extras):
        assert wanted.specifier.contains(pins[canonicalize_name(wanted.name)]), wanted


def test_the_tests_run_with_what_is_run():
    assert locked("requirements.lock").items() <= locked("requirements-test.lock").items()


def test_the_lowest_versions_are_those_of_the_ranges():
    pins = locked("requirements-lowest.lock")
    for wanted in required():
        [floor] = [part.version for part in wanted.specifier if part.operator == ">="]
        assert Version(pins[canonicalize_name(wanted.name)]) == Version(floor), wanted


def test_what_builds_it_is_said_alike():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    setup = {str(wanted) for wanted in required("build")} - {str(w) for w in required()}
    assert set(project["build-system"]["requires"]) == setup


# --- The image.


def instructions() -> list[tuple[str, str]]:
    """The instructions of the Dockerfile, each on one line, and what they say."""
    text = re.sub(r"(?m)^#.*\n", "", (ROOT / "Dockerfile").read_text())
    lines = re.sub(r"\\\n\s*", "", text).splitlines()
    return [(line.split()[0], line.split(maxsplit=1)[1]) for line in lines if line.strip()]


def said(instruction: str) -> list[str]:
    return [rest for name, rest in instructions() if name == instruction]


def image_environment() -> dict[str, str]:
    pairs = [pair for line in said("ENV") for pair in line.split()]
    return dict(pair.split("=", 1) for pair in pairs)


def test_the_image_exposes_the_ports_of_the_settings():
    assert said("EXPOSE") == [f"{DEFAULTS['PORT']} {DEFAULTS['STREAM_PORT']}"]


def test_the_image_s_environment_is_made_of_settings():
    ours = image_environment().keys() - {"PATH", "PYTHONUNBUFFERED"}
    assert ours == OF_THE_IMAGE - {"PORT", "STREAM_PORT"}
    assert image_environment()["HOST"] == "0.0.0.0"


def test_the_image_has_the_cli_where_it_says():
    cli = Path(image_environment()["GEMINI_CLI"])
    folder = cli.parent.parent.parent
    assert cli.relative_to(folder) == Path("node_modules/.bin/gemini")
    assert f"--from=cli {folder} {folder}" in said("COPY")
    manifest = json.loads((ROOT / "package.json").read_text())
    assert manifest["dependencies"] == {"@google/gemini-cli": PINNED_VERSION}


def test_the_image_s_node_is_new_enough():
    [version] = re.findall(r"node:(\d+)-slim AS cli", " ".join(said("FROM")))
    assert int(version) >= NODE_MAJOR


def test_the_image_s_python_is_new_enough():
    [required] = re.findall(r"python_requires = >=3\.(\d+)", (ROOT / "setup.cfg").read_text())
    versions = re.findall(r"python:3\.(\d+)-slim", " ".join(said("FROM")))
    assert len(versions) == 2
    assert all(int(version) >= int(required) for version in versions)


def test_the_image_runs_the_daemon_under_an_init_as_a_user_of_its_own():
    [entry] = said("ENTRYPOINT")
    assert json.loads(entry) == ["tini", "--", "twistd", "-n", "--pidfile=", "gemproxy"]
    assert said("CMD") == []
    [user] = said("USER")
    assert f"--uid {user} " in " ".join(said("RUN"))


def test_the_journal_lies_in_the_volume():
    assert said("VOLUME") == ["/data"]
    assert Path(image_environment()["LOG_DIR"]).is_relative_to("/data")


def test_what_is_copied_is_not_ignored():
    allowed = re.findall(r"(?m)^!(.+)$", (ROOT / ".dockerignore").read_text())
    copied = {
        source.partition("/")[0]
        for line in said("COPY")
        if not line.startswith("--from")
        for source in line.split()[:-1]
    }
    assert copied == set(allowed)
    assert all((ROOT / name).exists() for name in allowed)


# --- Its health check.


def check_health(**environ: str) -> int:
    """The exit status of the image's health check."""
    [check] = said("HEALTHCHECK")
    _, script = json.loads(check.partition("CMD ")[2])
    [copied] = [line for line in said("COPY") if line.endswith(f" {script}")]
    return subprocess.run(
        [sys.executable, ROOT / copied.split()[0]], env=environ, capture_output=True, timeout=30
    ).returncode


class _Health(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(self.server.status if self.path == "/health" else 404)
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        """Nothing."""


@pytest.fixture
def server() -> Iterator[HTTPServer]:
    """A server whose C{/health} answers with the status that it has."""
    with HTTPServer(("127.0.0.1", 0), _Health) as server:
        server.status = 200
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


@pytest.mark.parametrize("environ", [{"PORT": "{}"}, {"PORT": "off", "STREAM_PORT": "{}"}])
def test_the_health_check_asks_the_port_that_is_served(server: HTTPServer, environ: dict[str, str]):
    environ = {name: value.format(server.server_port) for name, value in environ.items()}
    assert check_health(**environ) == 0
    server.status = 503
    assert check_health(**environ) == 1


def test_a_port_without_a_server_is_not_healthy():
    assert check_health(PORT=str(free_port())) == 1


def test_the_health_check_knows_the_default_ports():
    script = (ROOT / "docker" / "healthcheck.py").read_text()
    assert re.findall(r'get\("(\w+)"\) or "(\d+)"', script) == [
        ("PORT", DEFAULTS["PORT"]),
        ("STREAM_PORT", DEFAULTS["STREAM_PORT"]),
    ]


# --- Compose.


def services(name: str) -> dict[str, Any]:
    found = yaml.safe_load((ROOT / name).read_text())["services"]
    assert isinstance(found, dict)
    return found


def published(service: dict[str, Any]) -> list[str]:
    """The ports that a service publishes, which are those of the settings."""
    return [port.rpartition("}:")[2] for port in service["ports"]]


def test_the_default_is_one_service_with_both_ports():
    [service] = services("docker-compose.yml").values()
    assert published(service) == [
        f"{DEFAULTS[name]}:{DEFAULTS[name]}" for name in ("PORT", "STREAM_PORT")
    ]


def test_the_one_service_can_be_given_every_setting():
    [service] = services("docker-compose.yml").values()
    # With another daemon's port there would be two engines.
    assert service["environment"].keys() == (NAMES - OF_THE_IMAGE - {"GEMINI_PROXY_URL"})


def test_the_two_services_have_a_port_each():
    two = services("docker-compose.two.yml")
    assert two.keys() == {"gemini-proxy", "stream-proxy"}
    gemini, stream = two["gemini-proxy"], two["stream-proxy"]
    assert gemini["environment"]["STREAM_PORT"] == stream["environment"]["PORT"] == "off"
    assert published(gemini) == [f"{DEFAULTS['PORT']}:{DEFAULTS['PORT']}"]
    assert published(stream) == [f"{DEFAULTS['STREAM_PORT']}:{DEFAULTS['STREAM_PORT']}"]
    address = f"http://gemini-proxy:{DEFAULTS['PORT']}"
    assert stream["environment"]["GEMINI_PROXY_URL"] == address


def test_the_two_services_can_be_given_every_setting_between_them():
    two = services("docker-compose.two.yml")
    names = two["gemini-proxy"]["environment"].keys() | two["stream-proxy"]["environment"].keys()
    assert names - {"PORT", "STREAM_PORT"} == NAMES - OF_THE_IMAGE


def test_each_key_is_where_it_is_used_alone():
    two = services("docker-compose.two.yml")
    assert not any("FIXED_API_KEY" in name for name in two["gemini-proxy"]["environment"])
    assert not any("GEMINI_API_KEY" in name for name in two["stream-proxy"]["environment"])


def test_new_api_is_between_the_two_ports():
    three = services("docker-compose.new-api.yml")
    assert three.keys() == {"gemini-proxy", "new-api", "stream-proxy"}
    stream, new_api = three["stream-proxy"]["environment"], three.pop("new-api")
    assert stream["UPSTREAM_URL"] == "http://new-api:3000"
    assert stream["GEMINI_PROXY_URL"] == f"http://gemini-proxy:{DEFAULTS['PORT']}"
    assert published(three["stream-proxy"]) == [
        f"{DEFAULTS['STREAM_PORT']}:{DEFAULTS['STREAM_PORT']}"
    ]
    assert new_api["volumes"] == ["new-api-data:/data"]
    for service in three.values():
        given = service["environment"].keys()
        assert given <= NAMES
        assert service["cap_drop"] == ["ALL"]
    assert "FIXED_API_KEY" not in three["gemini-proxy"]["environment"]


@pytest.mark.parametrize("name", ["docker-compose.yml", "docker-compose.two.yml"])
def test_every_service_has_time_to_end_and_no_power_over_docker(name: str):
    for service in services(name).values():
        assert int(service["stop_grace_period"].removesuffix("s")) > float(DEFAULTS["DRAIN"])
        assert service["cap_drop"] == ["ALL"]
        assert "privileged" not in service
    assert "docker.sock" not in (ROOT / name).read_text()
