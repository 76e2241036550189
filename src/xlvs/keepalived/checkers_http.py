"""HTTP_GET and SSL_GET: the checker's keywords, and those of the URLs that it asks for."""

from __future__ import annotations

import re

from xlvs.health.checks import Url
from xlvs.health.regex import compiled
from xlvs.keepalived.checkers_common import CONNECTION, keep, tell
from xlvs.keepalived.schema import Draft, Line, Parser, Refused, Row, Table, block, flag, value
from xlvs.keepalived.values import FOREVER, boolean, number, text

_DIGEST = 32  # hexadecimal digits of an MD5
_PROTOCOLS = {"1.0": "1.0", "1.0C": "1.0C", "1.0c": "1.0C", "1.1": "1.1"}
_REGEX_FIELDS = ("regex_no_match", "regex_options", "regex_min_offset", "regex_max_offset", "stack")


def _notice(line: Line, told: str) -> None:
    """What keepalived only logs: -t does not count it."""
    line.warn(told, status=0)


# -- url ----------------------------------------------------------------------------


def _digest(line: Line) -> str:
    word = line.word()
    if "digest" in line.draft.values:
        raise Refused(f"Digest '{word}' is a duplicate")
    if len(word) != _DIGEST:
        raise Refused(f"digest '{word}' character length should be {_DIGEST} rather than {len(word)}")
    wrong = next((at for at, digit in enumerate(word) if digit not in "0123456789abcdefABCDEF"), None)
    if wrong is not None:
        raise Refused(f"Unable to interpret hex digit in '{word}' at offset {wrong & ~1}/{wrong}")
    return word.lower()


def _statuses(line: Line) -> None:
    for word in line.words[1:]:
        match = re.fullmatch("([0-9]{3})(?:-([0-9]{3}))?", word)
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
        if 100 <= first <= last <= 599:
            line.draft.add("statuses", (first, last))
            line.draft.origins["statuses"] = line.origin
        else:
            line.warn(f"Invalid HTTP_GET status code '{word}'")


def _virtualhost(missing: str) -> Row:
    def kind(line: Line) -> str:
        if len(line.words) < 2:
            raise Refused(missing)
        return line.words[1]

    return value("virtualhost", kind)


def _regex(line: Line) -> None:
    words = line.shell()
    if len(words) != 2:
        _notice(line, "regex missing or too many fields")
        return
    line.draft.values["regex"] = words[1]
    line.draft.origins["regex"] = line.origin


def _regex_options(line: Line) -> None:
    for word in line.words[1:]:
        if _option(word):
            line.draft.add("regex_options", word)
            line.draft.origins["regex_options"] = line.origin
        else:
            _notice(line, f"Unknown regex option '{word}' - ignoring")


def _option(word: str) -> bool:
    try:
        compiled("", (word,))
    except ValueError:
        return False
    return True


def _offset(line: Line) -> None:
    which = line.keyword.removeprefix("regex_").removesuffix("_offset")
    if len(line.words) != 2:
        _notice(line, f"Missing or too many options for regex_{which}_offset")
    elif not re.fullmatch("[0-9]{1,18}", line.words[1]):
        _notice(line, f"Invalid regex_{which}_offset {line.words[1]} specified")
    else:
        line.draft.values[line.keyword] = int(line.words[1])
        line.draft.origins[line.keyword] = line.origin


def _stack(line: Line) -> None:
    """PCRE's stack: there is none here, but wrong sizes are told."""
    sizes = [int(word) if re.fullmatch("[0-9]{1,18}", word) else None for word in line.words[1:]]
    if len(sizes) != 2:
        _notice(line, "regex_stack requires start and max values")
    elif None in sizes:
        _notice(line, f"regex_stack invalid {'start' if sizes[0] is None else 'max'} value")
    elif (sizes[0] or 0) > (sizes[1] or 0):
        _notice(line, "regex stack start cannot exceed max value")
    else:
        line.draft.values["stack"] = True


def _close_url(parser: Parser, draft: Draft) -> None:
    """A URL without a path is none; what only a regular expression needs goes without one."""
    assert draft.parent is not None
    if "path" not in draft.values:
        tell(parser, draft, "HTTP/SSL_GET checker url has no path - ignoring")
        return
    given = [name for name in _REGEX_FIELDS if name in draft.values]
    if "regex" not in draft.values:
        if given:
            tell(parser, draft, "regex parameters specified without regex", status=0)
    else:
        given = []
        _judge_regex(parser, draft)
    for name in (*given, "stack"):
        draft.values.pop(name, None)
    draft.parent.add("urls", draft)


def _judge_regex(parser: Parser, draft: Draft) -> None:
    low, high = draft.get("regex_min_offset", 0), draft.get("regex_max_offset", 0)
    if high and low > high:
        tell(parser, draft, f"regex min offset {low} > regex_max_offset {high} - ignoring", status=0)
        del draft.values["regex_min_offset"], draft.values["regex_max_offset"]
    try:
        compiled(draft.values["regex"], draft.get("regex_options", ()))
    except (ValueError, RecursionError, OverflowError) as error:
        tell(parser, draft, f"Invalid regex: '{draft.values['regex']}': {error}", status=0)
        del draft.values["regex"]
        for name in _REGEX_FIELDS:
            draft.values.pop(name, None)


_URL: Table = {
    "path": value("path", text),
    "digest": value("digest", _digest),
    "status_code": Row(_statuses),
    "virtualhost": _virtualhost("Missing HTTP_GET virtualhost name"),
    "regex": Row(_regex),
    "regex_no_match": flag("regex_no_match"),
    "regex_options": Row(_regex_options),
    "regex_min_offset": Row(_offset),
    "regex_max_offset": Row(_offset),
    "regex_stack": Row(_stack),
}


def url(draft: Draft, virtualhost: str | None) -> Url:
    """A URL as it is asked for; ``virtualhost``: that of its checker, real or virtual server."""
    fields = dict(draft.values)
    fields.setdefault("virtualhost", virtualhost)
    for name in ("statuses", "regex_options"):
        if name in fields:
            fields[name] = tuple(fields[name])
    return Url(**fields, origins=draft.origins)


# -- the checker --------------------------------------------------------------------


def _protocol(line: Line) -> str:
    if len(line.words) < 2:
        raise Refused("Missing http_protocol version")
    if line.words[1] not in _PROTOCOLS:
        raise Refused(f"Invalid http_protocol version {line.words[1]}")
    return _PROTOCOLS[line.words[1]]


def _old_retry(line: Line) -> int:
    line.warn("nb_get_retry is deprecated - please use 'retry'")
    retries = number(line, line.word(), 0, FOREVER)
    if retries is None:
        raise Refused(f"Invalid nb_get_retry value '{line.word()}'")
    return retries


def close(parser: Parser, draft: Draft) -> None:
    """A checker that asks for nothing is none."""
    if "urls" in draft.values:
        keep(parser, draft)
        return
    tell(parser, draft, "HTTP/SSL_GET checker has no urls specified - ignoring")


KEYWORDS: Table = {
    **CONNECTION,
    "nb_get_retry": value("retries", _old_retry),
    "virtualhost": _virtualhost("HTTP_GET virtualhost name missing"),
    "http_protocol": value("protocol", _protocol),
    "fast_recovery": value("fast_recovery", boolean("Invalid fast_recovery parameter {word}")),
    "enable_sni": value("sni", boolean("Invalid enable_sni parameter {word}")),
    "url": block(_URL, lambda _line: Draft("url"), _close_url),
}
