"""The Helm chart: what it makes of its values is what Kubernetes takes, and what gemproxy needs."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from gemproxy import __version__
from gemproxy.config import SETTINGS
from gemproxy.shutdown import LAST_WORDS
from tests.support import ROOT

CHART = ROOT / "deploy/kubernetes/gemproxy"
FULL = (
    "secret.GEMINI_API_KEY=g,secret.FIXED_API_KEY=f,secret.PROXY_API_KEYS=p,secret.ADMIN_KEY=a",
    "stream.autoscaling.enabled=true,gemini.autoscaling.enabled=true",
    "serviceMonitor.enabled=true,serviceMonitor.labels.release=x",
    "secret.STATE_URL=redis://:s@valkey,networkPolicy.egressPorts={443,6379}",
    "settings.LOG_KEEP=5,stream.settings.UPSTREAM_URL=http://new-api:3000",
)
VALUES: dict[str, tuple[str, ...]] = {
    "default": (),
    "full": FULL,
    "own secret": ("secret.existing=mine,secret.has={GEMINI_API_KEY}",),
    "without Gemini": (
        "gemini.enabled=false,secret.FIXED_API_KEY=f,stream.settings.UPSTREAM_URL=http://new-api:3000",
    ),
    "with Valkey": ("valkey.enabled=true",),
    "without extras": ("podDisruptionBudget.enabled=false,networkPolicy.enabled=false",),
}
pytestmark = [
    pytest.mark.chart,
    pytest.mark.skipif(shutil.which("helm") is None, reason="Helm is not installed"),
]


def run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def rendered(*values: str) -> dict[tuple[str, str], Any]:
    """The resources by kind and name."""
    given = [word for value in values for word in ("--set", value)]
    text = run("helm", "template", "my", str(CHART), *given)
    found = [each for each in yaml.safe_load_all(text) if each]
    named = {(each["kind"], each["metadata"]["name"]): each for each in found}
    assert len(named) == len(found)
    return named


def pod(resources: dict[tuple[str, str], Any], part: str) -> Any:
    return resources["Deployment", f"my-{part}"]["spec"]["template"]["spec"]


def environ(resources: dict[tuple[str, str], Any], part: str) -> dict[str, str]:
    (container,) = pod(resources, part)["containers"]
    names = [each["name"] for each in container["env"]]
    assert len(names) == len(set(names))
    return {each["name"]: each["value"] for each in container["env"]}


def test_helm_finds_nothing_wrong() -> None:
    run("helm", "lint", "--strict", str(CHART))
    about = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert about["appVersion"] == __version__


def test_kubernetes_takes_what_it_makes(tmp_path: Path) -> None:
    files = []
    for name, values in VALUES.items():
        # That is the Prometheus operator's, whose schema is not among Kubernetes' own.
        native = [each for (kind, _), each in rendered(*values).items() if kind != "ServiceMonitor"]
        files.append(str(tmp_path / f"{name}.yaml"))
        Path(files[-1]).write_text(yaml.safe_dump_all(native))
    for version in ("1.25", "1.37"):
        run("kubernetes-validate", "--strict", "--quiet", "-k", version, *files)


@pytest.mark.parametrize("values", VALUES.values(), ids=VALUES)
def test_every_pod_is_confined_and_has_time_to_end(values: tuple[str, ...]) -> None:
    resources = rendered(*values)
    parts = [name.removeprefix("my-") for kind, name in resources if kind == "Deployment"]
    assert "stream" in parts
    for part in parts:
        spec = pod(resources, part)
        (container,) = spec["containers"]
        context = container["securityContext"]
        assert context["readOnlyRootFilesystem"]
        assert context["capabilities"] == {"drop": ["ALL"]}
        assert not spec["automountServiceAccountToken"]
    known = {setting.env for setting in SETTINGS} | {
        setting.file_env for setting in SETTINGS if setting.secret
    }
    for part in set(parts) - {"valkey"}:
        spec = pod(resources, part)
        (container,) = spec["containers"]
        given = environ(resources, part)
        assert given.keys() <= known
        slept = float(container["lifecycle"]["preStop"]["exec"]["command"][1])
        grace = spec["terminationGracePeriodSeconds"]
        assert grace >= slept + float(given["DRAIN"]) + 3 * LAST_WORDS
        paths = {
            name: container[f"{name}Probe"]["httpGet"]["path"] for name in ("readiness", "liveness")
        }
        assert paths == {"readiness": "/ready", "liveness": "/health"}
        # What is written to.
        assert {mount["mountPath"] for mount in container["volumeMounts"]} >= {"/data", "/tmp"}  # noqa: S108


def test_each_part_has_its_own_keys_as_files() -> None:
    resources = rendered(*FULL)
    assert resources["Secret", "my-keys"]["stringData"] == {
        "GEMINI_API_KEY": "g",
        "FIXED_API_KEY": "f",
        "PROXY_API_KEYS": "p",
        "ADMIN_KEY": "a",
        "STATE_URL": "redis://:s@valkey",
    }
    for part, own, other in (("gemini", "GEMINI", "FIXED"), ("stream", "FIXED", "GEMINI")):
        given = environ(resources, part)
        assert given[f"{own}_API_KEY_FILE"] == f"/etc/gemproxy/keys/{own}_API_KEY"
        assert f"{other}_API_KEY_FILE" not in given
        assert {"PROXY_API_KEYS_FILE", "ADMIN_KEY_FILE", "STATE_URL_FILE"} <= given.keys()
        assert not any(re.search(r"KEYS?$", name) for name in given)
    own = rendered(*VALUES["own secret"])
    assert ("Secret", "my-keys") not in own
    keys = next(each for each in pod(own, "gemini")["volumes"] if each["name"] == "keys")
    assert keys["secret"]["secretName"] == "mine"
    assert not any(each["name"] == "keys" for each in pod(own, "stream")["volumes"])


def test_the_two_find_each_other() -> None:
    resources = rendered(*FULL)
    stream, gemini = environ(resources, "stream"), environ(resources, "gemini")
    assert stream["GEMINI_PROXY_URL"] == "http://my-gemini:3000"
    assert (stream["PORT"], gemini["STREAM_PORT"]) == ("off", "off")
    assert (stream["LOG_KEEP"], gemini["LOG_KEEP"]) == ("5", "5")
    assert stream["UPSTREAM_URL"] == "http://new-api:3000"
    assert "UPSTREAM_URL" not in gemini
    for part in ("stream", "gemini"):
        service = resources["Service", f"my-{part}"]["spec"]
        labels = resources["Deployment", f"my-{part}"]["spec"]["template"]["metadata"]["labels"]
        assert service["selector"].items() <= labels.items()
        scaler = resources["HorizontalPodAutoscaler", f"my-{part}"]["spec"]
        assert scaler["metrics"][0]["pods"]["metric"]["name"] == "gemproxy_requests_under_way"
        assert "replicas" not in resources["Deployment", f"my-{part}"]["spec"]
        (scraped,) = resources["ServiceMonitor", f"my-{part}"]["spec"]["endpoints"]
        assert scraped["authorization"]["credentials"] == {"name": "my-keys", "key": "ADMIN_KEY"}
    (rule,) = resources["NetworkPolicy", "my-gemini"]["spec"]["ingress"]
    allowed = rule["from"][0]["podSelector"]["matchLabels"]
    assert allowed["app.kubernetes.io/component"] == "stream"
    alone = rendered(*VALUES["without Gemini"])
    assert environ(alone, "stream")["GEMINI_PROXY_URL"] == "http://new-api:3000"
    assert ("Deployment", "my-gemini") not in alone


def test_both_share_state_in_valkey() -> None:
    resources = rendered(*VALUES["with Valkey"])
    labels = resources["Deployment", "my-valkey"]["spec"]["template"]["metadata"]["labels"]
    service = resources["Service", "my-valkey"]["spec"]
    assert service["selector"].items() <= labels.items()
    for part in ("stream", "gemini"):
        assert environ(resources, part)["STATE_URL"] == "redis://my-valkey:6379"
        egress = resources["NetworkPolicy", f"my-{part}"]["spec"]["egress"]
        selectors = [
            to["podSelector"]["matchLabels"] for rule in egress for to in rule.get("to", ())
        ]
        assert any(selector.items() <= labels.items() for selector in selectors)
    (rule,) = resources["NetworkPolicy", "my-valkey"]["spec"]["ingress"]
    assert len(rule["from"]) == 2
    command = ["helm", "template", "my", str(CHART), "--set", "valkey.enabled=true"]
    both = subprocess.run(
        [*command, "--set", "secret.STATE_URL=redis://a"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert "there can be one server" in both.stderr
