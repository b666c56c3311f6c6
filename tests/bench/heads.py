"""HEAD under load: wrk waits for the body that a HEAD's Content-Length announces, and never comes.

As wrk: connections that each wait for their answer. Run twice, beside each other, as `-t2` is.
"""

import json
import socket
import sys
import time


def main() -> None:
    """Arguments as one JSON object: port, head, connections, seconds. Prints requests, bytes, us and errors."""
    asked = json.loads(sys.argv[1])
    head = asked["head"].encode()
    sockets = [socket.create_connection(("127.0.0.1", asked["port"])) for _ in range(asked["connections"])]
    requests = sent_bytes = errors = 0
    began = time.perf_counter()
    while time.perf_counter() - began < asked["seconds"]:
        for one in sockets:
            one.send(head)
        for one in sockets:
            answer = one.recv(65536)
            while not answer.endswith(b"\r\n\r\n"):
                answer += one.recv(65536)
            requests += 1
            sent_bytes += len(answer)
            errors += not answer.startswith((b"HTTP/1.1 2", b"HTTP/1.1 3"))
    took = time.perf_counter() - began
    for one in sockets:
        one.close()
    found = {"requests": requests, "bytes": sent_bytes, "us": int(took * 1e6), "errors": errors}
    sys.stdout.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main()
