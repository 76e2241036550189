"""The snippet of docs/toa.md, in a server as somebody would write it."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest

from tests.documents import REPOSITORY
from tests.netns.toa.site import CLIENT, LOCAL, SERVER, Site
from tests.netns.toa.wire import Stream, tcp_option

pytestmark = pytest.mark.root

SERVER_PROGRAM = """
import json
server = socket.create_server(("::", 80), family=socket.AF_INET6, dualstack_ipv6=True)
print("ready", flush=True)
while True:
    connection, _ = server.accept()
    with connection:
        connection.recv(4096)
        connection.sendall(json.dumps(ends(connection)).encode())
"""


def test_the_snippet_gives_both_ends(real_server: Site, tmp_path: Path) -> None:
    text = (REPOSITORY / "docs" / "toa.md").read_text()
    (snippet,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    program = tmp_path / "server.py"
    program.write_text(snippet + SERVER_PROGRAM)
    real_server.attach()
    process = real_server.start([sys.executable, str(program)])
    assert process.stdout
    assert process.stdout.readline() == "ready\n"
    for version in (4, 6):
        local, server = (LOCAL[version], 5000), (SERVER[version], 80)
        stream = Stream(real_server.wire, local, server, tcp_option(CLIENT[version], 1234))
        assert json.loads(stream.ask(b"?")) == [[CLIENT[version], 1234], list(local)]
        assert json.loads(Stream(real_server.wire, (LOCAL[version], 5001), server).ask(b"?")) is None
