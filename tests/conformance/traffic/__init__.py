"""The same packets through real IPVS and through xlvs, and the same packets out.

scenarios.py says what is sent, world.py sends it frame by frame and collects what the
director sends, packets.py writes frames as lines of text, engines.py drives the two
directors. recording.json holds what the real IPVS did on Debian's 6.1 kernel, made by
``python -m tests.conformance.traffic.record``.
"""
