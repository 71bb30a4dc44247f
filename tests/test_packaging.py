"""What leaves this folder: the wheel, and the image with its compose files."""

from __future__ import annotations

import configparser
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
import venv
import zipfile
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
from gemproxy.shutdown import LAST_WORDS
from tests.support import ROOT

pytestmark = pytest.mark.slow

SOURCES = ("LICENSE", "README.md", "gemproxy", "pyproject.toml", "setup.cfg", "twisted")
DEFAULTS = {setting.env: setting.default for setting in SETTINGS}

# What can be given: a secret may be a file.
NAMES = DEFAULTS.keys() | {secret.file_env for secret in SECRETS}

# What the image says of itself, and nobody need change.
OF_THE_IMAGE = {"HOST", "PORT", "STREAM_PORT", "GEMINI_CLI", "DATA_DIR", "LOG_DIR"}
# Seconds that Docker waits for a container to stop, if nothing else is said.
DOCKER_STOP = 10


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


def test_the_wheel_holds_every_module_the_mark_of_types_and_the_console(wheel: Path):
    package = ROOT / "gemproxy"
    ours = [*package.glob("**/*.py"), package / "py.typed", package / "example.toml"]
    ours += ROOT.glob("gemproxy/console/*")
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


def test_the_command_tells_its_version(twistd: list[str | Path], tmp_path: Path):
    assert run(*twistd, "gemproxy", "--version", cwd=tmp_path) == f"gemproxy {__version__}\n"


def test_twistd_has_the_command_which_tells_its_options(twistd: list[str | Path], tmp_path: Path):
    printed = run(*twistd, "gemproxy", "--help", cwd=tmp_path)
    assert {f"--{setting.option}" for setting in SETTINGS} <= set(
        re.findall(r"--[a-z][a-z-]*", printed)
    )


def test_the_installed_package_is_the_one_that_runs(twistd: list[str | Path], tmp_path: Path):
    where = run(twistd[0], "-c", "import gemproxy; print(gemproxy.__file__)", cwd=tmp_path)
    assert Path(where.strip()).is_relative_to(Path(twistd[0]).parent.parent)


# --- What is installed with it.

LOCKS = ("requirements.txt", "requirements-test.txt", "requirements-lowest.txt")


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
    extras = ("build",) if name == "requirements.txt" else ("build", "test")
    for wanted in required(*extras):
        assert wanted.specifier.contains(pins[canonicalize_name(wanted.name)]), wanted


def test_the_tests_run_with_what_is_run():
    assert locked("requirements.txt").items() <= locked("requirements-test.txt").items()


def test_the_lowest_versions_are_those_of_the_ranges():
    pins = locked("requirements-lowest.txt")
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
    ours = image_environment().keys() - {"PATH", "PYTHONUNBUFFERED", "PIP_PYTHON"}
    assert ours == OF_THE_IMAGE - {"PORT", "STREAM_PORT"} | {"DRAIN", "GEMINI_ENGINE"}
    assert image_environment()["HOST"] == "0.0.0.0"


def test_the_image_has_the_cli_where_it_says():
    cli = Path(image_environment()["GEMINI_CLI"])
    folder = cli.parent.parent.parent
    assert cli.relative_to(folder) == Path("node_modules/.bin/gemini")
    assert f"--from=cli {folder} {folder}" in said("COPY")
    # The last of them is the one of the image that has the CLI.
    assert image_environment()["GEMINI_ENGINE"] == DEFAULTS["GEMINI_ENGINE"]
    manifest = json.loads((ROOT / "package.json").read_text())
    assert manifest["dependencies"] == {"@google/gemini-cli": PINNED_VERSION}


def test_the_base_images_are_pinned_and_new_enough():
    [required] = re.findall(r"python_requires = >=3\.(\d+)", (ROOT / "setup.cfg").read_text())
    oldest = {"node": (NODE_MAJOR,), "python": (3, int(required))}
    stages = {line.split(" AS ")[1] for line in said("FROM") if " AS " in line}
    digests: dict[str, set[str]] = {}
    for line in said("FROM"):
        image = line.removeprefix("--platform=$BUILDPLATFORM ").split()[0]
        if image in stages:
            continue
        name, version, digest = re.fullmatch(
            r"docker\.io/library/(\w+):([0-9.]+)-slim@(sha256:[0-9a-f]{64})", image
        ).groups()
        assert tuple(map(int, version.split("."))) >= oldest[name]
        digests.setdefault(name, set()).add(digest)
    assert {name: len(pins) for name, pins in digests.items()} == {"node": 1, "python": 1}


def test_the_image_runs_the_daemon_under_an_init_as_a_user_of_its_own():
    [entry] = said("ENTRYPOINT")
    init, daemon = json.loads(entry)[:-5], json.loads(entry)[-5:]
    assert daemon == ["--", "twistd", "-n", "--pidfile=", "gemproxy"]
    # Reaps orphans wherever it runs, and takes SIGTERM and SIGINT for success.
    assert init == ["tini", "-s", "-e", "143", "-e", "130"]
    assert said("CMD") == []
    [user] = said("USER")
    assert f"--uid {user} " in " ".join(said("RUN"))


def test_the_image_needs_no_home():
    assert said("WORKDIR")[-1] == "/"
    assert "--no-create-home" in " ".join(said("RUN"))


def test_the_image_s_health_check_knows_the_options_of_the_daemon():
    [check] = said("HEALTHCHECK")
    words = json.loads(check.partition("CMD ")[2])
    assert words == ["gemproxy", "health", "--process", "1"]
    for service in our_services():
        assert service["healthcheck"]["test"] == ["CMD", *words]


def test_answers_end_before_docker_kills_the_container():
    drain = float(image_environment()["DRAIN"])
    assert drain + LAST_WORDS < DOCKER_STOP


