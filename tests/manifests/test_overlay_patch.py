"""The patch that docs/install.md shows for settings that the chart has values for."""

from __future__ import annotations

import re

import kubernetes_validate
import pytest

from tests.manifests.chart import by_name, chart
from tests.support.documentation import text_of
from tests.support.manifests.documents import NODES, agent_of, one, settings_of
from tests.support.manifests.overlays import BASES, with_components

VALUES = (
    "updateStrategy.maxSurge=2",
    'affinity={"nodeAffinity":{"requiredDuringSchedulingIgnoredDuringExecution":{'
    '"nodeSelectorTerms":[{"matchExpressions":[{"key":"eks.amazonaws.com/compute-type",'
    '"operator":"NotIn","values":["fargate"]}]}]}}}',
    'extraEnv=[{"name":"NETUTIL_LOG_FORMAT","value":"json"}]',
)


def documented_patch() -> str:
    section = text_of("docs/install.md").partition("### An overlay of your own")[2]
    section = section.partition("\n### ")[0]
    (found,) = re.findall(r"^```yaml\n(patches:.*?)^```$", section, re.MULTILINE | re.DOTALL)
    return str(found)


@pytest.mark.parametrize("base", BASES)
def test_the_patch_sets_what_the_values_set(base: str) -> None:
    objects = with_components(base, patch=documented_patch())
    assert settings_of(agent_of(objects), NODES[0]).observability.log_format == "json"
    made = by_name(chart(*VALUES, f"hardened={str(base == 'hardened').lower()}"))
    patched = by_name(objects)
    # A merge puts the new variable before the others.
    for found in (made, patched):
        (agent,) = found["DaemonSet", "netutil-agent"]["spec"]["template"]["spec"]["containers"]
        agent["env"].sort(key=lambda variable: str(variable["name"]))
    assert patched == made


@pytest.mark.parametrize("base", BASES)
def test_the_patched_daemonset_is_valid(base: str) -> None:
    daemonset = one(with_components(base, patch=documented_patch()), "DaemonSet")
    assert kubernetes_validate.validate(daemonset, "1.33", strict=True) == "1.33"
