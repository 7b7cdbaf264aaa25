#!/usr/bin/env python3
"""`rstscope read` beside other readers of one capture, in turn, medians of paired runs: wall and CPU time, peak memory.

usage: compare.py FILE [--runs N] [--binary PATH] [--small FILE] [--json]     FILE as capture.py makes it

All output goes to /dev/null. tcpdump copies the packets by its filter and looks at none (`-w`); its text is measured over
the first packets only, since it takes minutes for all. Suricata runs where it is installed, without rules. `--small` is a
capture of fewer flows: memory must not depend on their number. `--json` prints the lines that scripts/bench collects.
"""
import argparse
import json
import os
import shutil
import statistics
import struct
import subprocess
import sys
import tempfile
import time

FILTER = "tcp[tcpflags] & (tcp-syn|tcp-fin|tcp-rst) != 0"
# tcpdump keeps what it printed in lists of fixed size, and takes the longer for a packet the more there were.
TEXT_PACKETS = 100_000


def packets_of(path):
    """How many packets a capture of capture.py has."""
    count = 0
    with open(path, "rb") as file:
        file.seek(24)
        while header := file.read(16):
            file.seek(struct.unpack("<IIII", header)[2], os.SEEK_CUR)
            count += 1
    return count


def run(command):
    """Wall seconds, CPU seconds and peak MiB of one run."""
    began = time.monotonic()
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    problems = child.stderr.read().decode(errors="replace")
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    child.stderr.close()
    if child.returncode != 0:
        sys.exit(f"{command[0]}: exit code {child.returncode}: {problems[-500:]}")
    return time.monotonic() - began, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


def commands_of(asked, folder):
    read = [asked.binary, "read", "-q"]
    commands = {
        "tcpdump -w": ["tcpdump", "-r", asked.file, "-w", "/dev/null", FILTER],
        "rstscope read": [*read, asked.file],
        "tcpdump -n": ["tcpdump", "-n", "-c", str(TEXT_PACKETS), "-r", asked.file, FILTER],
    }
    if asked.small:
        commands["rstscope read, small"] = [*read, asked.small]
    if shutil.which("suricata"):
        commands["suricata"] = ["suricata", "-r", asked.file, "-l", folder, "-k", "none", "-S", "/dev/null"]
    return commands


def metrics(asked, medians, packets):
    """Name, value, unit, bound."""
    (wall, cpu, memory), (dump_wall, dump_cpu, _) = medians["rstscope read"], medians["tcpdump -w"]
    yield "read_cpu", cpu * 1e9 / packets, "ns CPU a packet", ""
    yield "tcpdump_write_cpu", dump_cpu * 1e9 / packets, "ns CPU a packet", ""
    yield "read_by_tcpdump_write", wall / dump_wall, "times its wall time", "<= 1"
    yield "read_by_tcpdump_write_cpu", cpu / dump_cpu, "times its CPU time", ""
    text = medians["tcpdump -n"][0] / min(packets, TEXT_PACKETS)
    yield "read_by_tcpdump_text", wall / packets / text, "times its wall time", "<= 1"
    if "suricata" in medians:
        yield "suricata_by_read", medians["suricata"][0] / wall, "times our wall time", ">= 20"
        yield "suricata_by_read_cpu", medians["suricata"][1] / cpu, "times our CPU time", ""
    yield "read_memory", memory, "MiB", ""
    if asked.small:
        yield "read_memory_growth", memory / medians["rstscope read, small"][2], "times a small file's", "<= 1.1"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--binary", default="target/release/rstscope")
    parser.add_argument("--small")
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        commands = commands_of(asked, folder)
        rows = {name: [] for name in commands}
        for _ in range(asked.runs):
            for name, command in commands.items():
                rows[name].append(run(command))
    medians = {name: [statistics.median(values) for values in zip(*runs)] for name, runs in rows.items()}
    if not asked.json:
        for name, (wall, cpu, memory) in medians.items():
            print(f"{name:22} wall {wall:7.3f} s   CPU {cpu:7.3f} s   {memory:6.0f} MiB")
        return
    for name, value, unit, against in metrics(asked, medians, packets_of(asked.file)):
        print(json.dumps({"bench": "read", "metric": name, "value": round(value, 3), "unit": unit, "against": against}))
    if "suricata" not in commands:
        print("skipped: read: suricata is not installed (bookworm-backports has it)")


if __name__ == "__main__":
    main()
