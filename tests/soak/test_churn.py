"""Containers that come, ask and go leave nothing behind. `make churn` has more of them."""

from __future__ import annotations

import pytest

from tests.soak.churn import Churn, grown
from tests.support.lab import Lab
from tests.support.lab.observing import needs_lab

pytestmark = [pytest.mark.root, needs_lab]
CONTAINERS, WARM_UP = 200, 4
HELD_FACTS = ("containers", "environments", "network_namespaces", "network_tokens", "pci_functions")


def counted_as(kind: str) -> str:
    return f'netutil_held_entries{{kind="{kind}"}}'


def test_nothing_is_held_of_containers_that_have_ended() -> None:
    with Lab() as lab:
        churn = Churn(lab)
        churn.pass_by(WARM_UP)
        churn.age()
        before = churn.settled()
        churn.pass_by(CONTAINERS)
        meanwhile = churn.settled()
        churn.age()
        after = churn.settled(before)
    assert churn.failures == []
    held = counted_as("cgroup_identities")
    assert (before.counts[held], meanwhile.counts[held] > 0) == (0, True)
    assert [before.counts[counted_as(kind)] for kind in HELD_FACTS] == [0] * len(HELD_FACTS)
    assert [one for one in grown(before, after) if not one.startswith("memory")] == []
