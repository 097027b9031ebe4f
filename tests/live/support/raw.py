"""Messages that no client would publish."""

import socket
from urllib.parse import urlsplit

from tests.servers import NatsServer


def publish_raw(server: NatsServer, subject: str, headers: bytes, payload: bytes) -> None:
    """Publish what no client would."""
    address = urlsplit(server.url)
    sizes = (subject.encode(), len(headers), len(headers) + len(payload))
    frame = b"HPUB %s %d %d\r\n" % sizes + headers + payload + b"\r\n"
    with socket.create_connection((address.hostname, address.port or 0), timeout=5) as connection:
        connection.recv(65536)
        connection.sendall(b'CONNECT {"verbose":false,"headers":true}\r\n' + frame + b"PING\r\n")
        received = b""
        while b"PONG" not in received:
            received += connection.recv(65536)
