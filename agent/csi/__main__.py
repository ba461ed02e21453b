"""The command `netutil-csi`."""

from __future__ import annotations

import logging
import os
import sys

from netutil.agent.csi import config as config_module
from netutil.agent.csi.errors import StartError
from netutil.agent.csi.startup import drop_privileges, prepare_mounts
from netutil.agent.observability.log_setup import set_up

_LOG = logging.getLogger(__name__)


def main() -> int:
    """Run the driver; exit 0 after SIGTERM, 1 if it cannot start or go on, 2 for a wrong flag."""
    config = config_module.parse(sys.argv[1:], os.environ)
    # gRPC's C core would write to standard error past the limits of the log.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    if config.check:
        from netutil.agent.csi.healthcheck import check  # noqa: PLC0415 - it imports grpc

        return check(config)
    set_up(config.log_level, config.log_format)
    try:
        prepare_mounts(config.source, config.pods)
        drop_privileges()
        from netutil.agent.csi.driver import run  # noqa: PLC0415 - not before: it imports grpc

        return run(config)
    except StartError as error:
        _LOG.error("csi: %s", error)
        return 1


if __name__ == "__main__":
    sys.exit(main())
