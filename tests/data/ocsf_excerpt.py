#!/usr/bin/env python3
"""Writes tests/data/ocsf-1.8.0-CLASS.json: the part of an OCSF class's JSON Schema that is used.

    pip install ocsf-json-schema==1.2.0 && python3 tests/data/ocsf_excerpt.py FOLDER

The package holds the schema of github.com/ocsf/ocsf-schema, tag 1.8.0 (Apache-2.0), compiled. Taken
over as they are: requirements, types, enumerations, constraints and the ban of unknown attributes.
Left out: optional attributes that rstscope does not write (so that writing one fails until it is
named in KEEP), and descriptions.
"""
import json
import sys

from ocsf_json_schema import OcsfJsonSchemaEmbedded, get_ocsf_schema

CLASSES = {
    "network_activity": ["host"],
    "detection_finding": ["host"],
    "base_event": ["host"],
}
KEEP = {
    "activity_id", "activity_name", "actor", "analytic", "boundary_id", "category", "category_name",
    "category_uid", "class_name", "class_uid", "community_uid", "confidence", "confidence_id",
    "confidence_score", "connection_info", "container", "count", "created_time", "desc", "device",
    "direction", "direction_id", "dst_endpoint", "duration", "end_time", "evidences", "event_code",
    "finding_info", "first_seen_time", "hostname", "interface_name", "ip", "is_alert",
    "is_src_dst_assignment_known", "last_seen_time", "log_name", "mac", "message", "metadata", "name",
    "pid", "port", "process", "product", "profiles", "protocol_name", "protocol_num",
    "protocol_ver_id", "related_events", "remediation", "sequence", "severity", "severity_id",
    "src_endpoint", "start_time", "status", "status_id", "tcp_flags", "time", "title", "type_id",
    "type_name", "type_uid", "types", "uid", "unmapped", "vendor_name", "version", "vlan_uid",
}


def pruned(node):
    """The node without what is not kept."""
    if isinstance(node, list):
        return [pruned(item) for item in node]
    if not isinstance(node, dict):
        return node
    result = {}
    for key, value in node.items():
        if key in ("description", "title", "deprecated", "examples") and isinstance(value, str):
            continue
        if key == "properties":
            needed = set(node.get("required", []))
            value = {name: what for name, what in value.items() if name in KEEP | needed}
        result[key] = pruned(value)
    # "at least one of": alternatives that name a left out attribute can never hold.
    for key in ("anyOf", "oneOf"):
        if key in result and "properties" in result:
            held = [one for one in result[key]
                    if set(one.get("required", [])) <= set(result["properties"])]
            result[key] = held
    return result


def references(node):
    if isinstance(node, dict):
        for key, value in node.items():
            if key == "$ref":
                yield value.rsplit("/", 1)[1]
            else:
                yield from references(value)
    elif isinstance(node, list):
        for item in node:
            yield from references(item)


def main():
    schema = OcsfJsonSchemaEmbedded(get_ocsf_schema("1.8.0"))
    for name, profiles in CLASSES.items():
        whole = pruned(schema.get_class_schema(name, profiles=profiles))
        definitions = whole.pop("$defs", {})
        used, todo = {}, set(references(whole))
        while todo:
            one = todo.pop()
            if one not in used:
                used[one] = definitions[one]
                todo |= set(references(definitions[one]))
        whole["$defs"] = dict(sorted(used.items()))
        whole["$comment"] = "github.com/ocsf/ocsf-schema 1.8.0 by tests/data/ocsf_excerpt.py"
        with open(f"{sys.argv[1]}/ocsf-1.8.0-{name}.json", "w", encoding="utf-8") as file:
            json.dump(whole, file, indent=1)
            file.write("\n")


main()
