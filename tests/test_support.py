"""What the tests themselves rely on."""

import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

from tests.support import free_ports

ASK = "from tests.support import free_ports; print(*free_ports(150), flush=True); input()"


def test_no_port_is_given_twice_whoever_asks() -> None:
    """Nor to two runs on one machine."""
    given = free_ports(150)
    with ExitStack() as stack:
        for _ in range(3):
            asking = [sys.executable, "-c", ASK]
            other = subprocess.Popen(
                asking, cwd=Path(__file__).parents[1], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            )
            stack.enter_context(other)
            stack.callback(other.kill)
            assert other.stdout is not None
            given += map(int, other.stdout.readline().split())
    assert len(given) == len(set(given)) == 600
