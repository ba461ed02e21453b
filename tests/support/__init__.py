"""The shared parts of the tests of several packages."""
