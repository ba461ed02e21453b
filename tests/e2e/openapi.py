"""The one generated file that the source package of Kubernetes lacks and kube-apiserver needs.

Made as `make generated_files` of Kubernetes makes it (build/root/Makefile.generated_files).
"""

from __future__ import annotations

import subprocess
from pathlib import Path

PACKAGE = "k8s.io/kubernetes"
_GENERATOR = "./vendor/k8s.io/kube-openapi/cmd/openapi-gen"
_OUTPUT = "pkg/generated/openapi"
_BOILERPLATE = "vendor/k8s.io/code-generator/hack/boilerplate.go.txt"
_TAG = b"// +k8s:openapi-gen="
_EXAMPLES = ("code-generator", "sample-apiserver")


def generate(source: Path, go: str, environment: dict[str, str]) -> None:
    """Write the file into the unpacked source; a matter of seconds."""
    generator = source / "_openapi-gen"  # Go ignores what begins with an underscore
    subprocess.run(
        [go, "build", "-o", str(generator), _GENERATOR], cwd=source, env=environment, check=True
    )
    inputs = ",".join(f"{PACKAGE}/{directory}" for directory in _tagged(source))
    subprocess.run(
        [
            *(str(generator), "--logtostderr", "--input-dirs", inputs),
            *("--output-package", f"{PACKAGE}/{_OUTPUT}"),
            *("--output-file-base", "zz_generated.openapi"),
            *("--go-header-file", str(source / _BOILERPLATE)),
            *("--report-filename", str(source / "_violations")),
        ],
        cwd=source,
        env=environment,
        check=True,
    )


def _tagged(source: Path) -> list[str]:
    """The directories of packages that ask for it. Those of vendor/k8s.io are links."""
    tops = [source / "pkg", *(source / "vendor/k8s.io").iterdir()]
    return sorted(
        {
            str(file.parent.relative_to(source))
            for top in tops
            if top.name not in _EXAMPLES
            for file in top.rglob("*.go")
            if any(line.startswith(_TAG) for line in file.read_bytes().splitlines())
        }
    )
