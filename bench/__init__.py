"""Benchmarks: packets per second of whole directors, nanoseconds of single packets.

Not part of the installed package: they need the sources of their BPF programs, a
compiler and root. ``python -m bench`` runs them in namespaces of their own.
"""
