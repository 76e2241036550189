"""Executors of health checks: sockets and scripts under the machines of :mod:`xlvs.health`."""
