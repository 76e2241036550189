"""Many keys of a map at a time: one system call for thousands."""

from __future__ import annotations

import ctypes
import errno

from xlvs.dataplane import libbpf


def update_all(map_fd: int, count: int, keys: bytes, values: bytes) -> None:
    """Set so many values of a map, in their order."""
    done = ctypes.c_uint32(count)
    result = libbpf.lib().bpf_map_update_batch(map_fd, keys, values, ctypes.byref(done), None)
    libbpf.checked(result, f"map update of {count} keys")


def delete_all(map_fd: int, count: int, keys: bytes) -> None:
    """Remove so many keys from a map, in their order; those that are not there do not matter."""
    size, at = len(keys) // count if count else 0, 0
    while at < count:
        done = ctypes.c_uint32(count - at)
        result = libbpf.lib().bpf_map_delete_batch(map_fd, keys[at * size :], ctypes.byref(done), None)
        if result != -errno.ENOENT:
            libbpf.checked(result, f"map delete of {count} keys")
        at += done.value + (result == -errno.ENOENT)


def entries(map_fd: int, key_size: int, value_size: int, chunk: int = 1 << 14) -> tuple[bytes, bytes]:
    """All keys of a map that nobody changes meanwhile, and their values, one behind the other."""
    every: tuple[list[bytes], list[bytes]] = [], []
    keys, values = (ctypes.create_string_buffer(chunk * size) for size in (key_size, value_size))
    place, following = ctypes.create_string_buffer(key_size), ctypes.create_string_buffer(key_size)
    began = False
    while True:
        count = ctypes.c_uint32(chunk)
        result = libbpf.lib().bpf_map_lookup_batch(
            map_fd, place if began else None, following, keys, values, ctypes.byref(count), None
        )
        if result != -errno.ENOENT:
            libbpf.checked(result, "map lookup of all keys")
        every[0].append(keys.raw[: count.value * key_size])
        every[1].append(values.raw[: count.value * value_size])
        if result:
            return b"".join(every[0]), b"".join(every[1])
        place, following, began = following, place, True
