"""The only help the Python clients get: the test's host name leads to the gateway, whatever port they ask for."""

import json
import socket
import sys


def job():
    """The calls to make, with name resolution pointed at the gateway of this run."""
    found = json.load(sys.stdin)
    port = int(found["base"].rsplit(":", 1)[1])
    connect = socket.create_connection
    socket.create_connection = lambda address, *rest, **named: connect(("127.0.0.1", port), *rest, **named)
    return found
