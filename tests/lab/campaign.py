"""Plays all scenarios many times among everyday traffic, and counts what the sensor gets wrong.

    campaign.py --lab PREFIX --sensor PROGRAM [--repeats N] [--connections N] [--jobs N]
                [--busy N] [--only NAME…] [--seed N] [--keep DIRECTORY]

The connections of the scenarios named older_* begin before the sensor does. Exit code 1 when fewer
than 99 % of the verdicts are right, when more than 5 % of the joins of proxies' legs are not what
the scenario or HAProxy's log says, when a reset is called injected that nobody forged, when a forged one is not, when
everyday traffic suffered, or when the sensor did not end well.
"""

import argparse
import collections
import contextlib
import fcntl
import json
import multiprocessing
import os
import pathlib
import queue
import random
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

import endpoints
import forgeries
from compare import flow, judge
from peer import Lab
from scenarios import Play, SCENARIOS, begin, finish, guarded

HERE = pathlib.Path(__file__).parent
#: Records come when an episode has settled; one whose true peer retransmits takes longest.
SETTLE = 1.5
#: Takes seconds, of which it waits most: a worker of its own for each family.
SLOW = "keepalive_failure"
RIGHT_SHARE = 0.99
#: Joins of a proxy's legs that may be wrong. They are a few dozen in the small form, where one wrong
#: one says little: see `confidence` in src/engine/legs/mod.rs for what was measured.
WRONG_JOINS_SHARE, WRONG_JOINS = 0.05, 2


class Ports:
    """Ports that nobody else draws: each worker has its own share, in no order."""

    def __init__(self, worker, workers):
        self.left = list(range(20000 + worker, 30000, workers))
        random.shuffle(self.left)

    def __call__(self):
        return self.left.pop()


@contextlib.contextmanager
def alone(lab, play):
    """Some scenarios have a port of their own: one at a time. Yields whether it is our turn."""
    with open(f"/run/rstscope-lab/{lab.prefix}/turn-{play.name}-{play.family}", "w",
              encoding="utf-8") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True


def work(number, workers, lab, held, plays, go, results):
    """One process, since a sensor joins what one process does at one time."""
    random.seed(os.getpid())
    endpoints.free_port = forgeries.free_port = Ports(number, workers)
    open_ones = [(play, guarded(play, begin)) for play in held]
    results.put(None)
    go.wait()
    if open_ones:
        # Spread over the run, as everything else is.
        random.shuffle(open_ones)
    while True:
        try:
            play, rest = plays.get(timeout=0.2), None
        except queue.Empty:
            if not open_ones:
                return
            play = None
        if open_ones and (play is None or random.random() < 0.1):
            old, rest = open_ones.pop()
            guarded(old, finish, rest)
            results.put((old.promises, getattr(old, "broke", False)))
        if play is None:
            continue
        with alone(lab, play) as is_our_turn:
            if is_our_turn:
                guarded(play, begin)
        if is_our_turn:
            results.put((play.promises, getattr(play, "broke", False)))
        else:
            plays.put(play)
            time.sleep(0.02)


class Legs(threading.Thread):
    """What HAProxy logs of each connection: its two legs, by their ports."""

    def __init__(self, lab):
        super().__init__(daemon=True)
        with lab.inside("lb"):
            self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.setsockopt(socket.SOL_SOCKET, 33, 8 << 20)
        self.socket.bind(("127.0.0.1", 5140))
        #: Clients (address, port) by the proxy's (address, port) towards the backend; more than one
        #: where a port was used again.
        self.clients = collections.defaultdict(set)
        self.start()

    def run(self):
        while True:
            client, port, leg, leg_port, *_ = self.socket.recv(4096).decode().split()
            if leg != "-" and leg_port.isdigit():
                self.clients[leg, int(leg_port)].add((client, int(port)))


class Sensor:
    """The sensor on the load balancer host."""

    def __init__(self, lab, program, directory):
        self.records, self.said = directory / "records", directory / "sensor"
        with open(self.said, "w", encoding="utf-8") as said:
            self.process = subprocess.Popen(
                ["ip", "netns", "exec", lab.prefix + "lb", program, "run", "--iface", "up0",
                 "--iface", "dn0", "--output", f"file://{self.records}",
                 "--spool", directory / "spool"], stderr=said,
                # CPUs are shared by session: it is another host than its peers.
                start_new_session=True)
        end = time.monotonic() + 20
        while "rstscope: ready" not in self.said.read_text(encoding="utf-8"):
            if self.process.poll() is not None or time.monotonic() > end:
                raise RuntimeError("the sensor did not get ready: " + self.said.read_text())
            time.sleep(0.05)

    def stop(self):
        """Ends it, prints its ledgers, and answers its exit code; words where one does not balance."""
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(20)
        said = self.said.read_text(encoding="utf-8").splitlines()
        ledgers = [line for line in said if "the ledger " in line or "taken in by the host" in line]
        print("\n".join(ledgers))
        if not ledgers or not all(line.endswith(" balances") for line in ledgers):
            return f"{code}, without a balanced ledger"
        return code


