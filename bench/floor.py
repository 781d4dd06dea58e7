"""Plain sockets, for what no program can beat: blocking, one thread, nothing but send and receive.

python -m bench.floor --server        tells its port
python -m bench.floor --client PORT   takes the commands ``latency``, ``flood`` and ``stream``
"""

from __future__ import annotations

import argparse
import socket
import time
from typing import Any

from bench import workload

ANSWER_BYTES = 40
"""As many as an acknowledgement of ours has on the wire."""
_CHUNK = 262144


def server() -> None:
    """Answer each message of a connection, or count a stream and answer its end.

    The first four bytes are the messages' size; none: nothing is answered before a final dot.
    """
    with socket.create_server(("127.0.0.1", 0)) as listener:
        workload.tell({"started": True, "port": listener.getsockname()[1]})
        while True:
            connection, _ = listener.accept()
            with connection:
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                size = int.from_bytes(connection.recv(4, socket.MSG_WAITALL), "big")
                (_answer if size else _count)(connection, size)


def _answer(connection: socket.socket, size: int) -> None:
    owed = 0
    while data := connection.recv(_CHUNK):
        whole, owed = divmod(owed + len(data), size)
        if whole:
            connection.sendall(b"a" * ANSWER_BYTES * whole)


def _count(connection: socket.socket, size: int) -> None:
    while data := connection.recv(_CHUNK):
        if data.endswith(b"."):
            connection.sendall(b"a")


class Client:
    """The other side."""

    def __init__(self, port: int) -> None:
        self._port = port

    def _connect(self, size: int) -> socket.socket:
        sock = socket.create_connection(("127.0.0.1", self._port))
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.sendall(size.to_bytes(4, "big"))
        return sock

    def latency(self, how: str, size: str, options: str, seconds: str) -> dict[str, Any]:
        data = bytes(int(size))
        with self._connect(int(size)) as sock:

            def ping() -> None:
                sock.sendall(data)
                sock.recv(ANSWER_BYTES, socket.MSG_WAITALL)

            return workload.each_timed(float(seconds), ping)

    def flood(
        self, how: str, size: str, options: str, senders: str, seconds: str
    ) -> dict[str, Any]:
        """As many messages on their way as there would be senders."""
        data, done, got = bytes(int(size)), 0, 0
        with self._connect(int(size)) as sock:
            begin = time.perf_counter()
            sock.sendall(data * int(senders))
            while (now := time.perf_counter()) < begin + float(seconds):
                whole, got = divmod(got + len(sock.recv(_CHUNK)), ANSWER_BYTES)
                done += whole
                sock.sendall(data * whole)
            sock.shutdown(socket.SHUT_WR)
            while sock.recv(_CHUNK):  # To close with unread answers would be a reset.
                pass
        return {"n": done, "seconds": now - begin}

    def stream(self, size: str, options: str, seconds: str) -> dict[str, Any]:
        data, done = bytes(int(size)), 0
        with self._connect(0) as sock:
            began = time.time()
            while time.time() < began + float(seconds):
                sock.sendall(data)
                done += 1
            sock.sendall(b".")
            sock.recv(1)
        return {"n": done, "began": began, "last": time.time()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--server", action="store_true")
    parser.add_argument("--client", type=int)
    arguments = parser.parse_args()
    if arguments.server:
        server()
        return
    client = Client(arguments.client)
    workload.serve({name: getattr(client, name) for name in ("latency", "flood", "stream")})


if __name__ == "__main__":
    main()
