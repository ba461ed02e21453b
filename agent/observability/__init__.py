"""Metrics, audit log, logging, probes, and the state of the process."""
