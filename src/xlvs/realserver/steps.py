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
        if before and self.holds():
            system.write_sysctl(self.name, before)


@dataclass(frozen=True)
class LoopbackAddress(Step):
    """A VIP on ``lo``: the machine takes packets for it, but no other interface has it."""

    kind = "address"
    address: str

    @property
    def identity(self) -> str:
        return f"address {self.address}"

    @property
    def _prefixed(self) -> str:
        return f"{self.address}/{128 if ':' in self.address else 32}"

    def commands(self) -> list[list[str]]:
        # No duplicate address detection: every real server has this address, on purpose.
        options = ["nodad"] if ":" in self.address else []
        return [["ip", "address", "add", self._prefixed, "dev", "lo", *options]]

    def before(self) -> str:
        return "present" if self.holds() else "absent"

    def holds(self) -> bool:
        return self._prefixed in system.addresses().get("lo", [])

    def apply(self) -> None:
        system.run(self.commands()[0])

    def revert(self, before: str) -> None:
        if before == "absent" and self.holds():
            system.run(["ip", "address", "del", self._prefixed, "dev", "lo"])


@dataclass(frozen=True)
class TunnelDevice(Step):
    """The kernel's own tunnel end: the device that its module brings along, set up.

    A module that was loaded for it stays: it may serve other namespaces by then.
    """

    kind = "tunnel"
    device: str
    module: str

    @property
    def identity(self) -> str:
        return f"tunnel {self.device}"

    def commands(self) -> list[list[str]]:
        commands = [["modprobe", self.module]]
        if self.device == "ip6tnl0":
            commands.append(["ip", "-6", "tunnel", "change", self.device, "mode", "any"])
        return [*commands, ["ip", "link", "set", self.device, "up"]]

    def before(self) -> str:
        up = system.link_is_up(self.device)
        return "absent" if up is None else "up" if up else "down"

    def holds(self) -> bool:
        return bool(system.link_is_up(self.device)) and (
            self.device != "ip6tnl0" or system.tunnel_protocol(self.device) == "any"
        )

    def apply(self) -> None:
        for command in self.commands():
            # A kernel with the tunnel built in has no module to load.
            if command[0] != "modprobe" or system.link_is_up(self.device) is None:
                system.run(command)

    def revert(self, before: str) -> None:
        if before == "up" or not system.link_is_up(self.device):
            return
        system.run(["ip", "link", "set", self.device, "down"])
        if self.device == "ip6tnl0":
            system.run(["ip", "-6", "tunnel", "change", self.device, "mode", "ip6ip6"])


@dataclass(frozen=True)
class Decapsulator(Step):
    """Our eBPF tunnel end on an interface."""

    kind = "decapsulator"
    interface: str
    tunnel_ends: tuple[str, ...]
    vips: tuple[str, ...]

    @property
    def identity(self) -> str:
        return f"decapsulator on {self.interface}"

    def commands(self) -> list[list[str]]:
        return decap.plain_commands(self.interface, self.tunnel_ends, self.vips)

    def before(self) -> str:
        return "absent"

    def holds(self) -> bool:
        return decap.attached(self.interface) and decap.serves(self.interface, self.tunnel_ends, self.vips)

    def apply(self) -> None:
        decap.attach(self.interface, self.tunnel_ends, self.vips)

    def revert(self, before: str) -> None:  # noqa: ARG002  it was never there before us
        decap.detach(self.interface)


_KINDS: dict[str, type[Step]] = {
    step.kind: step for step in (Sysctl, LoopbackAddress, TunnelDevice, Decapsulator)
}


def to_state(step: Step, before: str) -> dict[str, Any]:
    """A step and what was before it, for the state file."""
    return {"kind": step.kind, **asdict(step), "before": before}  # type: ignore[call-overload]  # every step is a dataclass


def from_state(state: dict[str, Any]) -> tuple[Step, str]:
    """The opposite of :func:`to_state`."""
    fields = {name: tuple(value) if isinstance(value, list) else value for name, value in state.items()}
    before = str(fields.pop("before"))
    kind = _KINDS[str(fields.pop("kind"))]
    return kind(**fields), before