def test_a_release_is_labelled_and_says_what_is_in_it():
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "release.yml").read_text())
    [build] = [
        step["with"]
        for step in workflow["jobs"]["image"]["steps"]
        if step.get("uses", "").startswith("docker/build-push-action@")
    ]
    assert build["platforms"] == "linux/amd64,linux/arm64"
    assert (build["sbom"], build["provenance"]) == (True, "mode=max")
    given = {line.partition("=")[0] for line in build["build-args"].splitlines()}
    assert given == {name.removesuffix("=") for line in said("ARG") for name in line.split()}
    [labels] = said("LABEL")
    for name in given:
        assert f"org.opencontainers.image.{name.lower()}=${name}" in labels


def test_the_newest_cli_is_tried_only_where_that_is_wanted():
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "newest-cli.yml").read_text())
    [job] = workflow["jobs"].values()
    assert job["if"] == "github.event_name == 'workflow_dispatch' || vars.TRY_NEWEST_CLI == 'true'"
    steps = [step.get("run", "") for step in job["steps"]]
    assert 'npm install -g "@google/gemini-cli@${VERSION:-latest}"' in steps
    assert steps[-1] == ".venv/bin/gemproxy doctor --cli"


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


# --- Compose.

COMPOSE = ("docker-compose.yml", "docker-compose.two.yml", "docker-compose.new-api.yml")


def services(name: str) -> dict[str, Any]:
    found = yaml.safe_load((ROOT / name).read_text())["services"]
    assert isinstance(found, dict)
    return found


def our_services() -> list[dict[str, Any]]:
    """Those that run this image, of all files."""
    return [
        service
        for name in COMPOSE
        for service in services(name).values()
        if service["image"] == "gemproxy"
    ]


def published(service: dict[str, Any]) -> list[str]:
    """The ports that a service publishes, each with the variable that chooses another."""
    prefix = "${PUBLISH_ON:-127.0.0.1}:"
    assert all(port.startswith(prefix) for port in service["ports"])
    return [port.removeprefix(prefix) for port in service["ports"]]


def given(service: dict[str, Any]) -> set[str]:
    """The settings of a service, some of them as options."""
    options = re.findall(r"--([a-z-]+)=", " ".join(service["command"]))
    return {option.upper().replace("-", "_") for option in options} | service["environment"].keys()


def chosen(name: str) -> str:
    return f"${{{name}:-{DEFAULTS[name]}}}:{DEFAULTS[name]}"


def test_the_compose_files_are_all_checked():
    assert {path.name for path in ROOT.glob("docker-compose*.yml")} == set(COMPOSE)


def test_the_default_is_one_service_with_both_ports():
    [service] = services("docker-compose.yml").values()
    assert published(service) == [chosen("PORT"), chosen("STREAM_PORT")]


def test_the_one_service_can_be_given_every_setting():
    [service] = services("docker-compose.yml").values()
    # With another daemon's port there would be two engines.
    assert given(service) == (NAMES - OF_THE_IMAGE - {"GEMINI_PROXY_URL"})


def test_the_two_services_have_a_port_each():
    two = services("docker-compose.two.yml")
    assert two.keys() == {"gemini-proxy", "stream-proxy"}
    gemini, stream = two["gemini-proxy"], two["stream-proxy"]
    assert gemini["environment"]["STREAM_PORT"] == stream["environment"]["PORT"] == "off"
    assert published(gemini) == [chosen("PORT")]
    assert published(stream) == [chosen("STREAM_PORT")]
    address = f"http://gemini-proxy:{DEFAULTS['PORT']}"
    assert stream["environment"]["GEMINI_PROXY_URL"] == address


def test_the_two_services_can_be_given_every_setting_between_them():
    two = services("docker-compose.two.yml")
    names = given(two["gemini-proxy"]) | given(two["stream-proxy"])
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
    assert published(three["stream-proxy"]) == [chosen("STREAM_PORT")]
    assert new_api["volumes"] == ["new-api-data:/data"]
    for service in three.values():
        assert given(service) <= NAMES
    assert "FIXED_API_KEY" not in three["gemini-proxy"]["environment"]


def test_every_service_has_time_to_end():
    for service in our_services():
        assert f"--drain=${{DRAIN:-{DEFAULTS['DRAIN']}}}" in service["command"]
        grace = int(service["stop_grace_period"].removesuffix("s"))
        assert grace >= float(DEFAULTS["DRAIN"]) + 3 * LAST_WORDS


def test_no_variable_is_set_from_one_of_its_name():
    """podman-compose 1.3 would hand on the text of the file instead."""
    for service in our_services():
        for name, value in service["environment"].items():
            assert f"${{{name}" not in (value or "")


def test_no_service_has_more_than_it_needs():
    for service in our_services():
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert service["read_only"] is True
        assert service["tmpfs"] == ["/tmp"]  # noqa: S108 - not opened
        assert service["mem_limit"].startswith("${")
        assert service["logging"]["options"].keys() == {"max-size", "max-file"}
        assert "privileged" not in service
    for name in COMPOSE:
        assert "docker.sock" not in (ROOT / name).read_text()


def test_no_other_image_of_the_name_is_pulled():
    for service in our_services():
        assert (service["build"], service["pull_policy"]) == (".", "build")


def test_every_service_reaches_the_machine_itself():
    for service in our_services():
        assert service["extra_hosts"] == ["host.docker.internal:host-gateway"]


def test_a_missing_key_is_said_before_anything_starts():
    """A daemon that refuses to start would be restarted for ever."""
    for service in our_services():
        has_key = "GEMINI_API_KEY" in service["environment"]
        # It may be empty where a file has it.
        assert service.get("x-required", "").startswith("${GEMINI_API_KEY?") is has_key
