"""Lists of CPUs as an agent, or another process at its path, sends them."""

from __future__ import annotations

import pytest
from netutil.client import NetUtilError
from netutil.client.cpulist import parse_cpulist

from tests.support.answers.dpdk import facts, refusal_of


@pytest.mark.parametrize("text", ["0-99999999999", "8192", "3-1", "1_0", "-1", "1-", "x", "\uff11"])
def test_a_list_that_no_kernel_prints_is_a_value_error(text: str) -> None:
    with pytest.raises(ValueError, match=r"^"):
        parse_cpulist(text)


def test_a_line_from_a_malformed_cpu_list_is_the_agents_failure() -> None:
    answer = facts()
    answer.cpu.effective_cpus = "0-99999999999"
    refusal: NetUtilError = refusal_of(answer)
    assert (refusal.code, "99999999999" in str(refusal)) == ("INTERNAL", True)
