"""xlvs: the Linux Virtual Server on an eBPF/XDP data plane."""

__version__ = "0.1.0"
