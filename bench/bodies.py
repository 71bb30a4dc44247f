"""C{python -m bench.bodies}: see L{testing.trial.bodies}."""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from testing.trial.bodies import BAD, trial


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.bodies", description=__doc__)
    parser.add_argument("--megabytes", type=float, default=48, help="of each body; default: 48")
    parser.add_argument("--limit", type=float, default=100, help="ms that others may wait")
    parser.add_argument("--only", default="", help="bodies with this in their names")
    given = parser.parse_args()
    found = 0
    with tempfile.TemporaryDirectory(prefix="gemproxy-bodies-") as folder:
        size = int(given.megabytes * 1e6)
        for line in trial(Path(folder), size, given.limit, given.only):
            found += line.startswith(BAD)
            print(line, flush=True)
    print(f"left or broken: {found}")
    sys.exit(bool(found))


if __name__ == "__main__":
    main()
