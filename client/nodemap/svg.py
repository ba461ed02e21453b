"""The map as SVG. Pure; it contains its colours and fonts, and loads nothing."""

from __future__ import annotations

from collections.abc import Iterator
from xml.sax.saxutils import escape, quoteattr

from netutil.client.nodemap.scene import Box, Label, Scene

# The hues of Okabe and Ito, which people with any colour vision can distinguish; each meaning
# also has a text, a dash or a width of line.
STYLE = """\
svg{background:#fff;font-family:ui-monospace,"DejaVu Sans Mono",Menlo,Consolas,monospace}
text{fill:#1b1f24;white-space:pre}
text.strong{font-weight:bold}
text.muted,text.id{fill:#57606a}
text.warn{fill:#9a3b00;font-weight:bold}
text.device{fill:#00543d}
rect{fill:#fff;stroke:#8c959f;stroke-width:1}
.panel rect{fill:#f3f5f7}
.core rect{fill:#e3e7eb;stroke:#c3cad1}
.cpu text.user{font-weight:bold}
.own rect{fill:#0072b2;stroke:#004b75}
.own text{fill:#fff}
.shared rect{fill:#bfe3f7;stroke:#56b4e9}
.idle rect{fill:#fff;stroke:#c3cad1}
.offline rect{fill:#e3e7eb;stroke-dasharray:2 2}
.split rect{fill:#f6d9e8;stroke:#a8437c;stroke-width:2.5;stroke-dasharray:1 2}
.split text.muted{fill:#7c2456;font-weight:bold}
.splitting rect{fill:#f6d9e8;stroke:#a8437c;stroke-dasharray:1 2;stroke-width:2}
.device rect{fill:#fff;stroke:#009e73}
.function rect{fill:#c9ede1;stroke:#009e73}
.pool rect{fill:#e6f4fc;stroke:#56b4e9}
.spans rect{stroke-width:2.5}
.pod rect{fill:#fff}
.pod.own rect{fill:#e3f0f8;stroke:#0072b2;stroke-width:1.5}
.pod.own text{fill:#1b1f24}
.pod.own text.muted{fill:#57606a}
.pod.own text.device{fill:#00543d}
.crossing rect,.crosses rect{fill:#fff2e0;stroke:#d55e00;stroke-width:2;stroke-dasharray:6 3}
.far rect{stroke:#d55e00;stroke-width:2.5;stroke-dasharray:6 3}
.conflict rect{fill:#b3261e;stroke:#6d140f;stroke-width:2.5}
.conflict text,.conflict text.warn{fill:#fff}
.broken rect,.pod.broken rect{fill:#fdeceb;stroke:#b3261e;stroke-width:2.5}
@media (prefers-color-scheme:dark){
svg{background:#0d1117}
text{fill:#e6edf3}
text.muted,text.id{fill:#a3adb8}
text.warn{fill:#ffb066}
text.device{fill:#5fd3ae}
rect{fill:#0d1117;stroke:#6e7681}
.panel rect{fill:#161b22}
.core rect{fill:#262c34;stroke:#3d444d}
.own rect{fill:#0072b2;stroke:#56b4e9}
.own text{fill:#fff}
.shared rect{fill:#173a52;stroke:#3f87b5}
.idle rect{fill:#0d1117;stroke:#3d444d}
.offline rect{fill:#262c34}
.split rect,.splitting rect{fill:#43223a;stroke:#e08bb9}
.split text.muted{fill:#ffb3dc}
.device rect{fill:#0d1117;stroke:#009e73}
.function rect{fill:#0c3b2e;stroke:#00b886}
.pool rect{fill:#10273a;stroke:#56b4e9}
.pod rect{fill:#0d1117}
.pod.own rect{fill:#0b2236;stroke:#3f9bd4}
.pod.own text{fill:#e6edf3}
.pod.own text.muted{fill:#a3adb8}
.pod.own text.device{fill:#5fd3ae}
.crossing rect,.crosses rect{fill:#3a2208;stroke:#ff9d4d}
.far rect{stroke:#ff9d4d}
.conflict rect{fill:#b3261e;stroke:#ff8a80}
.conflict text,.conflict text.warn{fill:#fff}
.broken rect,.pod.broken rect{fill:#3b1212;stroke:#ff8a80}
}
"""


def svg(scene: Scene) -> str:
    """A document of its own, which a page can contain as well."""
    width, height = _number(scene.width), _number(scene.height)
    size = f'width="{width}" height="{height}" viewBox="0 0 {width} {height}"'
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img">',
        f"<title>{escape(scene.title)}</title>",
        f"<style>{STYLE}</style>",
        *map(_text, scene.labels),
        *(line for box in scene.boxes for line in _box(box)),
        "</svg>",
    ]
    return "".join(f"{line}\n" for line in lines)


def _box(box: Box) -> Iterator[str]:
    keys = f" data-keys={quoteattr(' '.join(box.keys))}" if box.keys else ""
    name = f" data-name={quoteattr(box.name)}" if box.name else ""
    yield f"<g class={quoteattr(box.kind)}{keys}{name}>"
    if box.title:
        yield f"<title>{escape(box.title)}</title>"
    yield (
        f'<rect x="{_number(box.x)}" y="{_number(box.y)}" width="{_number(box.width)}"'
        f' height="{_number(box.height)}" rx="3"/>'
    )
    yield from map(_text, box.labels)
    yield "</g>"


def _text(label: Label) -> str:
    return (
        f'<text class={quoteattr(label.kind)} x="{_number(label.x)}" y="{_number(label.y)}"'
        f' font-size="{_number(label.size)}">{escape(label.text)}</text>'
    )


def _number(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")
