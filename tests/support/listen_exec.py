"""Hand descriptors to a program as systemd does: `python listen_exec.py FD,FD,... NAME:NAME:... COMMAND ...`."""

from __future__ import annotations

import fcntl
import os
import sys


def main() -> None:
    fds, names, *command = sys.argv[1:]
    # First out of the way: a descriptor may have the number that another one shall get.
    moved = [fcntl.fcntl(int(fd), fcntl.F_DUPFD, 1000) for fd in fds.split(",") if fd]
    for at, fd in enumerate(moved):
        os.dup2(fd, 3 + at)
        os.close(fd)
    os.environ["LISTEN_PID"] = str(os.getpid())
    os.environ["LISTEN_FDS"] = str(len(moved))
    os.environ["LISTEN_FDNAMES"] = names
    os.execvp(command[0], command)


if __name__ == "__main__":
    main()
