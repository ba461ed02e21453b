"""How the driver's main thread hears that it is to end."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable

import pytest
from netutil.agent.csi import driver


def _to_the_process() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def _to_another_thread() -> None:
    """The main thread's own wait is then not interrupted, as when the signal comes just before."""
    signal.pthread_kill(threading.get_ident(), signal.SIGTERM)


@pytest.mark.parametrize("send", [_to_the_process, _to_another_thread])
def test_a_signal_ends_the_wait_whichever_thread_gets_it(send: Callable[[], None]) -> None:
    def later() -> None:
        time.sleep(0.05)
        send()

    with driver._ending() as ending:
        thread = threading.Thread(target=later)
        thread.start()
        assert ending.wait() == 0
        thread.join()


def test_a_signal_before_the_wait_is_not_lost() -> None:
    with driver._ending() as ending:
        _to_the_process()
        assert ending.wait() == 0


def test_a_thread_ends_the_wait_with_its_code() -> None:
    with driver._ending() as ending:
        threading.Timer(0.05, ending.end, [1]).start()
        assert ending.wait() == 1
        ending.end(1)  # again, after the end


def test_the_handlers_are_as_before_after_it() -> None:
    before = [signal.getsignal(one) for one in (signal.SIGTERM, signal.SIGINT)]
    with driver._ending():
        pass
    assert [signal.getsignal(one) for one in (signal.SIGTERM, signal.SIGINT)] == before
