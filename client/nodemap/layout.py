"""Positions of everything on the map. Pure: a picture of the node in, a scene out."""

from __future__ import annotations

from collections.abc import Sequence

from netutil.client.documents import rfc3339
from netutil.client.nodemap.model import NodePicture
from netutil.client.nodemap.node_panels import NodePanels
from netutil.client.nodemap.pod_panels import (
    PodCards,
    broken_card,
    card,
    conflict_card,
    crossing_card,
    pool_card,
    split_card,
)
from netutil.client.nodemap.relations import Relations, relate
from netutil.client.nodemap.scene import (
    GAP,
    Block,
    Box,
    Label,
    Scene,
    counted,
    fitted,
    flowing,
    in_columns,
    moved,
    shown,
    stacked,
    width_of,
)

_MARGIN = 20.0
_CONTENT_WIDTH = 1240.0
"""With the margins 1280 pixels: the narrowest common screen."""
_LEGEND = (
    ("cpu own", "#7: the kubelet gave it to pod 7 alone"),
    ("cpu own conflict", "#7!: conflict, others may use it too"),
    ("cpu shared", "A: pool A"),
    ("cpu shared", "A+: others have it too"),
    ("cpu idle", "-: no container's"),
    ("cpu offline", "off: offline"),
    ("cpu idle", "iso: isolated from the scheduler"),
    ("core split", "split: a core of several pods"),
    ("function", "VF of a pod"),
    ("crossing", "! crosses NUMA nodes"),
    ("broken", "! network broken"),
)


def lay_out(picture: NodePicture) -> Scene:
    """The whole map, from the node down to its pods."""
    relations = relate(picture)
    cards = PodCards(picture, relations)
    numbers = range(1, len(picture.pods) + 1)
    notable = [number for number in numbers if cards.notable(number)]
    others = [number for number in numbers if not cards.notable(number)]
    panels = NodePanels(picture, relations)
    columns = 2 if len({cpu.numa_node for cpu in picture.cpus}) > 1 else 1
    panel_width = _column_width(columns)
    blocks = [
        _header(picture, relations),
        _legend(),
        *(_problem(sentence) for sentence in picture.problems),
        in_columns(list(panels.panels(panel_width)), columns, _CONTENT_WIDTH),
        _section(
            "Pools of CPUs",
            [pool_card(pool, _column_width(3)) for pool in relations.pools],
            3,
        ),
        _section(
            "CPUs that the kubelet gave one container alone, and others may use",
            [conflict_card(conflict, _column_width(3)) for conflict in relations.conflicts],
            3,
        ),
        _section(
            "Pods with a broken network",
            [
                broken_card(number, pod, _column_width(3))
                for number, pod in enumerate(picture.pods, 1)
                if pod.faults
            ],
            3,
        ),
        _section(
            "Crossing NUMA nodes",
            [
                crossing_card(number, found, picture, _column_width(3))
                for number in numbers
                if (found := relations.crossings_of(number))
            ],
            3,
        ),
        _section(
            "Cores that a pod shares with others",
            [
                split_card(core, number, _column_width(5))
                for number, core in enumerate(relations.split_cores)
            ],
            5,
        ),
        _section(
            "Pods with CPUs (by the kubelet) or devices of their own",
            [cards.card(number, _column_width(4)) for number in notable],
            4,
        ),
        _section("Other pods", [cards.card(number, _column_width(4)) for number in others], 4),
    ]
    page = moved(stacked(blocks, 16), _MARGIN, _MARGIN)
    return Scene(
        width=_CONTENT_WIDTH + 2 * _MARGIN,
        height=page.height + 2 * _MARGIN,
        title=f"Node {shown(picture.node_name)}",
        boxes=page.boxes,
        labels=page.labels,
    )


def _column_width(columns: int) -> float:
    return (_CONTENT_WIDTH + GAP) / columns - GAP


def _header(picture: NodePicture, relations: Relations) -> Block:
    cores = {cpu.siblings or (cpu.id,) for cpu in picture.cpus}
    nodes = {cpu.numa_node for cpu in picture.cpus if cpu.numa_node is not None}
    crossing = len({one.pod for one in relations.crossings})
    words = [
        f"Linux {shown(picture.kernel)}",
        f"{counted(len(picture.cpus), 'CPU')} on {counted(len(cores), 'core')}",
        counted(len(nodes), "NUMA node"),
        f"{counted(len(picture.pods), 'pod')}, {crossing} crossing NUMA nodes",
    ]
    if picture.observed_at is not None:
        words.append(rfc3339(picture.observed_at.replace(microsecond=0)))
    title = fitted(f"Node {shown(picture.node_name)}", _CONTENT_WIDTH, 20)
    said = fitted(", ".join(words), _CONTENT_WIDTH, 12)
    return Block((), (Label(0, 18, title, 20, "strong"), Label(0, 38, said, 12)), 42)


def _legend() -> Block:
    boxes = []
    for kind, text in _LEGEND:
        label = Label(8, 15, text)
        boxes.append(Box(0, 0, width_of(text) + 16, 22, f"legend {kind}", (label,)))
    return flowing(boxes, _CONTENT_WIDTH)


def _problem(sentence: str) -> Block:
    return card("missing", (("warn", f"not known: {shown(sentence)}"),), _CONTENT_WIDTH)


def _section(title: str, blocks: Sequence[Block], columns: int) -> Block:
    """The blocks below their title and number; nothing without blocks."""
    if not blocks:
        return Block((), (), 0)
    heading = Block((), (Label(0, 14, f"{title} ({len(blocks)})", 14, "strong"),), 18)
    return stacked([heading, in_columns(blocks, columns, _CONTENT_WIDTH)], 6)
