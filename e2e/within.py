"""python within.py DESCRIPTOR PORT PROGRAM … [-- PROGRAM …]: runs programs in the network namespace that this was started in, for those that listen on
ports of their own choice and on all addresses. What arrives at a listening socket of another namespace, which was handed down, goes to PORT here: a socket
stays in the namespace it was made in.

    unshare --net python within.py 3 8080 event_display"""

import itertools
import socket
import subprocess
import sys
import threading


def copy(source, target):
    try:
        while data := source.recv(65536):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)
    except OSError:
        pass


def serve(connection, port):
    with connection, socket.create_connection(("127.0.0.1", port)) as inner:
        back = threading.Thread(target=copy, args=(inner, connection))
        back.start()
        copy(connection, inner)
        back.join()


def listens(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def main(descriptor, port, *words):
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    listener = socket.socket(fileno=int(descriptor))
    commands = [list(group) for end, group in itertools.groupby(words, lambda word: word == "--") if not end]
    running = [subprocess.Popen(command) for command in commands]
    while not listens(int(port)):
        assert all(program.poll() is None for program in running), "one ended"
    print("ready", flush=True)
    while True:
        threading.Thread(target=serve, args=(listener.accept()[0], int(port)), daemon=True).start()


main(*sys.argv[1:])
