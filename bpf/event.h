/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Events for the slow-path helper: what needs a process because XDP cannot wait. Nobody
 * waits for the helper either: where it does not run, or is too slow, an event is lost.
 */
#ifndef XLVS_EVENT_H
#define XLVS_EVENT_H

#include "conn.h"
#include "outcome.h"

#define HELPER_PATIENCE 5 /* seconds without a sign of life, and it counts as gone */

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, XLVS_EVENTS_SIZE);
} events SEC(".maps");

static __always_inline bool helper_runs(const struct xlvs_settings *set)
{
	__u32 seen = READ_ONCE(set->helper_seen);

	return seen && now() - seen < HELPER_PATIENCE * set->hz;
}

/* Reserve, fill and submit an event that has room for size (a constant) bytes of frame. */
static __always_inline bool event_submit(struct xdp_md *ctx, enum xlvs_event_kind kind,
					 const struct flow *flow, __u32 value, __u32 length,
					 const __u32 size)
{
	struct xlvs_event *event = bpf_ringbuf_reserve(&events, sizeof(*event) + size, 0);
	struct xlvs_scratch *notes = scratch_get();

	if (!event)
		return false;
	if (!notes)
		goto discard;
	notes->event.kind = kind;
	notes->event.ifindex = ctx->ingress_ifindex;
	notes->event.slot = flow ? flow->ref & XLVS_REF_SLOT : 0;
	notes->event.phase = flow ? flow->generation | XLVS_LIVE : 0;
	notes->event.length = length;
	notes->event.value = value;
	*event = notes->event;
	asm volatile("" : "+r"(length)); /* two comparisons: 6.1's verifier loses the lower bound */
	if (length > size)
		goto discard;
	asm volatile("" : "+r"(length));
	if (length < sizeof(struct ethhdr) || bpf_xdp_load_bytes(ctx, 0, event + 1, length))
		goto discard;
	bpf_ringbuf_submit(event, 0);
	return true;
discard:
	bpf_ringbuf_discard(event, 0);
	return false;
}

/*
 * Show the helper the frame as it is now, with the connection it belongs to (or null);
 * false where it will not see it.
 */
static __always_inline bool event_send(struct xdp_md *ctx, enum xlvs_event_kind kind,
				       const struct flow *flow, __u32 value,
				       const struct xlvs_settings *set)
{
	__u32 length = end_of(ctx) - data_of(ctx);

	if (!helper_runs(set))
		return false;
	if (length <= XLVS_EVENT_SHORT)
		return event_submit(ctx, kind, flow, value, length, XLVS_EVENT_SHORT);
	return event_submit(ctx, kind, flow, value, length, XLVS_EVENT_FRAME);
}

/* Tell the helper about a connection, without a packet. */
static __always_inline void event_send_slot(enum xlvs_event_kind kind, __u32 slot, __u32 phase)
{
	struct xlvs_event *event = bpf_ringbuf_reserve(&events, sizeof(*event), 0);

	if (!event)
		return;
	__builtin_memset(event, 0, sizeof(*event));
	event->kind = kind;
	event->slot = slot;
	event->phase = phase;
	bpf_ringbuf_submit(event, 0);
}

/* Tell the helper about a datagram, whose key takes a frame's place. */
static __always_inline void event_send_key(enum xlvs_event_kind kind,
					   const struct xlvs_datagram_key *key,
					   const struct xlvs_settings *set)
{
	struct xlvs_event *event;

	if (!helper_runs(set))
		return;
	event = bpf_ringbuf_reserve(&events, sizeof(*event) + sizeof(*key), 0);
	if (!event)
		return;
	__builtin_memset(event, 0, sizeof(*event));
	event->kind = kind;
	event->length = sizeof(*key);
	__builtin_memcpy(event + 1, key, sizeof(*key));
	bpf_ringbuf_submit(event, 0);
}

/*
 * Leave a packet to the helper, which may put it back into the stream later; outcome says
 * what for.
 */
static __always_inline int leave_to_helper(struct xdp_md *ctx, enum xlvs_event_kind kind,
					   const struct flow *flow, __u32 value,
					   enum xlvs_outcome outcome,
					   const struct xlvs_settings *set)
{
	if (event_send(ctx, kind, flow, value, set))
		return drop_as(outcome);
	return drop_as(helper_runs(set) ? XLVS_DROP_HELPER_BUSY : XLVS_DROP_NO_HELPER);
}

#endif
