"""Counters of /proc/net/dev (proc_pid_net(5), dev_seq_show in the kernel's net/core/net-procfs.c).

Real line, after two lines of headings:

      eth0:    516       6    0    0    0     0          0         0      266       3    0 …

The columns are bytes, packets, errs, drop, fifo, frame, compressed, multicast of what is received,
then bytes, packets, errs, drop, fifo, colls, carrier, compressed of what is sent.
"""

from __future__ import annotations

from netutil.agent.parsers.rtnetlink import Counters

_HEADINGS, _COLUMNS = 2, 16


def parse_net_dev(text: bytes) -> dict[str, Counters]:
    """Return the counters of each link by its name.

    `rx_dropped` is the column "drop": rx_dropped and rx_missed_errors of struct rtnl_link_stats64
    together. Raises ValueError for text of another form.
    """
    found = {}
    for line in text.splitlines()[_HEADINGS:]:
        name, _, columns = line.partition(b":")
        received = columns.split()
        if len(received) != _COLUMNS:
            raise ValueError(f"{len(received)} columns where {_COLUMNS} are expected")
        rx_bytes, rx_packets, rx_errors, rx_dropped = map(int, received[:4])
        tx_bytes, tx_packets, tx_errors, tx_dropped = map(int, received[8:12])
        found[name.strip().decode(errors="replace")] = Counters(
            rx_packets,
            tx_packets,
            rx_bytes,
            tx_bytes,
            rx_errors,
            tx_errors,
            rx_dropped,
            tx_dropped,
        )
    return found
