"""`make hostile`, the tests that measure, and the tests of what judges measurements."""
