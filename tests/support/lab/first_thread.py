"""Runs a Python program whose first thread has ended before the program's first line runs.

`python first_thread.py PROGRAM ARGUMENT…`; `-m MODULE` for a module. The program runs in a second
thread, as the workers of a program do that calls pthread_exit(3) in main.
"""

from __future__ import annotations

import ctypes
import os
import runpy
import sys
import threading
import time
import traceback
from pathlib import Path


def first_thread_runs() -> bool:
    return Path("/proc/self/stat").read_text().rpartition(") ")[2][0] != "Z"


def run() -> None:
    code = 1
    try:
        while first_thread_runs():
            time.sleep(0.005)
        del sys.argv[0]
        if sys.argv[0] == "-m":
            del sys.argv[0]
            runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
        else:
            sys.path.insert(0, str(Path(sys.argv[0]).parent))
            runpy.run_path(sys.argv[0], run_name="__main__")
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except Exception:  # noqa: BLE001 - printed, and shown by the exit code
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)  # others, such as those of gRPC, may run


if __name__ == "__main__":
    threading.Thread(target=run).start()
    ctypes.CDLL(None).pthread_exit(None)
