"""
Whether a vulnerability is known in what the lock files pin:  make audit

pip-audit and npm are asked, which ask the registries. Where their data cannot be had, this says so,
and tells how old the lock files are instead: a network that is not there is no vulnerability.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from attrs import frozen

ROOT = Path(__file__).parent.parent
PIP_AUDIT = ROOT / ".cache" / "audit" / "bin" / "pip-audit"
# Those of npm that count; the rest is listed.
SERIOUS = ("high", "critical")
# Ids of advisories that do not concern gemproxy, each with the reason.
ACCEPTED: Mapping[str, str] = {}
# Days after which lock files are to be renewed, if nobody can say more of what they pin.
OLD = 90


@frozen
class Finding:
    """@ivar is_serious: whether it has to be mended, or accepted with a reason."""

    package: str
    id: str
    is_serious: bool

    def __str__(self) -> str:
        return f"{self.package}: {self.id}" + ("" if self.is_serious else " (not serious)")


class NoData(Exception):
    """The data of an audit cannot be had; the message says why."""


def pip_findings(printed: str) -> list[Finding]:
    """
    @param printed: what pip-audit has printed as JSON.
    @raise NoData: it is no report, or nothing was audited.
    """
    report = _json_of(printed)
    packages = report.get("dependencies")
    if not isinstance(packages, list):
        raise NoData("pip-audit has made no report")
    audited = [package for package in packages if "skip_reason" not in package]
    if not audited:
        raise NoData(packages[0]["skip_reason"] if packages else "pip-audit has seen no package")
    return [
        Finding(f"{package['name']} {package.get('version', '')}", advisory["id"], True)
        for package in audited
        for advisory in package.get("vulns", ())
    ]


def npm_findings(printed: str) -> list[Finding]:
    """
    @param printed: what C{npm audit} has printed as JSON.
    @raise NoData: it is no report.
    """
    report = _json_of(printed)
    packages = report.get("vulnerabilities")
    if not isinstance(packages, dict):
        raise NoData(str(report.get("message") or "npm has made no report"))
    return [
        Finding(name, str(advisory.get("url")), advisory.get("severity") in SERIOUS)
        for name, package in packages.items()
        # A text is the name of another package, in which it is.
        for advisory in package.get("via", ())
        if isinstance(advisory, dict)
    ]


def _json_of(printed: str) -> dict[str, Any]:
    try:
        report = json.loads(printed)
    except ValueError:
        raise NoData("there is no report") from None
    return report if isinstance(report, dict) else {}


def unmended(findings: Sequence[Finding], accepted: Mapping[str, str] = ACCEPTED) -> list[Finding]:
    """Those that let the audit fail."""
    return [
        finding
        for finding in findings
        if finding.is_serious and not any(finding.id.endswith(id) for id in accepted)
    ]


def age_of(lock: str, now: float) -> float | None:
    """Days since a lock file was renewed; None if its history is not there."""
    printed = _output("git", "log", "-1", "--format=%ct", "--", lock).strip()
    return (now - int(printed)) / 86400 if printed.isdigit() else None


def said_of_age(lock: str, days: float | None) -> str:
    if days is None:
        return f"{lock}: nobody knows how old it is"
    advice = "; renew it" if days > OLD else ""
    return f"{lock}: renewed {days:.0f} days ago{advice}"


def _output(*command: str | Path) -> str:
    """What a command prints, whatever its status."""
    try:
        result = subprocess.run(
            command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=300
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return result.stdout.decode("utf-8", "replace")


def main() -> int:
    """Returns the exit status: 1 if something has to be mended."""
    options = ("--format", "json", "--progress-spinner", "off", "--require-hashes", "--disable-pip")
    failed = False
    for lock, find, command in (
        ("requirements-test.txt", pip_findings, (PIP_AUDIT, *options, "-r")),
        (
            "package-lock.json",
            npm_findings,
            ("npm", "audit", "--json", "--omit=optional", "--package-lock-only"),
        ),
    ):
        arguments = (lock,) if command[-1] == "-r" else ()
        try:
            findings = find(_output(*command, *arguments))
        except NoData as reason:
            print(f"{lock} cannot be audited: {reason}.")
            print(said_of_age(lock, age_of(lock, time.time())))
            continue
        print(f"{lock}: {len(findings)} known vulnerabilities")
        for finding in findings:
            print(f"  {finding}")
        failed = failed or bool(unmended(findings))
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
