#!/usr/bin/env python3
"""Feeds records to packaging/siem/clickhouse/schema.sql in chDB, and asks for them.

    python3 tests/siem/clickhouse.py RECORDS ROWS

RECORDS are JSON lines of the native format, ROWS what the output clickhouse:// sends of them. Needs the package chdb; exits with 77 where it is not
there. Every expectation is worked out from the JSON itself.
"""
import ipaddress
import json
import pathlib
import re
import sys
import tempfile

try:
    from chdb import session
except ImportError:
    print("the Python package chdb is not installed")
    sys.exit(77)

SIEM = pathlib.Path(__file__).resolve().parents[2] / "packaging" / "siem"


def statements(text):
    text = re.sub(r"^\s*--.*$", "", text, flags=re.M)
    return [one for one in text.split(";\n") if one.strip()]


def rows(database, query):
    return [json.loads(line) for line in str(database.query(query, "JSONEachRow")).splitlines()]


def mapped(address):
    address = ipaddress.ip_address(address)
    text = f"::ffff:{address}" if address.version == 4 else str(address)
    return ipaddress.ip_address(text)


def check(name, found, expected):
    if found != expected:
        sys.exit(f"{name}: {found!r} and not {expected!r}")


def check_reset(row, record):
    own = record["rstscope"]
    name = record["event"]["id"]
    check(name, row["time"].replace(" ", "T") + "Z", record["@timestamp"])
    check(name, ipaddress.ip_address(row["source_ip"]), mapped(record["source"]["ip"]))
    check(name, row["source_port"], record["source"]["port"])
    client = record.get("client", {})
    check(name, row["client_port"], client.get("port"))
    check(name, row["client_ip"] is None, not client)
    check(name, row["community_id"], record["network"]["community_id"])
    check(name, row["verdict"], own["verdict"])
    check(name, row["cause"], own.get("cause", ""))
    check(name, round(row["confidence"], 4), round(own["confidence"], 4))
    check(name, row["first_seq"], own["resets"][0]["seq"])
    check(name, row["baseline_hop_limit"], own.get("baseline", {}).get("hop_limit"))
    for key in ("bytes_in", "bytes_out", "age_ns", "idle_ns"):
        value = row[key] if row[key] is None else int(row[key])
        check(name, value, own.get(key))
    check(name, row["accepted"], own.get("kernel", {}).get("accepted"))
    check(name, row["process_pid"], record.get("process", {}).get("pid"))
    check(name, len(row["evidence"]), len(own.get("evidence", [])))
    joined = [one.get("id", "") for one in own.get("related", []) if one["join"] == "correction"]
    check(name, row["corrects"], joined[0] if joined else "")
    many = own.get("aggregate", {})
    check(name, row["aggregate_network"], many.get("network", ""))
    flows = row["aggregate_flows"]
    check(name, flows if flows is None else int(flows), many.get("flows"))
    check(name, row["message"], record["message"])


def check_coverage(row, record):
    counts = record["rstscope"]["coverage"]
    name = record["event"]["id"]
    for key in ("observed", "bypassed", "copied", "lost", "passed"):
        value = row[key] if row[key] is None else int(row[key])
        check(name, value, counts.get(key))
    check(name, row["complete"], counts["complete"])
    check(name, row["end"].replace(" ", "T") + "Z", record["event"]["end"])


def run_panels(database):
    """Every panel's query must run; Grafana's macros become what they stand for."""
    dashboard = json.loads((SIEM / "grafana" / "dashboard.json").read_text())
    queries = [target["rawSql"] for panel in dashboard["panels"] for target in panel["targets"]]
    for query in queries:
        query = query.replace("${host:singlequote}", "SELECT DISTINCT host FROM rstscope.resets")
        query = re.sub(r"\$__timeFilter\((\w+)\)", r"\1 > toDateTime64(0, 9)", query)
        query = re.sub(r"\$__timeInterval\((\w+)\)", r"toStartOfMinute(\1)", query)
        if not rows(database, query):
            sys.exit(f"no rows: {query}")
    return len(queries)


def verify_all(database, records):
    seen = 0
    for table, verify in (("resets", check_reset), ("coverage", check_coverage)):
        for row in rows(database, f"SELECT * FROM rstscope.{table} FINAL"):
            verify(row, records[row["event_id"]])
            seen += 1
    check("rows", seen, len(records))
    return seen


def main():
    text, sent = (pathlib.Path(path).read_text() for path in sys.argv[1:3])
    records = {one["event"]["id"]: one for one in map(json.loads, text.splitlines())}
    with tempfile.TemporaryDirectory() as folder:
        database = session.Session(folder)
        for statement in statements((SIEM / "clickhouse" / "schema.sql").read_text()):
            database.query(statement)
        # Twice: delivery is at least once. Both numbers of 64 bits as texts, as they are in JSON.
        quoted = "SET output_format_json_quote_64bit_integers = 1"
        database.query(quoted)
        for _ in range(2):
            database.query(f"INSERT INTO rstscope.records FORMAT JSONEachRow\n{text}")
        verify_all(database, records)
        panels = run_panels(database)
        for table in ("resets", "coverage"):
            database.query(f"TRUNCATE TABLE rstscope.{table}")
        database.query(f"INSERT INTO rstscope.rows FORMAT JSONEachRow\n{sent}")
        seen = verify_all(database, records)
        version = rows(database, "SELECT version() AS version")[0]["version"]
        print(f"{seen} records and {panels} queries, ClickHouse {version}")


main()
