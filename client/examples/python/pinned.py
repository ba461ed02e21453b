"""Pin each worker of a process to one of the CPUs that the kubelet gave to its container alone.

python pinned.py        asks once, pins, and prints who runs where
"""

from __future__ import annotations

import os
import sys
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

from netutil.client import Client, NetUtilError


def own_cpus() -> list[int]:
    """Return the CPUs that the kubelet gave to this container alone, else those that it may use.

    Raises `NetUtilError`.
    """
    with Client() as agent:
        found = agent.cpu(topology=True)
    return list(found.exclusive_cpu_ids or ()) or sorted(os.sched_getaffinity(0))


def main() -> int:
    """Return the exit code."""
    try:
        cpus = own_cpus()
    except NetUtilError as error:
        print(f"{error.reason}: {error.message} {error.advice}", file=sys.stderr)
        return 1
    together = Barrier(len(cpus))

    def work(cpu: int) -> str:
        os.sched_setaffinity(0, {cpu})  # of this thread alone
        together.wait()
        return f"worker on CPU {cpu}"

    with ThreadPoolExecutor(len(cpus)) as workers:
        print(*workers.map(work, cpus), sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
