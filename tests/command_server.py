"""The command ``basicsr`` for shell scripts, without a fresh interpreter that imports everything for each call."""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from basicsr_ext.cli.main import main

_CLIENT = """#!{python} -SE
import json, os, socket, sys
connection = socket.socket(socket.AF_UNIX)
connection.settimeout(200)
connection.connect({address!r})
message = json.dumps([os.getcwd(), dict(os.environ), sys.argv[1:]]).encode()
socket.send_fds(connection, [len(message).to_bytes(4, 'little')], [1, 2])
connection.sendall(message)
sys.exit((connection.recv(1) or b'c')[0])
"""


@contextmanager
def command_server(folder: Path) -> Iterator[Path]:
    """Gives a program that does in a fork of this process what ``basicsr`` does, with the caller's folder and variables.

    Args:
        folder: For the program and a socket; its path is short.
    """
    program, address = folder / 'basicsr', str(folder / 'socket')
    program.write_text(_CLIENT.format(python=sys.executable, address=address))
    program.chmod(0o755)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(address)
    listener.listen()
    listener.settimeout(1)
    caller = os.getpid()
    server = os.fork()
    if server == 0:
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        while os.getppid() == caller:  # which may be killed
            try:
                connection, _ = listener.accept()
            except TimeoutError:
                continue
            if os.fork() == 0:
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                listener.close()
                _answer(connection)
            connection.close()
        os._exit(0)
    listener.close()
    try:
        yield program
    finally:
        os.kill(server, signal.SIGKILL)
        os.waitpid(server, 0)


def _answer(connection: socket.socket) -> None:
    status = 99
    try:
        length, files, _, _ = socket.recv_fds(connection, 4, 2)
        with connection.makefile('rb') as stream:
            folder, environment, arguments = json.loads(stream.read(int.from_bytes(length, 'little')))
        for file, number in zip(files, (1, 2), strict=True):
            os.dup2(file, number)
            os.close(file)
        sys.stdout, sys.stderr = os.fdopen(1, 'w', closefd=False), os.fdopen(2, 'w', closefd=False)
        os.chdir(folder)
        os.environ.clear()
        os.environ.update(environment)
        status = main(arguments)
    except SystemExit as end:
        status = end.code or 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        connection.sendall(bytes([status]))
        os._exit(0)
