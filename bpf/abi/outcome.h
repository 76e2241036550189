/* SPDX-License-Identifier: GPL-2.0-only */
/* What may become of a packet. */
#ifndef XLVS_ABI_OUTCOME_H
#define XLVS_ABI_OUTCOME_H

/*
 * What became of a packet. Every packet that enters gets exactly one outcome, save
 * that HANDED_* packets get a second one from the tc companion, and TOA_LEFT_OUT counts
 * something else about packets that get one besides.
 */
#define XLVS_OUTCOMES(X)                                                                  \
	X(FORWARDED, "forwarded by XDP")                                                  \
	X(FORWARDED_TC, "forwarded by the tc companion")                                  \
	X(LOCAL, "delivered to the director itself")                                      \
	X(NOT_OURS, "of no service: left to the kernel")                                  \
	X(PASS_EXTENSION, "too many IPv6 extension headers: left to the kernel")          \
	X(PASS_NO_CONNECTION, "for a service, but of no connection: left to the kernel")  \
	X(HANDED_NEIGHBOUR, "handed to the tc companion: neighbour not resolved")         \
	X(HANDED_DEVICE, "handed to the tc companion: device without XDP transmit")       \
	X(HANDED_SEGMENTS, "handed to the tc companion: segments not cut yet (GSO)")      \
	X(HANDED_OWN, "handed to the tc companion: the director's own connection")        \
	X(TOA_LEFT_OUT, "no room in it for the client's address (counted besides)")       \
	X(HANDED_EARLY, "fragment before its first: waits in the helper")                 \
	X(HANDED_SPLIT, "larger than the path's MTU: the helper makes fragments of it")   \
	X(DROP_FRAGMENT, "fragment that fits no datagram")                                \
	X(DROP_EARLY_LIMITED, "fragment before its first, over the rate limit")           \
	X(TOLD_CLIENT, "ICMP error about a tunnel: the client was told")                  \
	X(DROP_UNKNOWN_ANSWER, "answer of no connection: ICMP sent (nat_icmp_send)")      \
	X(DROP_ICMP_CHECKSUM, "ICMP error with a wrong checksum")                         \
	X(COOKIE_SENT, "SYN answered by a cookie (SYNPROXY)")                             \
	X(HANDED_ANSWER, "handed to the tc companion: SYN-ACK that SYNPROXY answers")     \
	X(HANDED_PAYLOAD, "payload before the server's SYN-ACK: waits in the helper")     \
	X(PASS_COOKIE, "of no connection, no valid cookie: left to the kernel")           \
	X(DROP_COOKIE, "of no connection, no valid cookie")                               \
	X(DROP_DEFERRED, "ACK of a cookie, without payload (synproxy_defer)")             \
	X(DROP_HALF_OPEN, "too many SYNs unanswered (synproxy_half_open)")                \
	X(DROP_UNANSWERED, "the server's SYN-ACK has not come yet (SYNPROXY)")            \
	X(SERVER_REFUSED, "server refused or gave no answer: client reset (SYNPROXY)")    \
	X(DROP_NO_HELPER, "needs the helper, which does not run")                         \
	X(DROP_HELPER_BUSY, "the helper does not keep up, or it is too long for it")      \
	X(BYPASSED, "nobody serves it: left to routing (cache_bypass)")                   \
	X(DROP_NO_DESTINATION, "no destination available: ICMP unreachable sent")         \
	X(DROP_DESTINATION_GONE, "destination of the connection was deleted")             \
	X(DROP_NO_DATA, "nothing in it that the persistence engine could go by")          \
	X(DROP_STRAY_TCP, "TCP for a service, but of no connection (tcp_drop_entry)")     \
	X(DROP_STRAY_UDP, "UDP for a service's address, of no service (udp_drop_entry)")  \
	X(DROP_STRAY_FRAGMENT, "fragment for a service's address (frag_drop_entry)")      \
	X(DROP_DENIED, "client denied by its service")                                    \
	X(DROP_SERVICE_LIMIT, "new connection over its service's limit")                  \
	X(DROP_SOURCE_LIMIT, "new connection over its client's limit")                    \
	X(DROP_UNLUCKY, "new connection turned away by drop_packet")                      \
	X(DROP_TABLE_FULL, "connection table full")                                       \
	X(DROP_NO_LOCAL, "no local address of the service has a port left (FULLNAT)")     \
	X(DROP_RACE, "connection being replaced by another CPU")                          \
	X(DROP_TOO_BIG, "larger than the path's MTU: ICMP sent")                          \
	X(DROP_TTL, "TTL or hop limit exceeded: ICMP sent")                               \
	X(DROP_ERROR_LIMITED, "ICMP error due, but over the rate limit")                  \
	X(DROP_NO_WORDS, "ICMP error that the client's or server's family does not know") \
	X(DROP_NO_ROUTE, "no route to the next hop")                                      \
	X(DROP_FORWARDING_OFF, "the kernel's forwarding is disabled")                     \
	X(DROP_NO_METADATA, "driver cannot hand packets to the tc companion")             \
	X(DROP_MALFORMED, "malformed packet")                                             \
	X(DROP_MIGRATING, "held back while tables or modes change: to be sent again")     \
	X(DROP_COMPANION, "tc companion could not forward")

enum xlvs_outcome {
#define X(name, text) XLVS_##name,
	XLVS_OUTCOMES(X)
#undef X
		XLVS_OUTCOME_COUNT,
};

#endif
