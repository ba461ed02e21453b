"""The shared parts of tests of several packages and of the benchmarks. It imports no test."""
