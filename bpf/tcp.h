/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * IPVS's view of TCP: one table of transitions (net/netfilter/ipvs/ip_vs_proto_tcp.c
 * defines what they are), and what counts as an active connection.
 */
#ifndef XLVS_TCP_H
#define XLVS_TCP_H

#include "conn.h"

enum tcp_event { EVENT_SYN, EVENT_FIN, EVENT_ACK, EVENT_RST, EVENT_NONE };
enum tcp_view {
	VIEW_IN,      /* from the client, and the answers are seen too */
	VIEW_OUT,     /* from the real server */
	VIEW_IN_ONLY, /* from the client, answers go another way (DR, TUN) */
};

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

/* A template is worth keeping once a connection on it was answered (ip_vs_control_assure_ct). */
static __always_inline void template_assure(const struct xlvs_conn *conn)
{
	struct xlvs_conn *template = conn_template(conn);

	if (template && template->flags & XLVS_CONN_TEMPLATE &&
	    READ_ONCE(template->state) == XLVS_TEMPLATE_NONE)
		__sync_val_compare_and_swap(&template->state, XLVS_TEMPLATE_NONE,
					    XLVS_TEMPLATE_ASSURED);
}

static __always_inline void load_move(__u32 dest, bool to_inactive)
{
	load_add(dest, !to_inactive, -1);
	load_add(dest, to_inactive, 1);
}

/* The state that a packet leaves a connection in. */
static __always_inline __u32 tcp_after(const struct xlvs_conn *conn, const struct packet *p,
				       bool reply, const struct xlvs_settings *set)
{
	__u32 word = READ_ONCE(conn->state), state = word & 0xf;
	enum tcp_event event = tcp_event_of(p->tcp);
	bool seen_both = has_reply_key(conn->flags);
	enum tcp_view view = reply ? VIEW_OUT : seen_both ? VIEW_IN : VIEW_IN_ONLY;

	if (word == XLVS_STATE_ENDED || event == EVENT_NONE)
		return XLVS_TCP_CLOSE;
	return tcp_next[!!set->secure_states][view & 3][event & 3][state];
}

/*
 * Move the connection's state by one packet. Both CPUs may do so at once: whoever
 * swaps the word moves the counters, the other one's packet is as if it came first.
 */
static __always_inline void tcp_step(struct xlvs_conn *conn, const struct packet *p, bool reply,
				     const struct xlvs_settings *set)
{
	__u32 word = READ_ONCE(conn->state), state = word & 0xf, timeout;
	__u32 next = tcp_after(conn, p, reply, set);
	bool inactive;

	if (word == XLVS_STATE_ENDED)
		return;
	timeout = set->tcp_timeout[next & 0xf];
	if (next != state) {
		inactive = !(TCP_ACTIVE_STATES >> next & 1);
		if (__sync_val_compare_and_swap(
			    &conn->state, word,
			    next | state << 8 | (inactive ? XLVS_STATE_INACTIVE : 0)) != word)
			return;
		if (inactive != !!(word & XLVS_STATE_INACTIVE))
			load_move(conn->dest, inactive);
		if (next == XLVS_TCP_ESTABLISHED)
			template_assure(conn);
	}
	if (conn->timeout != timeout)
		conn->timeout = timeout;
}

#endif
