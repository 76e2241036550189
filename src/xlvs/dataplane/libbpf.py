"""The system's libbpf, through ctypes: just the calls that xlvs makes.

No Python wrapper of libbpf on the registry is kept well enough to stand on, and
the calls are few. File descriptors are plain integers owned by the caller unless a
class says otherwise. Errors are :class:`BpfError` with the errno.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
from collections.abc import Iterator
from functools import cache
from types import TracebackType

from xlvs.errors import XlvsError

BPF_ANY, BPF_NOEXIST, BPF_EXIST = 0, 1, 2
BPF_XDP = 37  # enum bpf_attach_type in linux/bpf.h
XDP_FLAGS_SKB_MODE, XDP_FLAGS_DRV_MODE = 1 << 1, 1 << 2
BPF_TC_INGRESS, BPF_TC_EGRESS = 1, 2
BPF_F_TEST_XDP_LIVE_FRAMES = 1 << 1

_EVENT = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)
_PRINT = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)
_messages: list[str] = []


class BpfError(XlvsError):
    """A BPF system call or libbpf call failed; ``errno`` says why."""

    def __init__(self, what: str, number: int, detail: str = "") -> None:
        text = f"{what}: {os.strerror(number)}"
        super().__init__(f"{text}\n{detail}" if detail else text)
        self.errno = number


class _TestRunOpts(ctypes.Structure):
    _fields_ = (
        ("sz", ctypes.c_size_t),
        ("data_in", ctypes.c_void_p),
        ("data_out", ctypes.c_void_p),
        ("data_size_in", ctypes.c_uint32),
        ("data_size_out", ctypes.c_uint32),
        ("ctx_in", ctypes.c_void_p),
        ("ctx_out", ctypes.c_void_p),
        ("ctx_size_in", ctypes.c_uint32),
        ("ctx_size_out", ctypes.c_uint32),
        ("retval", ctypes.c_uint32),
        ("repeat", ctypes.c_int),
        ("duration", ctypes.c_uint32),
        ("flags", ctypes.c_uint32),
        ("cpu", ctypes.c_uint32),
        ("batch_size", ctypes.c_uint32),
    )


class _LinkCreateOpts(ctypes.Structure):
    # sz, flags, then a union that XDP links do not use.
    _fields_ = (("sz", ctypes.c_size_t), ("flags", ctypes.c_uint32))


class _TcHook(ctypes.Structure):
    _fields_ = (
        ("sz", ctypes.c_size_t),
        ("ifindex", ctypes.c_int),
        ("attach_point", ctypes.c_int),
        ("parent", ctypes.c_uint32),
    )


class _TcOpts(ctypes.Structure):
    _fields_ = (
        ("sz", ctypes.c_size_t),
        ("prog_fd", ctypes.c_int),
        ("flags", ctypes.c_uint32),
        ("prog_id", ctypes.c_uint32),
        ("handle", ctypes.c_uint32),
        ("priority", ctypes.c_uint32),
    )


class _LinkInfo(ctypes.Structure):
    # struct bpf_link_info for XDP links (linux/bpf.h).
    _fields_ = (
        ("type", ctypes.c_uint32),
        ("id", ctypes.c_uint32),
        ("prog_id", ctypes.c_uint32),
        ("pad", ctypes.c_uint32),
        ("ifindex", ctypes.c_uint32),
        ("rest", ctypes.c_uint8 * 64),
    )


class _CgroupLinkInfo(ctypes.Structure):
    # struct bpf_link_info for cgroup links (linux/bpf.h).
    _fields_ = (
        ("type", ctypes.c_uint32),
        ("id", ctypes.c_uint32),
        ("prog_id", ctypes.c_uint32),
        ("pad", ctypes.c_uint32),
        ("cgroup_id", ctypes.c_uint64),
        ("rest", ctypes.c_uint8 * 64),
    )


class _MapInfo(ctypes.Structure):
    # The head of struct bpf_map_info (linux/bpf.h).
    _fields_ = (
        ("type", ctypes.c_uint32),
        ("id", ctypes.c_uint32),
        ("key_size", ctypes.c_uint32),
        ("value_size", ctypes.c_uint32),
        ("max_entries", ctypes.c_uint32),
        ("map_flags", ctypes.c_uint32),
        ("rest", ctypes.c_uint8 * 128),
    )


class _ProgInfo(ctypes.Structure):
    # The head of struct bpf_prog_info up to verified_insns (linux/bpf.h).
    _fields_ = (
        ("type", ctypes.c_uint32),
        ("id", ctypes.c_uint32),
        ("tag", ctypes.c_uint8 * 8),
        ("jited_prog_len", ctypes.c_uint32),
        ("xlated_prog_len", ctypes.c_uint32),
        ("jited_prog_insns", ctypes.c_uint64),
        ("xlated_prog_insns", ctypes.c_uint64),
        ("load_time", ctypes.c_uint64),
        ("created_by_uid", ctypes.c_uint32),
        ("nr_map_ids", ctypes.c_uint32),
        ("map_ids", ctypes.c_uint64),
        ("name", ctypes.c_char * 16),
        ("ifindex", ctypes.c_uint32),
        ("gpl_compatible", ctypes.c_uint32),
        ("netns", ctypes.c_uint64 * 2),
        ("nr_jited", ctypes.c_uint32 * 2),
        ("jited", ctypes.c_uint64 * 2),
        ("btf_id", ctypes.c_uint32),
        ("func_info_rec_size", ctypes.c_uint32),
        ("func_info", ctypes.c_uint64),
        ("nr_func_info", ctypes.c_uint32),
        ("nr_line_info", ctypes.c_uint32),
        ("line_info", ctypes.c_uint64),
        ("jited_line_info", ctypes.c_uint64),
        ("nr_jited_line_info", ctypes.c_uint32),
        ("line_info_rec_size", ctypes.c_uint32),
        ("jited_line_info_rec_size", ctypes.c_uint32),
        ("nr_prog_tags", ctypes.c_uint32),
        ("prog_tags", ctypes.c_uint64),
        ("run_time_ns", ctypes.c_uint64),
        ("run_cnt", ctypes.c_uint64),
        ("recursion_misses", ctypes.c_uint64),
        ("verified_insns", ctypes.c_uint32),
        ("rest", ctypes.c_uint8 * 28),
    )


@cache
def lib() -> ctypes.CDLL:
    """Load libbpf once, and keep its warnings for error messages instead of stderr."""
    try:
        loaded = ctypes.CDLL("libbpf.so.1", use_errno=True)
    except OSError as error:
        raise XlvsError("libbpf is missing: install the package libbpf1") from error
    for name in ("bpf_object__open_file", "bpf_object__find_map_by_name", "bpf_object__find_program_by_name",
                 "bpf_object__next_program", "bpf_object__next_map", "bpf_map__initial_value",
                 "ring_buffer__new"):  # fmt: skip
        getattr(loaded, name).restype = ctypes.c_void_p
    for name in ("bpf_program__name", "bpf_map__name"):
        getattr(loaded, name).restype = ctypes.c_char_p
    loaded.libbpf_set_print.restype = ctypes.c_void_p
    loaded.libbpf_set_print(_keep_message)
    return loaded


_libc = ctypes.CDLL(None)
_libc.vsnprintf.argtypes = [ctypes.c_char_p, ctypes.c_size_t, ctypes.c_char_p, ctypes.c_void_p]


def _print(level: int, form: bytes, arguments: int) -> int:
    if level == 0:  # LIBBPF_WARN
        text = ctypes.create_string_buffer(1 << 22)
        _libc.vsnprintf(text, len(text), form, arguments)
        _messages.append(text.value.decode(errors="replace"))
    return 0


_keep_message = _PRINT(_print)


def checked(result: int, what: str) -> int:
    """A result that is no error; BpfError with ``what`` for one that is."""
    if result < 0:
        number = ctypes.get_errno() if result == -1 else -result
        raise BpfError(what, number)
    return result


class BpfObject:
    """One compiled object file: open, adjust maps, load, then take what is needed.

    Closing drops the file descriptors; what was pinned or attached lives on.
    """

    def __init__(self, path: str) -> None:
        _messages.clear()
        self._path = path
        self._handle = lib().bpf_object__open_file(path.encode(), None)
        if not self._handle:
            raise BpfError(f"cannot open {path}", ctypes.get_errno(), "".join(_messages))

    def __enter__(self) -> BpfObject:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Drop the object and its file descriptors."""
        if self._handle:
            lib().bpf_object__close(ctypes.c_void_p(self._handle))
            self._handle = None

    def _map(self, name: str) -> ctypes.c_void_p:
        found = lib().bpf_object__find_map_by_name(ctypes.c_void_p(self._handle), name.encode())
        if not found:
            raise BpfError(f"{self._path} has no map {name}", errno.ENOENT)
        return ctypes.c_void_p(found)

    def set_max_entries(self, name: str, entries: int) -> None:
        """Size a map before loading."""
        checked(lib().bpf_map__set_max_entries(self._map(name), entries), f"sizing map {name}")

    def skip_program(self, name: str) -> None:
        """Do not load this program."""
        found = lib().bpf_object__find_program_by_name(ctypes.c_void_p(self._handle), name.encode())
        checked(lib().bpf_program__set_autoload(ctypes.c_void_p(found), False), f"skipping {name}")

    def skip_map(self, name: str) -> None:
        """Do not create this map."""
        checked(lib().bpf_map__set_autocreate(self._map(name), False), f"skipping map {name}")

    def reuse_map(self, name: str, fd: int) -> None:
        """Take an existing map in place of the one the object would create."""
        checked(lib().bpf_map__reuse_fd(self._map(name), fd), f"reusing map {name}")

    def set_constants(self, section: str, values: bytes, offset: int = 0) -> None:
        """Overwrite part of a read-only data section (``.rodata``) before loading."""
        size = ctypes.c_size_t()
        address = lib().bpf_map__initial_value(self._map(section), ctypes.byref(size))
        if not address or offset + len(values) > size.value:
            raise BpfError(f"{self._path}: section {section} is too small", errno.EINVAL)
        ctypes.memmove(address + offset, values, len(values))

    def load(self) -> None:
        """Create the maps that are not reused and have the kernel verify the programs."""
        _messages.clear()
        result = lib().bpf_object__load(ctypes.c_void_p(self._handle))
        if result < 0:
            raise BpfError(
                f"the kernel refused {os.path.basename(self._path)}", -result, "".join(_messages)[-4000:]
            )

    def map_fd(self, name: str) -> int:
        """The file descriptor of a map; it lives as long as this object."""
        return checked(lib().bpf_map__fd(self._map(name)), f"map {name}")

    def program_fd(self, name: str) -> int:
        """The file descriptor of a program; it lives as long as this object."""
        found = lib().bpf_object__find_program_by_name(ctypes.c_void_p(self._handle), name.encode())
        if not found:
            raise BpfError(f"{self._path} has no program {name}", errno.ENOENT)
        return checked(lib().bpf_program__fd(ctypes.c_void_p(found)), f"program {name}")

    def programs(self) -> Iterator[str]:
        """The names of the programs in the object."""
        program = lib().bpf_object__next_program(ctypes.c_void_p(self._handle), None)
        while program:
            yield lib().bpf_program__name(ctypes.c_void_p(program)).decode()
            program = lib().bpf_object__next_program(ctypes.c_void_p(self._handle), ctypes.c_void_p(program))

    def maps(self) -> Iterator[str]:
        """The names of the maps in the object."""
        entry = lib().bpf_object__next_map(ctypes.c_void_p(self._handle), None)
        while entry:
            yield lib().bpf_map__name(ctypes.c_void_p(entry)).decode()
            entry = lib().bpf_object__next_map(ctypes.c_void_p(self._handle), ctypes.c_void_p(entry))


