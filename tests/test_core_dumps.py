"""The memory of the daemon is its own, and what it runs is not concerned."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="of Linux")

# As another user than root, who may look everywhere.
SCRIPT = """
import ctypes, json, os, resource, subprocess
from gemproxy.util.core_dumps import forbid_core_dumps

NOBODY = 65534
is_dumpable = lambda: ctypes.CDLL(None).prctl(3, 0, 0, 0, 0)
if os.geteuid() == 0:
    os.setresgid(NOBODY, NOBODY, NOBODY)
    os.setresuid(NOBODY, NOBODY, NOBODY)
    ctypes.CDLL(None).prctl(4, 1, 0, 0, 0)
before = is_dumpable()
forbid_core_dumps()
child = subprocess.run(
    ["sh", "-c", "cat /proc/$$/environ > /dev/null && ls /proc/self/fd && echo; "
     "cat /proc/$PPID/environ; cat /proc/$PPID/maps"],
    capture_output=True,
    text=True,
)
print(json.dumps({
    "before": before,
    "after": is_dumpable(),
    "core": resource.getrlimit(resource.RLIMIT_CORE)[0],
    "descriptors": len(os.listdir("/proc/self/fd")),
    "memory": open("/proc/self/statm").read(),
    "child": child.stdout,
    "denied": child.stderr.count("ermission denied"),
}))
"""


def test_no_other_process_of_the_user_can_look_into_it():
    printed = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True
    ).stdout
    found = json.loads(printed)
    assert (found["before"], found["after"], found["core"]) == (1, 0, 0)
    # It can count its descriptors and its memory, and what it runs is as ever.
    assert found["descriptors"] >= 3
    assert found["memory"]
    assert found["child"]
    # Neither its environment nor the map of its memory.
    assert found["denied"] == 2
