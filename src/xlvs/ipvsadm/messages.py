"""What ipvsadm 1.31 says: the same words, for the same reasons."""

from __future__ import annotations

import os
from errno import (
    EAFNOSUPPORT,
    EEXIST,
    EINVAL,
    EMSGSIZE,
    ENOENT,
    ENOMEM,
    ENOPROTOOPT,
    EOPNOTSUPP,
    EPERM,
    ESRCH,
)

from xlvs.errors import IpvsError

VERSION = "ipvsadm v1.31 2019/12/24 (compiled with popt and IPVS v1.2.1)\n"

_NO_SCHEDULER = "Scheduler or persistence engine not found"
_NO_SERVICE = "No such service"
_UNDEFINED = "Service not defined"
_NO_DESTINATION = "No such destination"
_BY_COMMAND = {
    ("add-service", EEXIST): "Service already exists",
    ("add-service", ENOENT): _NO_SCHEDULER,
    ("edit-service", ESRCH): _NO_SERVICE,
    ("edit-service", ENOENT): _NO_SCHEDULER,
    ("delete-service", ESRCH): _NO_SERVICE,
    ("zero", ESRCH): _NO_SERVICE,
    ("list", ESRCH): _NO_SERVICE,
    ("add-server", ESRCH): _UNDEFINED,
    ("add-server", EEXIST): "Destination already exists",
    ("edit-server", ESRCH): _UNDEFINED,
    ("edit-server", ENOENT): _NO_DESTINATION,
    ("delete-server", ESRCH): _UNDEFINED,
    ("delete-server", ENOENT): _NO_DESTINATION,
    ("add-laddr", ESRCH): _UNDEFINED,
    ("add-laddr", EEXIST): "Local address already exists",
    ("add-laddr", EINVAL): "Local address is not unicast",
    ("del-laddr", ESRCH): _UNDEFINED,
    ("del-laddr", ENOENT): "No such local address",
    ("get-laddr", ESRCH): _NO_SERVICE,
    ("start-daemon", EEXIST): "Daemon has already run",
    ("stop-daemon", ESRCH): "No daemon is running",
}
_BY_ERRNO = {
    EPERM: "Permission denied (you must be root)",
    EINVAL: "Invalid operation.  Possibly wrong module version, address not unicast, ...",
    ENOPROTOOPT: "Protocol not available",
    ENOMEM: "Memory allocation problem",
    EOPNOTSUPP: "Operation not supported with IPv6",
    EAFNOSUPPORT: "Operation not supported with specified address family",
    EMSGSIZE: "Module is wrong version",
}


def reason(command: str, errno: int) -> str:
    """The words for an errno that a command met."""
    return _BY_COMMAND.get((command, errno)) or _BY_ERRNO.get(errno) or os.strerror(errno)


def refusal(command: str, error: IpvsError) -> str:
    """The words for what a command met; of many local addresses, with the one that was wrong."""
    text = reason(command, error.errno)
    one_of_many = command in ("add-laddr", "del-laddr") and error.errno != ESRCH
    return f"{text}: {error}" if one_of_many else text


def try_help(program: str) -> str:
    """Where to look, after a command line that makes no sense at all."""
    return f"Try `{program} -h' or '{program} --help' for more information.\n"


SAVE_HELP = (
    "ipvsadm-save: Script to save the IPVS table to stdout.\n"
    "   With the -n option, prints out the table in numeric format.\n"
)

