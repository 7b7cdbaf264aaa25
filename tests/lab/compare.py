"""Holds what was done in the lab against what the sensor said.

    compare.py --promises FILE --records FILE [--wait SECONDS]

FILE of promises: the lines that scenarios.py printed. A promise is kept when exactly one record
bears its flow, in its direction, with the promised verdict and one of its causes. Prints a table;
exit code 1 when any promise is not kept.
"""

import argparse
import json
import sys
import time


def flow(record):
    return (record["source"]["ip"], record["source"]["port"],
            record["destination"]["ip"], record["destination"]["port"])


def resets(path):
    """The reset records of a file; a line that is still being written is left out."""
    with open(path, encoding="utf-8") as lines:
        records = [json.loads(line) for line in lines if line.endswith("\n")]
    return [each for each in records if each["event"]["dataset"] == "rstscope.reset"]


def judge(promise, records):
    """What the sensor said, and whether that is right."""
    wanted = tuple(promise[key] for key in
                   ("source", "source_port", "destination", "destination_port"))
    about = [each for each in records if flow(each) in (wanted, wanted[2:] + wanted[:2])]
    if not about:
        return "no record", False
    said = []
    for record in about:
        scope = record["rstscope"]
        said.append(f"{scope['verdict']}/{scope['cause']}" if scope.get("cause") else scope["verdict"])
        said[-1] += f" {scope['confidence']:.2f}"
        if flow(record) != wanted:
            said[-1] += " (other way round)"
    scope = about[0]["rstscope"]
    causes = promise["expect_cause"]
    right = (len(about) == 1 and flow(about[0]) == wanted
             and scope["verdict"] == promise["expect_verdict"]
             and (not causes or scope.get("cause") in causes))
    return ", ".join(said), right


def main():
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--promises", required=True)
    arguments.add_argument("--records", required=True)
    arguments.add_argument("--wait", type=float, default=0)
    given = arguments.parse_args()
    with open(given.promises, encoding="utf-8") as lines:
        promises = [json.loads(line) for line in lines]
    end = time.monotonic() + given.wait
    while True:
        records = resets(given.records)
        answers = [judge(promise, records) for promise in promises]
        if time.monotonic() >= end or all(said != "no record" for said, _ in answers):
            break
        time.sleep(0.1)
    rows = [("step", "who really sent it", "the sensor: verdict/cause confidence", "")]
    rows += [(promise["scenario"], promise["story"], said, "ok" if right else "WRONG, expected "
              + promise["expect_verdict"] + "".join("/" + c for c in promise["expect_cause"][:1]))
             for promise, (said, right) in zip(promises, answers)]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    for number, row in enumerate(rows):
        print("  ".join([cell.ljust(width) for cell, width in zip(row, widths)] + [row[3]]).rstrip())
        if number == 0:
            print("  ".join("-" * width for width in widths))
    wrong = sum(not right for _, right in answers)
    print(f"{len(promises) - wrong} of {len(promises)} as it really was")
    return 1 if wrong or not promises else 0


if __name__ == "__main__":
    sys.exit(main())
