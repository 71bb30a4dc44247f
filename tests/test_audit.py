"""What the audit makes of what pip-audit and npm print."""

from __future__ import annotations

import json

import pytest

from testing.audit import (
    Finding,
    NoData,
    age_of,
    npm_findings,
    pip_findings,
    said_of_age,
    unmended,
)

SKIPPED = {"name": "a", "skip_reason": "Dependency not found on PyPI"}
CLEAN = {"name": "b", "version": "1", "vulns": []}
BAD = {"name": "c", "version": "2", "vulns": [{"id": "PYSEC-1"}, {"id": "GHSA-2"}]}


def test_pip_audit_s_report_is_read():
    printed = json.dumps({"dependencies": [SKIPPED, CLEAN, BAD]})
    assert pip_findings(printed) == [
        Finding("c 2", "PYSEC-1", True),
        Finding("c 2", "GHSA-2", True),
    ]


@pytest.mark.parametrize(
    "printed",
    ["", "x", "[]", "{}", json.dumps({"dependencies": [SKIPPED]}), '{"dependencies": []}'],
)
def test_what_was_not_audited_is_not_clean(printed: str):
    with pytest.raises(NoData):
        pip_findings(printed)


def test_npm_s_report_is_read():
    advisory = {"url": "https://github.com/advisories/GHSA-1", "severity": "high"}
    minor = {"url": "https://github.com/advisories/GHSA-2", "severity": "low"}
    packages = {"a": {"via": [advisory, minor]}, "b": {"via": ["a"]}}
    found = npm_findings(json.dumps({"vulnerabilities": packages}))
    assert [(f.package, f.is_serious) for f in found] == [("a", True), ("a", False)]
    assert unmended(found, {}) == found[:1]
    assert unmended(found, {"GHSA-1": "not used"}) == []
    assert npm_findings('{"vulnerabilities": {}}') == []


@pytest.mark.parametrize("printed", ["", '{"message": "405 Method Not Allowed"}', '{"error": {}}'])
def test_a_registry_that_tells_nothing_is_not_clean(printed: str):
    with pytest.raises(NoData):
        npm_findings(printed)


def test_a_lock_has_an_age():
    assert said_of_age("a.txt", 3.2) == "a.txt: renewed 3 days ago"
    assert said_of_age("a.txt", 91).endswith("; renew it")
    assert "nobody knows" in said_of_age("a.txt", None)
    assert age_of("no-such.txt", 0) is None
