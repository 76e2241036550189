/* SPDX-License-Identifier: GPL-2.0-only */
/* The word of a connection's state: moved by compare-and-swap, counted by whoever wins. */
#ifndef XLVS_STATE_H
#define XLVS_STATE_H

#include "conn.h"

/* By what a packet's direction says of a connection. */
enum view {
	VIEW_IN,      /* from the client, and the answers are seen too */
	VIEW_OUT,     /* from the real server */
	VIEW_IN_ONLY, /* from the client, answers go another way (DR, TUN) */
};

static __always_inline enum view view_of(const struct xlvs_conn *conn, bool reply)
{
	if (reply)
		return VIEW_OUT;
	return has_reply_key(conn->flags) ? VIEW_IN : VIEW_IN_ONLY;
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

/*
 * Move a connection from the state in word, as it was read, to the next one. Both CPUs may
 * do so at once: whoever swaps the word moves the counters, the other one's packet is as if
 * it came first.
 */
static __always_inline void state_move(struct xlvs_conn *conn, __u32 word, __u32 next,
				       bool inactive, bool established, __u32 timeout)
{
	__u32 state = word & 0xf;

	if (next != state) {
		if (__sync_val_compare_and_swap(
			    &conn->state, word,
			    next | state << 8 | (inactive ? XLVS_STATE_INACTIVE : 0)) != word)
			return;
		if (inactive != !!(word & XLVS_STATE_INACTIVE))
			load_move(conn->dest, inactive);
		if (established)
			template_assure(conn);
	}
	if (conn->timeout != timeout)
		conn->timeout = timeout;
}

#endif
