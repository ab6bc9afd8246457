"""Where workers are born: a process of one thread that has imported everything once, and forks.

    supervisor ⇄ nursery:   fork ID + three descriptors → born ID pid …, later died ID status;   import NAMES → imported

A fork takes milliseconds where a new Python with its libraries takes seconds, and what was imported is shared memory.  Nothing is
ever loaded or run here, so there is no thread and no lock that a fork could copy half-way.
"""

from __future__ import annotations

import gc
import importlib
import logging
import os
import select
import signal
import socket
import sys
import traceback

import msgspec

log = logging.getLogger("sqlml.serving")

LINE = 4096


class Fork(msgspec.Struct, frozen=True, tag=True):
    """Make a worker of the descriptors that come along: its channel, the listening socket, its flight record."""

    id: int


class Import(msgspec.Struct, frozen=True, tag=True):
    """Import a library for the workers to come."""

    names: tuple[str, ...]


class Imported(msgspec.Struct, frozen=True, tag=True):
    """The libraries are there, as far as they are installed."""


class Born(msgspec.Struct, frozen=True, tag=True):
    """A worker runs."""

    id: int
    pid: int


class Died(msgspec.Struct, frozen=True, tag=True):
    """A worker is no more; ``status`` as Popen has it: negative for a signal."""

    id: int
    status: int


_orders: msgspec.json.Decoder[Fork | Import] = msgspec.json.Decoder(Fork | Import)
_news: msgspec.json.Decoder[Born | Imported | Died] = msgspec.json.Decoder(Born | Imported | Died)


def encode_news(message: Fork | Import | Born | Imported | Died) -> bytes:
    """A message as its line."""
    return msgspec.json.encode(message) + b"\n"


def decode_news(line: bytes) -> Born | Imported | Died:
    """What the nursery said."""
    return _news.decode(line)


def run_nursery(channel: socket.socket) -> None:
    """Fork workers as told until the supervisor is no more."""
    from sqlml_runners.serving.worker import rehearse

    rehearse()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # it goes when the supervisor goes
    _settle()
    wakes, wake = socket.socketpair()
    for end in (wakes, wake):
        end.setblocking(False)
    signal.signal(signal.SIGCHLD, lambda _number, _frame: None)
    signal.set_wakeup_fd(wake.fileno(), warn_on_full_buffer=False)
    _Nursery(channel, (wakes, wake)).run()


class _Nursery:
    def __init__(self, channel: socket.socket, wakes: tuple[socket.socket, socket.socket]) -> None:
        self._channel = channel
        self._wakes = wakes
        self._children: dict[int, int] = {}  # pid → id

    def run(self) -> None:
        while True:
            ready, _, _ = select.select([self._channel, self._wakes[0]], [], [])
            if self._wakes[0] in ready:
                self._wakes[0].recv(4096)
                self._reap()
            if self._channel in ready and not self._obey():
                return

    def _obey(self) -> bool:
        """Do what was said; False at the supervisor's end.  It waits for each answer, so one message comes at a time."""
        try:
            line, descriptors, _, _ = socket.recv_fds(self._channel, LINE, 3)
        except OSError:
            return False
        if not line:
            return False
        match _orders.decode(line):
            case Fork(number):
                self._fork(number, *descriptors)
            case Import(names):
                for name in names:
                    _import(name)
                _settle()
                self._say(Imported())
        return True

    def _fork(self, number: int, *descriptors: int) -> None:
        pid = os.fork()
        if pid == 0:
            self._become_worker(*descriptors)
        for descriptor in descriptors:
            os.close(descriptor)
        self._children[pid] = number
        self._say(Born(number, pid))

    def _become_worker(self, channel: int, listener: int, record: int) -> None:
        from sqlml_runners.serving.worker import run_worker

        status = 1
        try:
            signal.set_wakeup_fd(-1)
            for own in (self._channel, *self._wakes):
                own.close()
            for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD):
                signal.signal(number, signal.SIG_DFL)
            run_worker(socket.socket(fileno=channel), socket.socket(fileno=listener), record)
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            logging.shutdown()
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)  # never back into the nursery's loop

    def _reap(self) -> None:
        while self._children:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                return
            self._say(Died(self._children.pop(pid), os.waitstatus_to_exitcode(status)))

    def _say(self, message: Born | Imported | Died) -> None:
        try:
            self._channel.sendall(encode_news(message))
        except OSError:
            log.debug("the supervisor is gone")  # the next read ends the loop


def _settle() -> None:
    """What is there stays: no worker shall look through it for rubbish, nor copy its pages by doing so."""
    gc.collect()
    gc.freeze()


def _import(name: str) -> None:
    try:
        importlib.import_module(name)
    except ImportError as error:
        log.warning("cannot import %s ahead: %s", name, error)


def main() -> int:
    """``python -m sqlml_runners.serving.nursery FD``: where a nursery died and the supervisor needs another."""
    run_nursery(socket.socket(fileno=int(sys.argv[1])))
    return 0


if __name__ == "__main__":
    sys.exit(main())
