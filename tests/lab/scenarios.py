"""Plays resets in the lab and says of each who really sent it.

    scenarios.py --list
    scenarios.py --lab PREFIX (--run NAME… | --all) [--ipv6 | --both] [--repeat N] [--jobs N]
                 [--hold] [--verify]

Prints one JSON object a line for every reset flow that was made: the flow as the first reset bears
it, and what a sensor on the load balancer host has to say (`expect_verdict`, and the causes that
are right). `--hold` opens the connections of the scenarios named older_* first, prints `held` and
waits for a line on standard input, so that a sensor can be started in between. `--verify` watches
the load balancer host's interfaces with a raw socket and fails when a promised reset was not there.
"""

import argparse
import concurrent.futures
import inspect
import json
import sys
import threading
import time
import traceback

import endpoints  # each registers its scenarios, in this order
import forge
import forgeries
import perfect
import proxies
import translated
from forge import ACK, RST
from peer import Lab
from plays import SCENARIOS, Play

assert endpoints and forgeries and perfect and proxies and translated


class Witness(threading.Thread):
    """Notes every reset on the load balancer host's interfaces."""

    def __init__(self, lab):
        super().__init__(daemon=True)
        self.tap, self.stop, self.resets = forge.Tap(lab, "lb"), False, []
        self.start()

    def run(self):
        while not self.stop:
            self.resets += [seen for seen in self.tap.read(0.1) if seen.flags & RST]
            self.tap.seen.clear()

    def saw(self, promise):
        """What was seen of a promise on the wire, in words, the first first."""
        flow = [promise[key] for key in
                ("source", "source_port", "destination", "destination_port")]
        return [f"{seen.interface} {seen.way} {'RA' if seen.flags & ACK else 'R'}"
                f" hop_limit {seen.hop_limit}" for seen in self.resets
                if [seen.source, seen.source_port, seen.destination, seen.destination_port] == flow
                and promise.get("hop_limit") in (None, seen.hop_limit)][:4]


def begin(play):
    """Plays a scenario as far as it goes without the sensor; returns the rest."""
    rest = SCENARIOS[play.name](play)
    if inspect.isgenerator(rest):
        next(rest)
    return rest


def finish(play, rest):
    if inspect.isgenerator(rest):
        next(rest, None)


def guarded(play, step, *args):
    """Runs a step; a scenario that breaks is reported and does not stop the others."""
    try:
        return step(play, *args)
    except Exception:  # whatever it is, the others are still worth playing
        print(f"scenario {play.name} (IPv{play.family}) broke:", file=sys.stderr)
        traceback.print_exc()
        play.broke = True
        return None


def perform(plays, jobs, hold):
    older = [play for play in plays if play.name.startswith("older_")]
    open_ones = [(play, guarded(play, begin)) for play in older]
    if hold:
        print("held", flush=True)
        sys.stdin.readline()
    with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
        others = [play for play in plays if play not in older]
        # The slow one first.
        others.sort(key=lambda play: play.name != "keepalive_failure")
        list(pool.map(lambda play: guarded(play, begin), others))
    for play, rest in open_ones:
        guarded(play, finish, rest)


def report(plays, witness):
    """Prints the promises; returns how many are not kept."""
    bad = 0
    for play in plays:
        bad += getattr(play, "broke", False)
        for promise in play.promises:
            if witness:
                promise["witnessed"] = witness.saw(promise)
                bad += not promise["witnessed"]
            print(json.dumps(promise), flush=True)
    return bad


def main():
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--lab")
    arguments.add_argument("--list", action="store_true")
    arguments.add_argument("--run", nargs="+", default=[], choices=SCENARIOS, metavar="NAME")
    arguments.add_argument("--all", action="store_true")
    arguments.add_argument("--ipv6", action="store_true")
    arguments.add_argument("--both", action="store_true")
    arguments.add_argument("--repeat", type=int, default=1)
    arguments.add_argument("--jobs", type=int, default=4)
    arguments.add_argument("--hold", action="store_true")
    arguments.add_argument("--verify", action="store_true")
    given = arguments.parse_args()
    if given.list:
        for name, function in SCENARIOS.items():
            print(f"{name:26} {' '.join(inspect.getdoc(function).split())}")
        return 0
    if not given.lab or not (given.run or given.all):
        arguments.error("--lab and --run or --all are needed")
    lab = Lab(given.lab)
    witness = Witness(lab) if given.verify else None
    bad = 0
    for _ in range(given.repeat):
        families = (4, 6) if given.both else (6,) if given.ipv6 else (4,)
        plays = [Play(lab, name, family) for name in given.run or SCENARIOS for family in families]
        perform(plays, given.jobs, given.hold)
        if witness:
            time.sleep(0.2)
        bad += report(plays, witness)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
