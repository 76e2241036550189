"""A child's own process: the loop around its :class:`~xlvs.daemon.keepalived.child.Child`."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
from collections.abc import Callable
from dataclasses import replace

from xlvs.daemon.keepalived import capabilities, channel, elsewhere, scheduling
from xlvs.daemon.keepalived.channel import Kind
from xlvs.daemon.keepalived.child import Child, Context, Event, make
from xlvs.errors import XlvsError
from xlvs.keepalived.config import Config

# Exit status of a child that cannot do its work here, as keepalived's.
CANNOT = 2

log = logging.getLogger(__name__)


def serve(name: str, descriptor: int, context: Context) -> int:
    """Be the child of that name for the parent at the other end of a socket; the exit status."""
    try:
        return asyncio.run(_Loop(name, context).run(socket.socket(fileno=descriptor)))
    except XlvsError as error:
        log.error("%s", error)
        return CANNOT
    except Exception:  # the log may be all that is left of it
        log.exception("the %s process ends", name)
        return 1


class _Loop:
    def __init__(self, name: str, context: Context) -> None:
        self._name = name
        self._context = context
        self._started = False
        self._early: list[Event] = []  # what siblings told before there was a configuration

    async def run(self, connection: socket.socket) -> int:
        loop = asyncio.get_running_loop()
        frames: asyncio.Queue[tuple[Kind, bytes] | None] = asyncio.Queue()
        reader, self._writer = await asyncio.open_connection(sock=connection)
        stop = channel.frame(Kind.STOP)
        # What a terminal or an operator sends to the whole group is the parent's business; TERM is an end.
        for number in (signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
            signal.signal(number, signal.SIG_IGN)
        loop.add_signal_handler(signal.SIGTERM, lambda: frames.put_nowait((Kind.STOP, stop)))
        listening = asyncio.create_task(self._listen(reader, frames.put_nowait))
        try:
            while (received := await frames.get()) is not None:
                kind, body = received
                if kind == Kind.STOP:
                    break
                await self._obey(kind, body)
            if self._started:
                await (self._child.stop() if received else self._abandoned())
        finally:
            listening.cancel()
            self._writer.close()
        return 0

    async def _listen(
        self,
        reader: asyncio.StreamReader,
        put: Callable[[tuple[Kind, bytes] | None], None],
    ) -> None:
        while (received := await channel.receive(reader)) is not None:
            kind, body = received
            if kind != Kind.EVENT:
                put(received)
            elif self._started:
                self._child.post(channel.json_of(body))
            else:
                self._early.append(channel.json_of(body))
        put(None)

    async def _obey(self, kind: Kind, body: bytes) -> None:
        if kind == Kind.CONFIG:
            config = channel.config_of(body)
            if self._started:
                await self._child.reload(config)
            else:
                self._settle(config)
                self._child: Child = make(self._name, self._context_for(config))
                if recall := getattr(self._child, "recall", None):
                    recall(self._early)
                await self._child.start(config)
                self._started = True
                for event in self._early:
                    self._child.post(event)
            self._writer.write(channel.frame(Kind.READY))
        elif kind == Kind.ASK:
            question = channel.json_of(body)
            self._writer.write(channel.json_frame(Kind.ANSWER, await self._answer(question)))

    def _settle(self, config: Config) -> None:
        """Become the process that the configuration wants, with no more power than its work takes."""
        scheduling.name(config, self._name)
        scheduling.schedule(config, self._name)
        capabilities.drop(self._name, capabilities.needed(self._name, config, self._context.options.engine))

    def _context_for(self, config: Config) -> Context:
        opened = elsewhere.opener(config.globals.net_namespace_ipvs, self._context.open_data_plane)
        return replace(self._context, emit=self._emit, open_data_plane=opened)

    async def _answer(self, question: dict[str, object]) -> dict[str, object]:
        request = question.get("request")
        try:
            if not isinstance(request, dict):
                raise XlvsError("a request is a mapping")
            return {"id": question.get("id"), "answer": await self._child.ask(request)}
        except XlvsError as error:
            return {"id": question.get("id"), "error": str(error)}
        except Exception as error:  # a question must not end a child that does its work
            log.exception("answering %s", request)
            return {"id": question.get("id"), "error": f"{type(error).__name__}: {error}"}

    async def _abandoned(self) -> None:
        """The parent is gone without a word: it was killed."""
        log.warning("The parent process is gone: ending")
        abandoned = getattr(self._child, "abandoned", self._child.stop)
        await abandoned()

    def _emit(self, event: Event) -> None:
        self._writer.write(channel.json_frame(Kind.EVENT, event))
