"""SCTP's states: what real IPVS makes of every chunk in every state, and that xlvs makes the same.

recording.json was made by ``python -m tests.conformance.sctp.record`` in the guest.
"""