def make_plays(lab, given):
    """All plays of the campaign: those to begin before the sensor, the slow ones, the others."""
    plays = [Play(lab, name, family) for _ in range(given.repeats)
             for name in given.only or SCENARIOS for family in (4, 6)]
    random.Random(given.seed).shuffle(plays)
    older = [play for play in plays if play.name.startswith("older_")]
    slow = [play for play in plays if play.name == SLOW]
    return older, slow, [play for play in plays if play not in older and play not in slow]


def play_all(lab, given, directory):
    """Runs everything; returns promises, how many plays broke, what the background promised and
    summed up, the sensor's exit code, and HAProxy's legs."""
    older, slow, others = make_plays(lab, given)
    total = len(older) + len(slow) + len(others)
    legs = Legs(lab)
    results, go = multiprocessing.Queue(), multiprocessing.Event()
    quick = multiprocessing.Queue()
    for play in others:
        quick.put(play)
    queues = [quick] * given.jobs
    for family in (4, 6):
        queues.append(multiprocessing.Queue())
        for play in slow:
            if play.family == family:
                queues[-1].put(play)
    workers = [
        multiprocessing.Process(
            target=work, daemon=True,
            args=(number, len(queues), lab, older[number::given.jobs] if number < given.jobs else [],
                  plays, go, results))
        for number, plays in enumerate(queues)]
    for worker in workers:
        worker.start()
    for _ in workers:
        results.get(timeout=60)
    sensor = Sensor(lab, given.sensor, directory)
    background = subprocess.Popen(
        [sys.executable, "-B", HERE / "background.py", "--lab", lab.prefix, "--seed",
         str(given.seed)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        start_new_session=True)
    heard = []
    listener = threading.Thread(target=lambda: heard.extend(background.stdout))
    listener.start()
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(given.busy)]
    go.set()
    promises, broke, begun = [], 0, 0
    try:
        for number in range(1, total + 1):
            promised, is_broken = results.get(timeout=60)
            promises += promised
            broke += is_broken
            more = given.connections * number // total - begun
            begun += more
            background.stdin.write(f"{more}\n")
            background.stdin.flush()
        background.stdin.close()
        background.wait()
        listener.join()
        time.sleep(SETTLE)
    finally:
        for process in busy:
            process.kill()
        background.kill()
        code = sensor.stop()
    *aborts, everyday = [json.loads(line) for line in heard]
    return promises, broke, aborts, everyday, code, dict(legs.clients)


def ends_of(promise):
    return frozenset(((promise["source"], promise["source_port"]),
                      (promise["destination"], promise["destination_port"])))


def one_each(promises, about):
    """Each promise with the records about it. Where a port was used again, two connections bear one
    four-tuple: as many records as promises belong together in order of time."""
    made = collections.defaultdict(list)
    for promise in promises:
        made[ends_of(promise)].append(promise)
    for ends, alike in made.items():
        records = sorted(about[ends], key=lambda record: record["@timestamp"])
        if len(alike) == len(records):
            yield from ((promise, [record]) for promise, record in zip(alike, records))
        else:
            yield from ((promise, records) for promise in alike)


def joined_rightly(one, other, stated, legs):
    """Whether two flows are the legs of one connection: by what the scenario says, or HAProxy's log.
    Of what neither knows, nothing belongs together."""
    ends = frozenset((one[:2], one[2:]))
    if ends in stated:
        return other in stated[ends]
    for opened, answered in ((one, other), (other, one)):
        for leg in (opened[:2], opened[2:]):
            if leg in legs:
                return answered[:2] in legs[leg] or answered[2:] in legs[leg]
    return False


class Judgement:
    """Promises beside records."""

    def __init__(self, promises, aborts, lines, legs):
        resets = [each for each in lines if each["event"]["dataset"] == "rstscope.reset"]
        self.coverage = [each for each in lines if each["event"]["dataset"] != "rstscope.reset"]
        self.verdicts = collections.Counter(each["rstscope"]["verdict"] for each in resets)
        about = collections.defaultdict(list)
        for record in resets:
            about[frozenset((flow(record)[:2], flow(record)[2:]))].append(record)
        self.wrong, self.played = collections.defaultdict(list), collections.Counter()
        self.missed, self.abort_wrong, forged = collections.Counter(), [], set()
        for promise, records in one_each(promises + aborts, about):
            said, is_right = judge(promise, records)
            is_forged = promise["expect_verdict"] == "injected"
            if is_forged:
                forged.add(ends_of(promise))
            self.played[promise["scenario"]] += 1
            if not is_right:
                self.wrong[promise["scenario"]].append((said, promise))
            if is_forged and "injected" not in said:
                self.missed[promise["scenario"]] += 1
        self.false_alarms = [record for ends, records in about.items() if ends not in forged
                             for record in records
                             if record["rstscope"]["verdict"] == "injected"]
        #: Joins by what they are: right or not; and the same by confidence.
        self.joins, self.by_confidence = collections.Counter(), collections.defaultdict(
            collections.Counter)
        stated = collections.defaultdict(list)
        for promise in promises:
            if "other_leg" in promise:
                stated[ends_of(promise)].append(tuple(promise["other_leg"]))
        for record in resets:
            for related in record["rstscope"].get("related", []):
                if related["join"] in ("process", "closing"):
                    is_right = joined_rightly(flow(record), flow(related), stated, legs)
                    self.joins[is_right] += 1
                    key = related["join"], round(related["confidence"], 2)
                    self.by_confidence[key][is_right] += 1

    def show(self):
        for name in sorted(self.wrong):
            said = collections.Counter(said.rsplit(" ", 1)[0] for said, _ in self.wrong[name])
            print(f"  {name}: {len(self.wrong[name])} of {self.played[name]} wrong, "
                  f"expected {self.wrong[name][0][1]['expect_verdict']}: "
                  + "; ".join(f"{count} × {what}" for what, count in said.most_common(4)))


