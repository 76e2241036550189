/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The director's data plane. Thin entries: parse -> connection -> (service ->
 * scheduler) -> forward; each is one program, tied together by tail calls.
 */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#include "companion.h"
#include "expire.h"
#include "family.h"
#include "fragment.h"
#include "ftp.h"
#include "icmp.h"
#include "known.h"
#include "leave.h"
#include "opening.h"
#include "proxied.h"
#include "relay.h"
#include "reuse.h"
#include "special.h"
#include "split.h"
#include "stranger.h"
#include "synproxy.h"

/* Every packet starts here; known connections are forwarded at once. */
SEC("xdp")
int xlvs_known(struct xdp_md *ctx)
{
	struct xlvs_settings *set = settings_get();
	struct packet p = {};
	struct flow flow;
	enum parsed what;

	if (!set)
		return XDP_PASS;
	what = parse_xdp(ctx, &p);
	if (unlikely(what != PARSED_FLOW))
		return leave_fast_path(ctx, what, &p);
	if (likely(conn_find(&p, &flow))) {
		if (likely(!reused_port(&p, &flow, set)))
			return handle_known(ctx, &p, &flow, set, false);
		conn_replace(&flow);
	}
	return offer_new(ctx, &p, set);
}

/* What the fast path leaves aside. */
SEC("xdp")
int xlvs_special(struct xdp_md *ctx)
{
	struct xlvs_settings *set = settings_get();

	return set ? handle_special(ctx, set) : XDP_PASS;
}

/* Control connections of FTP. */
SEC("xdp")
int xlvs_ftp(struct xdp_md *ctx)
{
	struct xlvs_settings *set = settings_get();
	struct xlvs_scratch *notes = scratch_get();

	return set && notes ? handle_ftp(ctx, notes, set) : XDP_PASS;
}

/* TCP's beginnings, and its options. */
SEC("xdp")
int xlvs_opening(struct xdp_md *ctx)
{
	struct xlvs_settings *set = settings_get();

	return set ? handle_opening(ctx, set) : XDP_PASS;
}

/* Fragments, and packets behind IPv6 extension headers. */
SEC("xdp")
int xlvs_fragment(struct xdp_md *ctx)
{
	struct xlvs_settings *set = settings_get();

	return set ? handle_fragment(ctx, set) : XDP_PASS;
}

/* ICMP: errors about connections follow them. */
SEC("xdp")
int xlvs_icmp(struct xdp_md *ctx)
{
	struct xlvs_settings *set = settings_get();

	return set ? handle_icmp(ctx, set) : XDP_PASS;
}

/* What these two found a connection for. */
SEC("xdp")
int xlvs_relay(struct xdp_md *ctx)
{
	struct xlvs_settings *set = settings_get();

	return set ? handle_relay(ctx, set) : XDP_PASS;
}

/* What goes on to the other family. */
SEC("xdp")
int xlvs_family(struct xdp_md *ctx)
{
	struct xlvs_settings *set = settings_get();

	return set ? handle_family(ctx, set) : XDP_PASS;
}

/* Services that answer SYNs by cookies. */
SEC("xdp")
int xlvs_synproxy(struct xdp_md *ctx)
{
	struct xlvs_settings *set = settings_get();
	struct xlvs_scratch *notes = scratch_get();

	return set && notes ? handle_synproxy(ctx, notes, set) : XDP_PASS;
}

/* Connections that a cookie made, until their real server has answered. */
SEC("xdp")
int xlvs_proxied(struct xdp_md *ctx)
{
	struct xlvs_settings *set = settings_get();
	struct xlvs_scratch *notes = scratch_get();

	return set && notes ? handle_proxied(ctx, notes, set) : XDP_PASS;
}

/* A packet of no connection: once admitted, it is one of a known connection. */
SEC("xdp")
int xlvs_new(struct xdp_md *ctx)
{
	struct xlvs_settings *set = settings_get();
	struct xlvs_scratch *notes = scratch_get();

	return set && notes ? handle_new(ctx, notes, set) : XDP_PASS;
}

/* Answer a packet with an ICMP error; both stand in the CPU's scratch. */
SEC("xdp")
int xlvs_error(struct xdp_md *ctx)
{
	struct xlvs_settings *set = settings_get();
	struct xlvs_scratch *notes = scratch_get();

	if (!set || !notes)
		return XDP_DROP;
	if (may_split(ctx, notes, set))
		return split(ctx, notes, set);
	if (!error_allowed(notes, set))
		return drop_as(XLVS_DROP_ERROR_LIMITED);
	count(notes->error_outcome);
	account_error(&notes->packet, notes->error_dest);
	return send_error(ctx, &notes->packet, notes);
}

/*
 * For frames that the helper puts back: on a device in generic mode they pass by here,
 * for xlvs_known sees them when the kernel receives them.
 */
SEC("xdp")
int xlvs_receive(struct xdp_md *ctx)
{
	return XDP_PASS;
}

/* Run by `up` to learn how long a jiffy is. The whole number is put into the frame. */
SEC("xdp")
int xlvs_clock(struct xdp_md *ctx)
{
	__u64 *jiffies = (void *)(long)ctx->data;

	if ((void *)(jiffies + 1) <= (void *)(long)ctx->data_end)
		*jiffies = bpf_jiffies64();
	return (int)now();
}

/* Run once by `up`: start the timer, or hand it to this generation's tick. */
SEC("xdp")
int xlvs_arm(struct xdp_md *ctx)
{
	struct xlvs_settings *set = settings_get();
	struct xlvs_ticker *t;
	__u32 zero = 0;

	t = bpf_map_lookup_elem(&ticker, &zero);
	if (!t || !set)
		return 1;
	bpf_timer_init(&t->timer, &ticker, CLOCK_MONOTONIC); /* -EBUSY: has been before */
	if (bpf_timer_set_callback(&t->timer, tick))
		return 2;
	return bpf_timer_start(&t->timer, set->tick_ns, 0) ? 3 : 0;
}

SEC("tc")
int xlvs_ingress(struct __sk_buff *skb)
{
	return companion_ingress(skb);
}

SEC("tc")
int xlvs_egress(struct __sk_buff *skb)
{
	return companion_egress(skb);
}

char LICENSE[] SEC("license") = "GPL";
