"""What a pod has used up stays used up, however many others come."""

from __future__ import annotations

from netutil.agent.service import rates
from netutil.agent.service.rates import Rates


def test_nobody_gets_tokens_back_by_making_others_forgotten() -> None:
    now = 0.0
    buckets = Rates(1, 3, lambda: now)
    for _ in range(3):
        assert buckets.take("hostile") == 0
    for number in range(2 * rates._MOST_PODS):
        buckets.take(f"other {number}")
    assert len(buckets) <= rates._MOST_PODS + 1
    assert buckets.take("hostile") > 0
    now = 1.0
    assert buckets.take("hostile") == 0
    assert buckets.take("hostile") > 0
