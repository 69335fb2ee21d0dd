"""Where a JupyterLab that a command has started is reached, for the tests of wheel and browser."""

import re
import socket
import subprocess
import time
from pathlib import Path
from urllib.parse import urlsplit

PATIENCE = 180  # seconds, on a machine with much else to do


def printed_address(server: subprocess.Popen, log: Path) -> str:
    """The address that the server printed, once somebody listens there, which is a moment later."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end and server.poll() is None:
        found = re.search(r"http://127\.0\.0\.1:\d+/lab/tree/\S+", log.read_text())
        if found and _somebody_listens_at(found[0]):
            return found[0]
        time.sleep(0.1)
    raise AssertionError(f"JupyterLab printed no address where it listens:\n{log.read_text()[-3000:]}")


def _somebody_listens_at(address: str) -> bool:
    place = urlsplit(address)
    with socket.socket() as knock:
        return knock.connect_ex((place.hostname, place.port)) == 0
