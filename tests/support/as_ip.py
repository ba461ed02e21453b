"""The links of a network namespace as `ip -j` prints them, under the agent's names."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import Any

Ip = Callable[..., Any]
"""Runs `ip -j -d -s` with these arguments in the namespace and returns what it prints."""


MAIN = 254
TABLES = {"default": 253, "local": 255, "main": MAIN}


def links_of_ip(ip: Ip) -> list[dict[str, Any]]:
    """Return every field of facts.link.Link that ip(8) prints, by index."""
    found = sorted(ip("address"), key=lambda one: int(one["ifindex"]))
    indices = {one["ifname"]: one["ifindex"] for one in found}
    routes = _default_routes(ip)
    return [_link(one, indices, routes[one["ifname"]]) for one in found]


def _link(one: dict[str, Any], indices: dict[str, int], routes: list[Any]) -> dict[str, Any]:
    info = one.get("linkinfo", {})
    parent = one.get("link") or ""
    return {
        "index": one["ifindex"],
        "name": one["ifname"],
        "kind": info.get("info_kind", ""),
        "mac": one.get("address", ""),
        "mtu": one["mtu"],
        "operational_state": one["operstate"],
        "up": "UP" in one["flags"],
        "addresses": [_address(address) for address in one["addr_info"]],
        "default_routes": routes,
        "counters": _counters(one["stats64"]),
        "vlan_id": info.get("info_data", {}).get("id") if info.get("info_kind") == "vlan" else None,
        "parent_index": indices.get(parent, one.get("link_index")),
        "parent": parent,
        "parent_namespace_id": one.get("link_netnsid"),
        "master": one.get("master", ""),
        "parent_device_bus": one.get("parentbus", ""),
        "parent_device": one.get("parentdev", ""),
        "num_vfs": len(one["vfinfo_list"]) if "vfinfo_list" in one else None,
    }


def _address(one: dict[str, Any]) -> dict[str, Any]:
    return {
        "address": f"{one['local']}/{one['prefixlen']}",
        "scope": one["scope"],
        "peer": one.get("address", ""),
    }


def _counters(stats: dict[str, Any]) -> dict[str, int]:
    return {
        f"{way}_{what}": stats[way][what]
        for way in ("rx", "tx")
        for what in ("bytes", "packets", "errors", "dropped")
    }


def _default_routes(ip: Ip) -> defaultdict[str, list[Any]]:
    """By name of the link; a multipath route is one for each of its next hops."""
    found: defaultdict[str, list[Any]] = defaultdict(list)
    for version in (4, 6):
        rules = ip(f"-{version}", "rule", "show")
        led = {_table(rule) for rule in rules if "table" in rule} | {MAIN}
        for route in ip(f"-{version}", "route", "show", "default", "table", "all") or []:
            if _table(route) not in led:
                continue
            for hop in route.get("nexthops", [route]):
                found[hop["dev"]].append(
                    {
                        "gateway": hop.get("gateway", "") or hop.get("via", {}).get("host", ""),
                        "ip_version": version,
                        "metric": route.get("metric", 0),
                        "source": route.get("prefsrc", ""),
                        "table": _table(route),
                    }
                )
    for routes in found.values():
        routes.sort(key=lambda route: (route["table"] != MAIN, route["table"]))
    return found


def _table(shown: dict[str, Any]) -> int:
    """The number of a route's or rule's table; of a route ip(8) leaves out the main one."""
    table = shown.get("table", "main")
    return int(TABLES.get(table, table))
