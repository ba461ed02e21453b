"""Readers of facts about a process or a pod, from the kernel and from the kubelet's reports.

Each fact takes the handle it is read through (a descriptor, a directory); who
may ask for it is decided elsewhere.
"""
