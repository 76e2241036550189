"""A configuration from its file to typed values: every table together, and what holds between blocks."""

from __future__ import annotations

from xlvs.keepalived import tables
from xlvs.keepalived.config import STATUS_FATAL, STATUS_LINK, Config, Message, Outcome
from xlvs.keepalived.files import Disk, Files
from xlvs.keepalived.host import AnyHost, Host
from xlvs.keepalived.reader import Reader, TooMuch
from xlvs.keepalived.schema import Fatal, Parser


def parse(
    path: str,
    files: Files | None = None,
    config_id: str = "",
    host: Host | None = None,
    *,
    everything: bool = False,
) -> Outcome:
    """Read the configuration ``path``. Errors never raise: they are messages of the outcome.

    ``config_id`` is what ``@id`` lines are compared with; ``host`` answers for interfaces, users
    and programs (None: all there are). ``everything``: no file that is included may be missing (-e).
    """
    messages: list[Message] = []
    reader = Reader(files or Disk(), config_id, messages.append, everything=everything)
    parser = Parser(reader, host or AnyHost(), messages)
    config: Config | None = None
    try:
        parser.run(path, tables.TOP)
        config = _finished(parser)
    except Fatal:
        pass
    except OSError:
        # keepalived -t finds nothing wrong with a file that is not there, unless with -e: so do we.
        status = STATUS_LINK if everything else 0
        messages.append(Message(None, path, f"Config files missing '{path}'.", fatal=True, status=status))
    except TooMuch as error:
        messages.append(Message(reader.origin, "", str(error), fatal=True, status=STATUS_FATAL))
    if any(message.fatal for message in messages):
        config = None
    return Outcome(config, tuple(messages))


def _finished(parser: Parser) -> Config:
    """The whole, after each room's last look at it."""
    fields: dict[str, object] = {}
    for finish in tables.FINISH:
        fields.update(finish(parser))
    return Config(**fields)  # type: ignore[arg-type]  # each finish names fields of Config
