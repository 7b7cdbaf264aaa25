#!/usr/bin/env python3
"""CPU and wall seconds of `rstscope read` and `tcpdump` over one capture, medians of paired runs.

usage: compare.py FILE [RUNS [BINARY [text]]]     FILE as capture.py makes it; all output goes to /dev/null

`text` adds tcpdump that prints, which takes minutes for a large capture.
"""
import resource
import statistics
import subprocess
import sys
import time

FILTER = "tcp[tcpflags] & (tcp-syn|tcp-fin|tcp-rst) != 0"


def main():
    path = sys.argv[1]
    runs = int(sys.argv[2]) if len(sys.argv) > 2 else 5
    binary = sys.argv[3] if len(sys.argv) > 3 else "target/release/rstscope"
    commands = {
        "tcpdump -w": ["tcpdump", "-r", path, "-w", "/dev/null", FILTER],
        "rstscope read": [binary, "read", "-q", path],
    }
    if "text" in sys.argv:
        commands["tcpdump -n, text"] = ["tcpdump", "-n", "-r", path, FILTER]
    seconds = {name: [] for name in commands}
    for _ in range(runs):
        for name, command in commands.items():
            before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
            subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True)
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
            seconds[name].append((time.monotonic() - began, cpu))
    for name, rows in seconds.items():
        wall, cpu = (statistics.median(row[at] for row in rows) for at in (0, 1))
        print(f"{name:18} wall {wall:7.3f} s   CPU {cpu:7.3f} s")


if __name__ == "__main__":
    main()
