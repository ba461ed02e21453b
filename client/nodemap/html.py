"""The map as a page: the SVG, a filter by name, and highlighting of shared objects. Pure.

Content-Security-Policy allows its own script and style by hash, and nothing else.
"""

from __future__ import annotations

import base64
import hashlib
from xml.sax.saxutils import escape

from netutil.client.nodemap.scene import Scene
from netutil.client.nodemap.svg import STYLE, svg

_PAGE_STYLE = """\
:root{color-scheme:light dark}
body{margin:0;background:#fff;color:#1b1f24;font:14px system-ui,sans-serif}
form{position:sticky;top:0;padding:8px 20px;background:#f3f5f7;border-bottom:1px solid #8c959f}
input{font:inherit;padding:3px 6px;width:22em}
output{margin-left:1em}
main{overflow-x:auto}
.dim{opacity:.25}
.lit>rect{stroke-width:3.5}
@media (prefers-color-scheme:dark){
body{background:#0d1117;color:#e6edf3}
form{background:#161b22;border-color:#6e7681}
}
"""
# A thing belongs to another if they have a key in common; what is of the same pod is lit,
# what is shared with it stays as it is, and the rest is dimmed.
_SCRIPT = """\
"use strict";
const things = [...document.querySelectorAll("g[data-keys]")].map(
  element => ({element, keys: new Set(element.dataset.keys.split(" "))}));
const pods = things.filter(thing => thing.element.dataset.name !== undefined);
const byElement = new Map(things.map(thing => [thing.element, thing]));
const field = document.querySelector("input");
const said = document.querySelector("output");
let wanted = null;

function show(pointed) {
  const own = pointed && [...pointed.keys].filter(key => key.startsWith("p"));
  for (const thing of things) {
    const shares = key => thing.keys.has(key);
    const together = pointed ? [...pointed.keys].some(shares)
      : !wanted || [...wanted].some(shares);
    thing.element.classList.toggle("dim", !together);
    thing.element.classList.toggle("lit",
      Boolean(pointed) && (thing === pointed || own.some(shares)));
  }
}

function filter() {
  const text = field.value.trim().toLowerCase();
  const found = pods.filter(pod => pod.element.dataset.name.toLowerCase().includes(text));
  wanted = text ? new Set(found.map(
    pod => [...pod.keys].find(key => key.startsWith("p")))) : null;
  said.textContent = `${found.length} of ${pods.length} pods`;
  show(null);
}

const thingOf = target => byElement.get(target.closest && target.closest("g[data-keys]")) || null;
document.addEventListener("pointerover", event => show(thingOf(event.target)));
document.addEventListener("focusin", event => show(thingOf(event.target)));
for (const pod of pods) pod.element.setAttribute("tabindex", "0");
field.addEventListener("input", filter);
document.querySelector("form").addEventListener("submit", event => event.preventDefault());
filter();
"""


def html(scene: Scene) -> str:
    """One self-contained file."""
    policy = (
        f"default-src 'none'; script-src {_hash(_SCRIPT)};"
        f" style-src {_hash(_PAGE_STYLE)} {_hash(STYLE)};"
        " base-uri 'none'; form-action 'none'"
    )
    return f"""\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="referrer" content="no-referrer">
<title>{escape(scene.title)}</title>
<style>{_PAGE_STYLE}</style>
</head>
<body>
<form><label>Pods named <input type="search" autocomplete="off"></label><output></output></form>
<main>
{svg(scene)}</main>
<script>{_SCRIPT}</script>
</body>
</html>
"""


def _hash(text: str) -> str:
    """The source expression of an inline text (Content Security Policy Level 3, 2.3.1)."""
    digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode("ascii")
    return f"'sha256-{digest}'"
