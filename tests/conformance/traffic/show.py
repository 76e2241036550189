"""Print what IPVS did: python -m tests.conformance.traffic.show PART-OF-A-SCENARIO'S-NAME..."""

from __future__ import annotations

import sys

from tests.conformance.traffic.recorded import read
from tests.conformance.traffic.scenarios import topics


def main() -> None:
    for topic in topics():
        for name, lines in read(topic).items():
            if any(part in name for part in sys.argv[1:]):
                print(f"# {name}", *lines, "", sep="\n")


if __name__ == "__main__":
    main()