def pin(fd: int, path: str) -> None:
    """Give a map, program or link a name in a bpffs."""
    checked(lib().bpf_obj_pin(fd, path.encode()), f"pinning {path}")


def get_pinned(path: str) -> int:
    """Open what is pinned at ``path``; BpfError with ENOENT where nothing is."""
    return checked(lib().bpf_obj_get(path.encode()), f"opening {path}")


def lookup(map_fd: int, key: bytes, value_size: int) -> bytes | None:
    """One value of a map, or None."""
    value = ctypes.create_string_buffer(value_size)
    result = lib().bpf_map_lookup_elem(map_fd, key, value)
    if result in (-errno.ENOENT, -1) and (result != -1 or ctypes.get_errno() == errno.ENOENT):
        return None
    checked(result, "map lookup")
    return value.raw


def update(map_fd: int, key: bytes, value: bytes, flags: int = BPF_ANY) -> None:
    """Set one value of a map."""
    checked(lib().bpf_map_update_elem(map_fd, key, value, ctypes.c_uint64(flags)), "map update")


def delete(map_fd: int, key: bytes) -> bool:
    """Remove a key from a map; False where it was not there."""
    result = lib().bpf_map_delete_elem(map_fd, key)
    if result == -errno.ENOENT:
        return False
    checked(result, "map delete")
    return True


