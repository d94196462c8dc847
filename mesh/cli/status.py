"""mesh status"""

from __future__ import annotations

import argparse
import json
from typing import Any

from mesh.cli.common import add_json, add_name, find, layers_of, run_async, say, token_of
from mesh.client.tool import ask
from mesh.errors import Unavailable


def add(parser: argparse.ArgumentParser) -> None:
    """Its arguments."""
    add_name(parser)
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Print the status."""
    layers = layers_of(arguments)
    state = find(layers.value("name"))
    token = token_of(state, layers)
    try:
        status = run_async(ask(state["endpoints"], "status", token=token))
    except Unavailable as error:
        raise Unavailable(f"{error}; its log: {state['log']}") from error
    status["log"] = state["log"]
    say(json.dumps(status) if arguments.json else render(status))
    return 0


def render(status: dict[str, Any]) -> str:
    """The status as people read it."""
    version = ".".join(map(str, status["table_version"] or ["none yet"]))
    leader = status.get("leader")
    lines = [] if leader else ["no supervisor leads at the moment; what a standby knows:"]
    lines += [
        (
            f"mesh {status['name']}  {', '.join(status['endpoints'])}  "
            f"{status['partitions']} partitions  table {version}  store life {status['store_life']}"
        ),
        "",
        f"{'':12}{'state':11}{'pid':>8}  {'address':22}partitions",
    ]
    lines += [
        f"{s['id']:12}{s['role']:11}{s['pid']:>8}  {s['host']}:{s['port']}"
        for s in status["supervisors"]
    ]
    lines += [f"{w['id']:12}{'watching':11}{w['pid']:>8}  {w['node']}" for w in status["wardens"]]
    for h in status["handlers"]:
        address = f"{h['host']}:{h['port']}"
        lines.append(
            f"{h['id']:12}{h['state']:11}{h['pid'] or '-':>8}  {address:22}"
            f"{len(h['partitions']):>5}  {ranges(h['partitions'])}"
        )
        if h["health"] != "ok":
            lines.append(f"{'':12}not well: {h['health']}")
    store = status["store"]
    for node in store.get("nodes", []):
        lag = f"lag {node['lag_bytes']} bytes" if node.get("lag_bytes") is not None else ""
        address = f"{node['host']}:{node['port']}"
        behind = "" if node.get("in_sync", True) else "  not in sync"
        lines.append(f"{'store':12}{node['role']:11}{node['pid']:>8}  {address:22}{lag}{behind}")
    if "nodes" not in store:
        failover = ", no failover of its own" if store.get("failover") == "none" else ""
        lines.append(f"{'store':12}{store.get('address', '')}{failover}")
    lines.append(f"in sync: {', '.join(store['in_sync']) or 'no replicas'}")
    outcomes = "  ".join(f"{k} {v}" for k, v in status["outcomes"].items())
    lines.append(f"calls:   {outcomes}")
    ray = status.get("ray", {})
    if ray:
        dashboard = f", dashboard {ray['dashboard']}" if ray.get("dashboard") else ""
        lines.append(f"ray:     {ray.get('address')}{dashboard}")
    lines.append(f"log:     {status['log']}")
    return "\n".join(lines)


def ranges(partitions: list[int], most: int = 6) -> str:
    """0-3 7 9-12 …"""
    spans: list[list[int]] = []
    for p in partitions:
        if spans and spans[-1][1] == p - 1:
            spans[-1][1] = p
        else:
            spans.append([p, p])
    shown = [f"{a}-{b}" if a != b else f"{a}" for a, b in spans[:most]]
    return " ".join(shown) + (" ..." if len(spans) > most else "")