_USAGE = """\
Usage:
  {0} -A|E virtual-service [-s scheduler] [-p [timeout]]\
 [-M netmask] [--pe persistence_engine] [-b sched-flags]
  {0} -D virtual-service
  {0} -C
  {0} -R
  {0} -S [-n]
  {0} -a|e virtual-service -r server-address [options]
  {0} -d virtual-service -r server-address
  {0} -L|l [virtual-service] [options]
  {0} -Z [virtual-service]
  {0} --set tcp tcpfin udp
  {0} --start-daemon {master|backup} [daemon-options]
  {0} --stop-daemon {master|backup}
  {0} -h

Commands:
Either long or short options are allowed.
  --add-service     -A        add virtual service with options
  --edit-service    -E        edit virtual service with options
  --delete-service  -D        delete virtual service
  --clear           -C        clear the whole table
  --restore         -R        restore rules from stdin
  --save            -S        save rules to stdout
  --add-server      -a        add real server with options
  --edit-server     -e        edit real server with options
  --delete-server   -d        delete real server
  --list            -L|-l     list the table
  --zero            -Z        zero counters in a service or all services
  --set tcp tcpfin udp        set connection timeout values
  --start-daemon              start connection sync daemon
  --stop-daemon               stop connection sync daemon
  --help            -h        display this help message

virtual-service:
  --tcp-service|-t  service-address   service-address is host[:port]
  --udp-service|-u  service-address   service-address is host[:port]
  --sctp-service    service-address   service-address is host[:port]
  --fwmark-service|-f fwmark          fwmark is an integer greater than zero

Options:
  --ipv6         -6                   fwmark entry uses IPv6
  --scheduler    -s scheduler         one of rr|wrr|lc|wlc|lblc|lblcr|dh|sh|sed|nq|fo|ovf|mh,
                                      the default scheduler is wlc.
  --pe            engine              alternate persistence engine may be sip,
                                      not set by default.
  --persistent   -p [timeout]         persistent service
  --netmask      -M netmask           persistent granularity mask
  --real-server  -r server-address    server-address is host (and port)
  --gatewaying   -g                   gatewaying (direct routing) (default)
  --ipip         -i                   ipip encapsulation (tunneling)
  --masquerading -m                   masquerading (NAT)
  --tun-type      type                one of ipip|gue|gre,
                                      the default tunnel type is ipip.
  --tun-port      port                tunnel destination port
  --tun-nocsum                        tunnel encapsulation without checksum
  --tun-csum                          tunnel encapsulation with checksum
  --tun-remcsum                       tunnel encapsulation with remote checksum
  --weight       -w weight            capacity of real server
  --u-threshold  -x uthreshold        upper threshold of connections
  --l-threshold  -y lthreshold        lower threshold of connections
  --connection   -c                   output of current IPVS connections
  --timeout                           output of timeout (tcp tcpfin udp)
  --daemon                            output of daemon information
  --stats                             output of statistics information
  --rate                              output of rate information
  --exact                             expand numbers (display exact values)
  --thresholds                        output of thresholds information
  --persistent-conn                   output of persistent connection info
  --tun-info                          output of tunnel information
  --nosort                            disable sorting output of service/server entries
  --sort                              does nothing, for backwards compatibility
  --ops          -o                   one-packet scheduling
  --numeric      -n                   numeric output of addresses and ports
  --sched-flags  -b flags             scheduler flags (comma-separated)
Daemon Options:
  --syncid sid                        syncid for connection sync (default=255)
  --sync-maxlen length                Max sync message length (default=1472)
  --mcast-interface interface         multicast interface for connection sync
  --mcast-group address               IPv4/IPv6 group (default=224.0.0.81)
  --mcast-port port                   UDP port (default=8848)
  --mcast-ttl ttl                     Multicast TTL (default=1)
"""


# What the real program's answer has not.
OWN_USAGE = """\

FULLNAT, SYNPROXY and other things of xlvs's own:
  {0} -P|Q virtual-service -z local-addresses
  {0} -G [virtual-service] [--json]
  {0} -A|E virtual-service [-j enable|disable|auto] [--client-address way]
  {0} -a|e virtual-service -r server-address -b
  {0} -L -c --local
  {0} -L --json
  {0} -R --atomic

  --add-laddr       -P        add local addresses to a virtual service
  --del-laddr       -Q        delete local addresses of a virtual service
  --get-laddr       -G        list local addresses, ports that were taken, and connections
  --local-address  -z addresses       A, A-B and A/BITS, comma-separated; IPv4 and IPv6
  --fullnat        -b                 full NAT; with -a and -e only
  --synproxy       -j enable          the director answers SYNs: always, never (disable), or
                                      in a flood of them (auto); -E without it changes nothing
  --client-address toa                how servers of NAT and FULLNAT learn the client's address:
                                      TCP or UDP option (toa), PROXY protocol 2 (proxy), not (none);
                                      default is toa with FULLNAT, else none
  --local                             with -c: output of FULLNAT's local addresses, too
  --json                              output as JSON
  --atomic                            with -R: all lines or none
"""


def usage(program: str) -> str:
    """The answer to ``-h``."""
    return VERSION + (_USAGE + OWN_USAGE).replace("{0}", program)
