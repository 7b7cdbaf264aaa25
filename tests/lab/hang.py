#!/usr/bin/env python3
"""Holds one thread of a process, as a debugger at a breakpoint does; the others run on.

  hang.py PID THREAD_NAME     prints `held`, lets go when its standard input ends
"""

import ctypes
import os
import sys

PTRACE_SEIZE, PTRACE_INTERRUPT, PTRACE_DETACH = 0x4206, 0x4207, 17
WAIT_ALL = 0x40000000  # __WALL: threads too

libc = ctypes.CDLL(None, use_errno=True)


def ptrace(request, tid):
    if libc.ptrace(ctypes.c_long(request), ctypes.c_long(tid), None, None) == -1:
        raise OSError(ctypes.get_errno(), f"ptrace {request:#x} of {tid}")


def thread_named(pid, name):
    for tid in os.listdir(f"/proc/{pid}/task"):
        with open(f"/proc/{pid}/task/{tid}/comm", encoding="ascii") as comm:
            if comm.read().strip() == name:
                return int(tid)
    raise SystemExit(f"process {pid} has no thread {name}")


def main():
    tid = thread_named(sys.argv[1], sys.argv[2])
    ptrace(PTRACE_SEIZE, tid)
    ptrace(PTRACE_INTERRUPT, tid)
    os.waitpid(tid, WAIT_ALL)
    print("held", flush=True)
    sys.stdin.read()
    ptrace(PTRACE_DETACH, tid)


if __name__ == "__main__":
    main()
