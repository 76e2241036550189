/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * IPVS's view of TCP: one table of transitions (net/netfilter/ipvs/ip_vs_proto_tcp.c
 * defines what they are), and what counts as an active connection.
 */
#ifndef XLVS_TCP_H
#define XLVS_TCP_H

#include "state.h"

enum tcp_event { EVENT_SYN, EVENT_FIN, EVENT_ACK, EVENT_RST, EVENT_NONE };

/* Shorter names make the table readable; the columns are the old states. */
enum {
	NO = XLVS_TCP_NONE,
	ES = XLVS_TCP_ESTABLISHED,
	SS = XLVS_TCP_SYN_SENT,
	SR = XLVS_TCP_SYN_RECV,
	FW = XLVS_TCP_FIN_WAIT,
	TW = XLVS_TCP_TIME_WAIT,
	CL = XLVS_TCP_CLOSE,
	CW = XLVS_TCP_CLOSE_WAIT,
	LA = XLVS_TCP_LAST_ACK,
	LI = XLVS_TCP_LISTEN,
	SA = XLVS_TCP_SYNACK,
};

static const __u8 tcp_next[2][3][4][16] = { {
	[VIEW_IN] = {
		/* from:      NO  ES  SS  SR  FW  TW  CL  CW  LA  LI  SA */
		[EVENT_SYN] = { SR, ES, ES, SR, SR, SR, SR, SR, SR, SR, SR },
		[EVENT_FIN] = { CL, CW, SS, TW, TW, TW, CL, CW, LA, LI, TW },
		[EVENT_ACK] = { ES, ES, SS, ES, FW, TW, CL, CW, CL, LI, ES },
		[EVENT_RST] = { CL, CL, CL, SR, CL, CL, CL, CL, LA, LI, SR },
	},
	[VIEW_OUT] = {
		[EVENT_SYN] = { SS, ES, SS, SR, SS, SS, SS, SS, SS, LI, SR },
		[EVENT_FIN] = { TW, FW, SS, TW, FW, TW, CL, TW, LA, LI, TW },
		[EVENT_ACK] = { ES, ES, SS, ES, FW, TW, CL, CW, LA, ES, ES },
		[EVENT_RST] = { CL, CL, SS, CL, CL, TW, CL, CL, CL, CL, CL },
	},
	[VIEW_IN_ONLY] = {
		[EVENT_SYN] = { SR, ES, ES, SR, SR, SR, SR, SR, SR, SR, SR },
		[EVENT_FIN] = { CL, FW, SS, TW, FW, TW, CL, CW, LA, LI, TW },
		[EVENT_ACK] = { ES, ES, SS, ES, FW, TW, CL, CW, CL, LI, ES },
		[EVENT_RST] = { CL, CL, CL, SR, CL, CL, CL, CL, LA, LI, CL },
	},
}, { /* secure_tcp: SYN_RECV holds on, so that half-open connections end early */
	[VIEW_IN] = {
		/* from:      NO  ES  SS  SR  FW  TW  CL  CW  LA  LI  SA */
		[EVENT_SYN] = { SR, ES, ES, SR, SR, SR, SR, SR, SR, SR, SA },
		[EVENT_FIN] = { CL, CW, SS, TW, TW, TW, CL, CW, LA, LI, SA },
		[EVENT_ACK] = { ES, ES, SS, SR, FW, TW, CL, CW, CL, LI, SA },
		[EVENT_RST] = { CL, CL, CL, SR, CL, CL, CL, CL, LA, LI, CL },
	},
	[VIEW_OUT] = {
		[EVENT_SYN] = { SS, ES, SS, SA, SS, SS, SS, SS, SS, LI, SA },
		[EVENT_FIN] = { TW, FW, SS, TW, FW, TW, CL, TW, LA, LI, TW },
		[EVENT_ACK] = { ES, ES, SS, ES, FW, TW, CL, CW, LA, ES, ES },
		[EVENT_RST] = { CL, CL, SS, CL, CL, TW, CL, CL, CL, CL, CL },
	},
	[VIEW_IN_ONLY] = {
		[EVENT_SYN] = { SA, ES, ES, SR, SA, SA, SA, SA, SA, SA, SA },
		[EVENT_FIN] = { CL, FW, SS, TW, FW, TW, CL, CW, LA, LI, TW },
		[EVENT_ACK] = { ES, ES, SS, ES, FW, TW, CL, CW, CL, LI, ES },
		[EVENT_RST] = { CL, CL, CL, SR, CL, CL, CL, CL, LA, LI, CL },
	},
} };

#define TCP_ACTIVE_STATES ((1 << ES) | (1 << SS) | (1 << SR) | (1 << SA))

/* IPVS tests the flags in this order. */
static __always_inline enum tcp_event tcp_event_of(__u8 flags)
{
	if (flags & TCP_RST)
		return EVENT_RST;
	if (flags & TCP_SYN)
		return EVENT_SYN;
	if (flags & TCP_FIN)
		return EVENT_FIN;
	if (flags & TCP_ACK)
		return EVENT_ACK;
	return EVENT_NONE;
}

/* The state that a packet leaves a connection in. */
static __always_inline __u32 tcp_after(const struct xlvs_conn *conn, const struct packet *p,
				       bool reply, const struct xlvs_settings *set)
{
	__u32 word = READ_ONCE(conn->state), state = word & 0xf;
	enum tcp_event event = tcp_event_of(p->tcp);

	if (word == XLVS_STATE_ENDED || event == EVENT_NONE)
		return XLVS_TCP_CLOSE;
	return tcp_next[!!set->secure_states][view_of(conn, reply) & 3][event & 3][state];
}

/* Move the connection's state by one packet. */
static __always_inline void tcp_step(struct xlvs_conn *conn, const struct packet *p, bool reply,
				     const struct xlvs_settings *set)
{
	__u32 word = READ_ONCE(conn->state), next = tcp_after(conn, p, reply, set);

	if (word == XLVS_STATE_ENDED)
		return;
	state_move(conn, word, next, !(TCP_ACTIVE_STATES >> next & 1), next == XLVS_TCP_ESTABLISHED,
		   set->tcp_timeout[next & 0xf]);
}

#endif
