"""`python -m netutil.client` is the command `netutil`."""

from __future__ import annotations

import sys

from netutil.client.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
