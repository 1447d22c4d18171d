"""A capture of the packets of a container, which searches them for known markers.

It runs in a container of its own in the network of the other one, so it sees all of that one's links and the host needs
no root.
"""

from __future__ import annotations

import base64
import json
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from tests.docker_session import session_name
from tests.stack import Container

PROGRAM = r"""
import json, select, socket, struct, sys
SOL_PACKET, PACKET_STATISTICS, ETH_P_ALL, ETH_P_IP = 263, 6, 3, 0x0800
request = json.loads(sys.stdin.readline())
missing = {name: [bytes.fromhex(form) for form in forms] for name, forms in request["markers"].items()}
longest = max(len(form) for forms in missing.values() for form in forms)
result = {"segments": 0, "records": 0, "found": [], "lost": 0}
# Only IP, and without the link's header: packets of all interfaces have one form.
source = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(ETH_P_ALL))
source.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 32 << 20)
ends = {}
print("captures", flush=True)
while True:
    ready, _, _ = select.select([source, sys.stdin], [], [])
    if source not in ready:
        break
    packet, (_, protocol, *_) = source.recvfrom(1 << 17)
    if protocol != ETH_P_IP or packet[9] != socket.IPPROTO_TCP:
        continue
    start = (packet[0] & 15) * 4
    ports = struct.unpack("!HH", packet[start:start + 4])
    data = packet[start + (packet[start + 12] >> 4) * 4:struct.unpack("!H", packet[2:4])[0]]
    if request["port"] not in ports or not data:
        continue
    result["segments"] += 1
    result["records"] += data[:2] == b"\x17\x03"
    # A marker may be in two segments.
    flow = (packet[12:20], ports)
    data = ends.get(flow, b"") + data
    ends[flow] = data[-longest:]
    for name in [name for name, forms in missing.items() if any(form in data for form in forms)]:
        result["found"].append(name)
        del missing[name]
result["lost"] = struct.unpack("II", source.getsockopt(SOL_PACKET, PACKET_STATISTICS, 8))[1]
print(json.dumps(result), flush=True)
"""


@dataclass
class Capture:
    """What a capture saw, after its end.

    Attributes:
        segments: The TCP segments with data.
        records: Those that begin with a TLS record of data.
        found: The names of the markers that were in clear.
        lost: The packets that it was too slow for.
    """

    segments: int = 0
    records: int = 0
    found: list[str] = field(default_factory=list)
    lost: int = 0


def forms(text: str) -> list[str]:
    """Return the bytes of a text in clear and in base64, at each of its three positions, in hexadecimal.

    Kombu sends a message's body in base64.
    """
    data = text.encode()
    coded = []
    for before in range(3):
        # Without the characters that also depend on the neighbours of the text.
        whole = base64.b64encode(bytes(before) + data)
        coded.append(whole[-(-before * 8 // 6) : (before + len(data)) * 8 // 6])
    return [form.hex() for form in (data, *coded)]


@contextmanager
def captured(container: Container, port: int, image: str, markers: Mapping[str, str]) -> Iterator[Capture]:
    """Search the TCP data to and from a port of a container for markers, for the duration of the block.

    Args:
        container: A server.
        port: Its port.
        image: One with Python.
        markers: Texts by their names; the names may be in a report.
    """
    name = f"{session_name()}-capture-{container.service}"
    capture = Capture()
    with subprocess.Popen(
        [
            *("docker", "run", "--rm", "--interactive", f"--name={name}", f"--network=container:{container.id}"),
            *("--user=0", "--cap-drop=ALL", "--cap-add=NET_RAW", "--entrypoint=python", image, "-S", "-c", PROGRAM),
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as child:
        assert child.stdin
        assert child.stdout
        request = {"port": port, "markers": {name: forms(text) for name, text in markers.items()}}
        child.stdin.write(f"{json.dumps(request)}\n")
        child.stdin.flush()
        assert child.stdout.readline() == "captures\n"
        try:
            yield capture
        finally:
            output, _ = child.communicate(timeout=60)
        vars(capture).update(json.loads(output))
