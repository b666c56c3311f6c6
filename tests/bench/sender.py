"""What sending alone costs here: answers of a given size, made of one buffer that stays in the processor's cache.

`python -m tests.bench.sender PORT BYTES`: one of several that share the port. Nothing is looked up, read or checked.
A scale, and no bound: how connections fall to processes and processors changes it as it does for all others.
"""

import selectors
import socket
import sys

_BUFFER = memoryview(bytes(256 * 1024))


class _Connection:
    def __init__(self, client: socket.socket, selector: selectors.BaseSelector, size: int) -> None:
        self._client, self._selector, self._size = client, selector, size
        self._left = 0
        client.setblocking(False)
        selector.register(client, selectors.EVENT_READ, self.read)

    def read(self) -> None:
        """One request in one piece, as wrk sends it."""
        try:
            if not self._client.recv(65536):
                raise ConnectionResetError
            self._client.send(f"HTTP/1.1 200 OK\r\nContent-Length: {self._size}\r\n\r\n".encode())
        except ConnectionError:
            self._end()
            return
        self._left = self._size
        self._selector.modify(self._client, selectors.EVENT_WRITE, self.write)

    def write(self) -> None:
        """As much as the client takes."""
        try:
            while self._left:
                self._left -= self._client.send(_BUFFER[: self._left])
        except BlockingIOError:
            return
        except ConnectionError:
            self._end()
            return
        self._selector.modify(self._client, selectors.EVENT_READ, self.read)

    def _end(self) -> None:
        self._selector.unregister(self._client)
        self._client.close()


def main(port: int, size: int) -> None:
    """Until it is killed."""
    listening = socket.create_server(("127.0.0.1", port), backlog=1024, reuse_port=True)
    with listening, selectors.DefaultSelector() as selector:
        selector.register(listening, selectors.EVENT_READ, lambda: _Connection(listening.accept()[0], selector, size))
        while True:
            for key, _ in selector.select():
                key.data()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
