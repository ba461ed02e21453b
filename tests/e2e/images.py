"""Images by hand, since no registry is reachable: docker archives of what Debian packages hold."""

from __future__ import annotations

import hashlib
import io
import json
import subprocess
import tarfile
import tempfile
from collections.abc import Sequence
from pathlib import Path

PAUSE_IMAGE = "netutil.test/pause:1"
CALLER_IMAGE = "netutil.test/caller:1"
_PAUSE = """\
#include <signal.h>
#include <unistd.h>
static void end(int number) { _exit(number == SIGTERM || number == SIGINT ? 0 : 1); }
int main(void) {
    signal(SIGTERM, end);
    signal(SIGINT, end);
    for (;;) pause();
}
"""


def pause_image() -> bytes:
    """An image with a static program that sleeps until a signal ends it."""
    return archive(PAUSE_IMAGE, layer({"pause": _compiled(_PAUSE)}), ["/pause"])


def caller_image() -> bytes:
    """An image with `caller.c` and nothing else."""
    program = _compiled(Path(__file__).with_name("caller.c").read_text(encoding="utf-8"))
    return archive(CALLER_IMAGE, layer({"caller": program}), ["/caller"])


def archive(
    name: str,
    content: bytes,
    entrypoint: Sequence[str],
    environment: Sequence[str] = ("PATH=/usr/bin:/bin",),
) -> bytes:
    """Return a docker archive of one layer, as `ctr images import` reads it."""
    digest = hashlib.sha256(content).hexdigest()
    config = json.dumps(
        {
            "architecture": "amd64",
            "os": "linux",
            "config": {"Entrypoint": list(entrypoint), "Env": list(environment)},
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}"]},
        }
    ).encode()
    config_name = f"{hashlib.sha256(config).hexdigest()}.json"
    manifest = [{"Config": config_name, "RepoTags": [name], "Layers": [f"{digest}.tar"]}]
    return layer(
        {
            config_name: config,
            f"{digest}.tar": content,
            "manifest.json": json.dumps(manifest).encode(),
        }
    )


def layer(files: dict[str, bytes]) -> bytes:
    """Return a tar of executable files."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for path, content in files.items():
            entry = tarfile.TarInfo(path)
            entry.size, entry.mode = len(content), 0o755
            tar.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


def _compiled(source: str) -> bytes:
    """Return a static program: its image needs no C library."""
    with tempfile.TemporaryDirectory(prefix="netutil-image-") as name:
        code, program = Path(name, "program.c"), Path(name, "program")
        code.write_text(source, encoding="ascii")
        compiler = ["gcc", "-static", "-Os", "-s", "-Wall", "-Wextra", "-Werror"]
        subprocess.run([*compiler, "-o", str(program), str(code)], check=True)
        return program.read_bytes()