def keys(map_fd: int, key_size: int) -> Iterator[bytes]:
    """Walk the keys of a map. Keys added meanwhile may or may not be seen."""
    following = ctypes.create_string_buffer(key_size)
    current: bytes | None = None
    while lib().bpf_map_get_next_key(map_fd, current, following) == 0:
        current = following.raw
        yield current


def map_info(map_fd: int) -> tuple[int, int, int]:
    """Key size, value size and number of entries of a map."""
    info = _MapInfo()
    _object_info(map_fd, info)
    return info.key_size, info.value_size, info.max_entries


def map_memory(map_fd: int) -> mmap.mmap:
    """Map the values of an mmapable array into memory, for reading and writing."""
    _, value_size, entries = map_info(map_fd)
    stride = (value_size + 7) & ~7  # array elements are rounded up to 8 bytes
    return mmap.mmap(map_fd, (stride * entries + mmap.PAGESIZE - 1) & ~(mmap.PAGESIZE - 1))


def program_info(program_fd: int) -> tuple[int, int]:
    """A program's id, and how many instructions the verifier walked."""
    info = _ProgInfo()
    _object_info(program_fd, info)
    return info.id, info.verified_insns


def link_target(link_fd: int) -> tuple[int, int]:
    """The ifindex an XDP link is attached to (0 when its device is gone), and its program's id."""
    info = _LinkInfo()
    _object_info(link_fd, info)
    return info.ifindex, info.prog_id


