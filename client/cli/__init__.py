"""The command `netutil`."""
