"""Many clients at once: ``ask.py ADDRESS PORT CLIENTS ROUNDS [tcp|forge]`` says what was wrong, as JSON.

Each UDP client asks by a socket of its own in each round, and again where nothing comes back; each
TCP client once. The server must have seen that client, and the answer must be to its question.
"""

from __future__ import annotations

import json
import resource
import selectors
import socket
import sys
import time

PATIENCE = 60.0
FORGED = bytes((31, 8, 2, 154, 192, 0, 2, 66))  # "I am 192.0.2.66, port 666"


def main(address: str, port: int, clients: int, rounds: int, forge: bool) -> list[str]:
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    chosen = selectors.DefaultSelector()
    for number in range(clients):
        client = socket.socket(family, socket.SOCK_DGRAM)
        if forge:
            client.setsockopt(socket.IPPROTO_IP, socket.IP_OPTIONS, FORGED)
        client.connect((address, port))
        chosen.register(client, selectors.EVENT_READ, number)
    troubles: list[str] = []
    for turn in range(rounds):
        troubles += one_round(chosen, turn)
        time.sleep(1.2 if turn + 1 < rounds else 0)  # until the server is told again
    return troubles


def one_round(chosen: selectors.BaseSelector, turn: int) -> list[str]:
    waiting = {key.data: key.fileobj for key in chosen.get_map().values()}
    troubles: list[str] = []
    deadline = time.monotonic() + PATIENCE
    while waiting and time.monotonic() < deadline:
        asked = list(waiting.items())
        for at in range(0, len(asked), 100):
            for number, client in asked[at : at + 100]:
                assert isinstance(client, socket.socket)
                client.send(f"{turn}/{number}".encode())
            quiet = 0.0 if at + 100 < len(asked) else 1.0
            while ready := chosen.select(quiet):
                for key, _ in ready:
                    client = key.fileobj
                    assert isinstance(client, socket.socket)
                    answer = json.loads(client.recv(4096))
                    mine = list(client.getsockname()[:2])
                    question = f"{turn}/{key.data}"
                    if answer["request"] == question:
                        waiting.pop(key.data, None)
                    elif answer["request"].partition("/")[2] != f"{key.data}":
                        troubles.append(f"{mine} asked {question}, heard of {answer['request']}")
                    seen = [answer["seen"][0].removeprefix("::ffff:"), answer["seen"][1]]
                    if seen != mine:
                        troubles.append(f"{mine} was taken for {answer['seen']}")
                if not waiting:
                    break
    return [*troubles, *(f"no answer to {turn}/{number}" for number in waiting)]


def streams(address: str, port: int, clients: int) -> list[str]:
    """Connections that are open side by side, each to a server of serve.py's kind tcp."""
    opened = [socket.create_connection((address, port), PATIENCE) for _ in range(clients)]
    troubles: list[str] = []
    for number, client in enumerate(opened):
        client.sendall(f"{number}".encode())
        said = b""
        while more := client.recv(4096):
            said += more
        answer, mine = json.loads(said), list(client.getsockname()[:2])
        shown = [answer["accept"], answer["getpeername"], (answer["asked"] or [None])[0]]
        shown = [each and [each[0].removeprefix("::ffff:"), each[1]] for each in shown]
        if shown != [mine] * 3 or answer["request"] != f"{number}":
            troubles.append(f"{mine} asked {number}: {answer}")
    return troubles


if __name__ == "__main__":
    words = sys.argv[1:]
    if "tcp" in words:
        found = streams(words[0], int(words[1]), int(words[2]))
    else:
        found = main(words[0], int(words[1]), int(words[2]), int(words[3]), "forge" in words)
    print(json.dumps(found[:20]))