def _object_info(fd: int, info: ctypes.Structure) -> None:
    size = ctypes.c_uint32(ctypes.sizeof(info))
    checked(lib().bpf_obj_get_info_by_fd(fd, ctypes.byref(info), ctypes.byref(size)), "object info")


def attach_xdp(program_fd: int, ifindex: int, flags: int) -> int:
    """Attach an XDP program with a bpf_link and return the link's file descriptor."""
    options = _LinkCreateOpts(sz=ctypes.sizeof(_LinkCreateOpts), flags=flags)
    result = lib().bpf_link_create(program_fd, ifindex, BPF_XDP, ctypes.byref(options))
    return checked(result, f"attaching XDP to interface {ifindex}")


def attach_cgroup(program_fd: int, cgroup_fd: int, attach_type: int) -> int:
    """Attach a program to a cgroup with a bpf_link, beside what is there; returns the link's descriptor.

    ``attach_type`` is one of enum bpf_attach_type (linux/bpf.h).
    """
    result = lib().bpf_link_create(program_fd, cgroup_fd, attach_type, None)
    return checked(result, "attaching to a cgroup")


def link_cgroup(link_fd: int) -> int:
    """The id of the cgroup that a link is attached to; 0 when that was removed."""
    info = _CgroupLinkInfo()
    _object_info(link_fd, info)
    return int(info.cgroup_id)


def update_link(link_fd: int, program_fd: int) -> None:
    """Replace the program behind a link between two packets."""
    checked(lib().bpf_link_update(link_fd, program_fd, None), "replacing an attached program")


def detach_link(link_fd: int) -> None:
    """Take a link off its device; what is pinned of it leads nowhere afterwards."""
    checked(lib().bpf_link_detach(link_fd), "detaching a link")


