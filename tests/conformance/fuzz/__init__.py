"""The differential fuzzer: random command sequences through the real ipvsadm and through ours.

``commands`` makes the sequences from a seed, ``guest`` asks the real program on the real
IPVS, ``replay`` asks ours, ``recording`` keeps the real answers (recording.xz), ``record``
makes that file and explores other seeds.
"""
