"""Choices of every scheduler: the real IPVS's, recorded in the guest, and the data plane's.

``python -m tests.conformance.schedulers.record`` records anew.
"""