def attach_tc(program_fd: int, ifindex: int, ingress: bool, priority: int) -> bool:
    """Attach (or replace) a direct-action tc filter; True if it had to make the clsact qdisc."""
    hook = _TcHook(
        sz=ctypes.sizeof(_TcHook), ifindex=ifindex, attach_point=BPF_TC_INGRESS if ingress else BPF_TC_EGRESS
    )
    _messages.clear()
    result = lib().bpf_tc_hook_create(ctypes.byref(hook))
    if result not in (0, -errno.EEXIST):
        checked(result, f"creating clsact on interface {ifindex}")
    options = _TcOpts(sz=ctypes.sizeof(_TcOpts), prog_fd=program_fd, flags=1, handle=1, priority=priority)
    checked(
        lib().bpf_tc_attach(ctypes.byref(hook), ctypes.byref(options)),
        f"attaching tc to interface {ifindex}",
    )
    return bool(result == 0)


def detach_tc(ifindex: int, ingress: bool, priority: int) -> None:
    """Remove our tc filter; nothing happens where there is none. The qdisc stays."""
    hook = _TcHook(
        sz=ctypes.sizeof(_TcHook), ifindex=ifindex, attach_point=BPF_TC_INGRESS if ingress else BPF_TC_EGRESS
    )
    options = _TcOpts(sz=ctypes.sizeof(_TcOpts), handle=1, priority=priority)
    result = lib().bpf_tc_detach(ctypes.byref(hook), ctypes.byref(options))
    if result not in (0, -errno.ENOENT, -errno.EINVAL, -errno.ENODEV):
        checked(result, f"detaching tc from interface {ifindex}")


def destroy_clsact(ifindex: int) -> None:
    """Remove the clsact qdisc and every filter in it."""
    hook = _TcHook(sz=ctypes.sizeof(_TcHook), ifindex=ifindex, attach_point=BPF_TC_INGRESS | BPF_TC_EGRESS)
    lib().bpf_tc_hook_destroy(ctypes.byref(hook))


class RingBuffer:
    """The reading end of a ring buffer map, which must stay open as long as this."""

    def __init__(self, map_fd: int) -> None:
        self._found: list[bytes] = []
        self._callback = _EVENT(self._keep)  # kept alive: the kernel side calls it
        self._handle = lib().ring_buffer__new(map_fd, self._callback, None, None)
        if not self._handle:
            raise BpfError("opening a ring buffer", ctypes.get_errno())

    def _keep(self, _: int, data: int, size: int) -> int:
        self._found.append(ctypes.string_at(data, size))
        return 0

    def poll(self, seconds: float) -> list[bytes]:
        """All records there are, waiting that long for the first; a signal ends the wait."""
        result = lib().ring_buffer__poll(ctypes.c_void_p(self._handle), int(seconds * 1000))
        if result != -errno.EINTR:
            checked(result, "reading a ring buffer")
        found, self._found = self._found, []
        return found

    def close(self) -> None:
        """Stop reading; what is left stays for the next reader."""
        if self._handle:
            lib().ring_buffer__free(ctypes.c_void_p(self._handle))
            self._handle = None


def test_run(
    program_fd: int,
    packet: bytes,
    repeat: int = 1,
    context: bytes | None = None,
    live_frames: bool = False,
    batch: int = 0,
) -> tuple[int, bytes, int]:
    """BPF_PROG_TEST_RUN: the program's return value, the packet after it, mean ns a run.

    With ``live_frames`` the packets really leave by the program's verdict, and
    neither packet nor time come back (0 each).
    """
    options = _TestRunOpts(sz=ctypes.sizeof(_TestRunOpts), data_size_in=len(packet), repeat=repeat)
    options.data_in = ctypes.cast(ctypes.c_char_p(packet), ctypes.c_void_p)
    out = ctypes.create_string_buffer(len(packet) + 512)
    if live_frames:
        options.flags = BPF_F_TEST_XDP_LIVE_FRAMES
        options.batch_size = batch
    else:
        options.data_out = ctypes.cast(out, ctypes.c_void_p)
        options.data_size_out = len(out)
    if context is not None:
        options.ctx_in = ctypes.cast(ctypes.c_char_p(context), ctypes.c_void_p)
        options.ctx_size_in = len(context)
    checked(lib().bpf_prog_test_run_opts(program_fd, ctypes.byref(options)), "test run")
    return options.retval, out.raw[: options.data_size_out], options.duration
