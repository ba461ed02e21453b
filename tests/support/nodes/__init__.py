"""Nodes: directory trees like /sys, and labs with a running agent."""
