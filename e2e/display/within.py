"""python within.py DESCRIPTOR PROGRAM …: runs a program that listens on port 8080 of all addresses, and nowhere else, in the network namespace that
this was started in, and passes on what arrives at a listening socket of another namespace: a socket stays in the one it was made in.

    unshare --net python within.py 3 event_display"""

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


def serve(connection):
    with connection, socket.create_connection(("127.0.0.1", 8080)) as inner:
        back = threading.Thread(target=copy, args=(inner, connection))
        back.start()
        copy(connection, inner)
        back.join()


def listens():
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", 8080)) == 0


def main():
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    listener = socket.socket(fileno=int(sys.argv[1]))
    program = subprocess.Popen(sys.argv[2:])
    try:
        while not listens():
            assert program.poll() is None, "it ended"
        print("ready", flush=True)
        while True:
            threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()
    finally:
        program.terminate()
        program.wait()


main()