def verdict(given, judged, broke, everyday, code, seconds):
    """Prints the sums; returns what speaks against the sensor, or the lab."""
    judged.show()
    aborts = sum(count for name, count in judged.played.items() if name.startswith("background"))
    wrong_aborts = sum(len(w) for name, w in judged.wrong.items() if name.startswith("background"))
    promised = sum(judged.played.values()) - aborts
    wrong = sum(len(each) for each in judged.wrong.values()) - wrong_aborts
    forged_missed = sum(judged.missed.values())
    lost = sum(each["rstscope"]["coverage"].get("lost", 0) for each in judged.coverage)
    share = (promised - wrong) / max(promised, 1)
    print(f"{promised - wrong} of {promised} resets told right ({100 * share:.2f} %), "
          f"{aborts - wrong_aborts} of {aborts} aborts among {everyday['connections']} connections, "
          f"{forged_missed} forged missed, {len(judged.false_alarms)} false alarms, "
          f"{judged.joins[True]} legs joined rightly and {judged.joins[False]} wrongly, "
          f"{lost} frames or events lost, {seconds:.0f} s")
    for (join, confidence), count in sorted(judged.by_confidence.items()):
        print(f"joined by {join}, {confidence:.2f} sure: {count[True]} of {count.total()} right")
    print("records:", ", ".join(f"{n} {v}" for v, n in judged.verdicts.most_common()))
    bad = []
    if share < RIGHT_SHARE:
        bad.append(f"fewer than {100 * RIGHT_SHARE:.0f} % right")
    if aborts and (aborts - wrong_aborts) / aborts < RIGHT_SHARE:
        bad.append("aborts of everyday clients told wrong")
    for record in judged.false_alarms[:5]:
        bad.append("false alarm: " + json.dumps(record))
    if judged.joins[False] > max(WRONG_JOINS, WRONG_JOINS_SHARE * sum(judged.joins.values())):
        bad.append("legs joined that do not belong together")
    if forged_missed:
        bad.append(f"forged resets missed: {dict(judged.missed)}")
    if broke:
        bad.append(f"{broke} scenarios did not do what they promise")
    if everyday["failed"]:
        bad.append(f"{everyday['failed']} everyday connections failed: {everyday['reason']}")
    if everyday["connections"] < given.connections:
        bad.append("fewer everyday connections than asked for")
    if code != 0:
        bad.append(f"the sensor ended with exit code {code}")
    return bad


def main():
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--lab", required=True)
    arguments.add_argument("--sensor", required=True)
    arguments.add_argument("--repeats", type=int, default=2)
    arguments.add_argument("--connections", type=int, default=500)
    arguments.add_argument("--jobs", type=int, default=4)
    arguments.add_argument("--busy", type=int, default=0, help="processes that burn a CPU each")
    arguments.add_argument("--only", nargs="+", default=[], choices=SCENARIOS, metavar="NAME")
    arguments.add_argument("--seed", type=int, default=1)
    arguments.add_argument("--keep", help="leave promises, records and what the sensor said here")
    given = arguments.parse_args()
    with contextlib.ExitStack() as stack:
        directory = given.keep or stack.enter_context(tempfile.TemporaryDirectory())
        directory = pathlib.Path(directory)
        directory.mkdir(parents=True, exist_ok=True)
        if (directory / "records").exists():
            arguments.error(f"{directory} holds the records of another run")
        began = time.monotonic()
        promises, broke, aborts, everyday, code, legs = play_all(
            Lab(given.lab), given, directory)
        with open(directory / "promises", "w", encoding="utf-8") as kept:
            kept.writelines(json.dumps(each) + "\n" for each in promises + aborts)
        with open(directory / "legs", "w", encoding="utf-8") as kept:
            json.dump([[leg, sorted(clients)] for leg, clients in legs.items()], kept)
        lines = [json.loads(line) for line in open(directory / "records", encoding="utf-8")]
        judged = Judgement(promises, aborts, lines, legs)
        bad = verdict(given, judged, broke, everyday, code, time.monotonic() - began)
        if code:
            print((directory / "sensor").read_text(encoding="utf-8"), file=sys.stderr)
    for each in bad:
        print("NOT GOOD:", each)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
