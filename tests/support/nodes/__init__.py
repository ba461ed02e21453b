"""Nodes: trees like /sys, labs with a running agent, and how to ask and to observe that agent."""
