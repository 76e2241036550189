"""VRRP version 2 and 3 as pure machines: packets in, time in, commands out; no socket, no clock."""
