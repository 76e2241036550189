"""The single steps that make a Linux machine a real server, each of which can be undone.

A step knows how things were before it (:meth:`Step.before`, a word that survives in
the state file), does its work, tells whether it still holds, and gives back what was.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

from xlvs.realserver import decap, system


class Step(ABC):
    """One change to the machine."""

    kind: ClassVar[str]

    @property
    @abstractmethod
    def identity(self) -> str:
        """What the step changes: two steps of one identity are the same change, renewed."""

    @abstractmethod
    def commands(self) -> list[list[str]]:
        """The plain commands that do the same."""

    @abstractmethod
    def before(self) -> str:
        """How it is now, in a word that :meth:`revert` understands."""

    @abstractmethod
    def holds(self) -> bool:
        """Whether things are as the step wants them."""

    @abstractmethod
    def apply(self) -> None:
        """Do it."""

    @abstractmethod
    def revert(self, before: str) -> None:
        """Make it as it was; a value that somebody else changed since then is left alone."""


@dataclass(frozen=True)
class Sysctl(Step):
    """A kernel setting."""

    kind = "sysctl"
    name: str
    value: str

    @property
    def identity(self) -> str:
        return f"sysctl {self.name}"

    def commands(self) -> list[list[str]]:
        return [["sysctl", "-w", f"{self.name}={self.value}"]]

    def before(self) -> str:
        return system.read_sysctl(self.name) or ""

    def holds(self) -> bool:
        return system.read_sysctl(self.name) == self.value

    def apply(self) -> None:
        system.write_sysctl(self.name, self.value)

    def revert(self, before: str) -> None:
        # Nothing before: the setting came with a device that the preparation brought (tunl0).
        earlier = before or system.read_sysctl(self.name.replace(".tunl0.", ".default."))
        if earlier and self.holds():
            system.write_sysctl(self.name, earlier)


@dataclass(frozen=True)
class VipAddress(Step):
    """A VIP on ``lo`` or on a tunnel device: the machine takes packets for it, silently."""

    kind = "address"
    address: str
    device: str = "lo"

    @property
    def identity(self) -> str:
        return f"address {self.address} on {self.device}"

    @property
    def _prefixed(self) -> str:
        return f"{self.address}/{128 if ':' in self.address else 32}"

    def commands(self) -> list[list[str]]:
        # No duplicate address detection: every real server has this address, on purpose.
        options = ["nodad"] if ":" in self.address else []
        return [["ip", "address", "add", self._prefixed, "dev", self.device, *options]]

    def before(self) -> str:
        return "present" if self.holds() else "absent"

    def holds(self) -> bool:
        return self._prefixed in system.addresses().get(self.device, [])

    def apply(self) -> None:
        system.run(self.commands()[0])

    def revert(self, before: str) -> None:
        if before == "absent" and self.holds():
            system.run(["ip", "address", "del", self._prefixed, "dev", self.device])


@dataclass(frozen=True)
class ModuleTunnel(Step):
    """The kernel's own tunnel end: the device that its module brings along, set up.

    A module that was loaded for it stays: it may serve other namespaces by then.
    """

    kind = "module-tunnel"
    device: str
    module: str

    @property
    def identity(self) -> str:
        return f"tunnel {self.device}"

    def commands(self) -> list[list[str]]:
        return [["modprobe", self.module], ["ip", "link", "set", self.device, "up"]]

    def before(self) -> str:
        up = system.link_is_up(self.device)
        return "absent" if up is None else "up" if up else "down"

    def holds(self) -> bool:
        return bool(system.link_is_up(self.device))

    def apply(self) -> None:
        load, set_up = self.commands()
        if system.link_is_up(self.device) is None:  # a kernel with the tunnel built in has no module
            system.run(load)
        system.run(set_up)

    def revert(self, before: str) -> None:
        if before != "up" and self.holds():
            system.run(["ip", "link", "set", self.device, "down"])


@dataclass(frozen=True)
class Ip6Tunnel(Step):
    """The kernel's tunnel end at an IPv6 address; its ready-made ip6tnl0 takes in nothing."""

    kind = "ip6-tunnel"
    device: str
    local: str

    @property
    def identity(self) -> str:
        return f"tunnel {self.device}"

    def commands(self) -> list[list[str]]:
        # allow-localremote: a director may well send from the VIP, which this machine has too.
        tunnel = ["ip6tnl", "mode", "any", "local", self.local, "remote", "::", "allow-localremote"]
        return [["ip", "link", "add", self.device, "type", *tunnel], ["ip", "link", "set", self.device, "up"]]

    def before(self) -> str:
        return "absent" if system.link_is_up(self.device) is None else "present"

    def holds(self) -> bool:
        return bool(system.link_is_up(self.device))

    def apply(self) -> None:
        add, set_up = self.commands()
        if system.link_is_up(self.device) is None:
            system.run(add)
        system.run(set_up)

    def revert(self, before: str) -> None:
        if before == "absent" and system.link_is_up(self.device) is not None:
            system.run(["ip", "link", "del", self.device])


@dataclass(frozen=True)
class Decapsulator(Step):
    """Our eBPF tunnel end on an interface."""

    kind = "decapsulator"
    interface: str
    tunnel_ends: tuple[str, ...]
    vips: tuple[str, ...]
    gue_ports: tuple[int, ...] = ()

    @property
    def identity(self) -> str:
        return f"decapsulator on {self.interface}"

    @property
    def _wanted(self) -> tuple[str, tuple[str, ...], tuple[str, ...], tuple[int, ...]]:
        return self.interface, self.tunnel_ends, self.vips, self.gue_ports

    def commands(self) -> list[list[str]]:
        return decap.plain_commands(*self._wanted)

    def before(self) -> str:
        return "absent"

    def holds(self) -> bool:
        return decap.attached(self.interface) and decap.serves(*self._wanted)

    def apply(self) -> None:
        decap.attach(*self._wanted)

    def revert(self, before: str) -> None:  # noqa: ARG002  it was never there before us
        decap.detach(self.interface)


_ALL = (Sysctl, VipAddress, ModuleTunnel, Ip6Tunnel, Decapsulator)
_KINDS: dict[str, type[Step]] = {step.kind: step for step in _ALL}


def to_state(step: Step, before: str) -> dict[str, Any]:
    """A step and what was before it, for the state file."""
    return {"kind": step.kind, **asdict(step), "before": before}  # type: ignore[call-overload]  # every step is a dataclass


def from_state(state: dict[str, Any]) -> tuple[Step, str]:
    """The opposite of :func:`to_state`."""
    fields = {name: tuple(value) if isinstance(value, list) else value for name, value in state.items()}
    before = str(fields.pop("before"))
    kind = _KINDS[str(fields.pop("kind"))]
    return kind(**fields), before
