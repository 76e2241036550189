/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What time does, without any process: a timer looks at a chunk of the slots every
 * few milliseconds, ends connections whose time is up, and every two seconds steps
 * the rate estimators. It lives as long as its map is pinned.
 */
#ifndef XLVS_EXPIRE_H
#define XLVS_EXPIRE_H

#include "event.h"
#include "half_open.h"
#include "schedule/forget.h"

#define CLOCK_MONOTONIC 1
#define RATE_SECONDS	2
#define RATE_CHUNK	512 /* rows stepped in one tick */
#define RATE_FIELDS	5

struct xlvs_ticker {
	struct bpf_timer timer;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct xlvs_ticker);
} ticker SEC(".maps");

struct sweep {
	__u32 first;
	__u32 time;
	__u32 slack; /* last-seen times are this coarse */
	__u32 second;
	__u32 mask;
	__u32 dropping; /* drop_entry is at work */
	__u32 helped;	/* the helper runs */
	__u32 orphans;	/* expire_nodest_conn: those of deleted destinations end, too */
	__u32 resets;	/* expire_reset: ends of established connections are told */
};

/*
 * Whether both ends still believe in a connection that nobody else could put an end to: what
 * they send after it would meet the director's own stack, under other numbers than theirs.
 */
static __always_inline bool to_be_reset(const struct xlvs_conn *conn)
{
	return conn->flags & XLVS_CONN_SHIFTED && conn->protocol == IPPROTO_TCP &&
	       (conn->state & 0xf) == XLVS_TCP_ESTABLISHED;
}

/*
 * End it, and have the helper reset both ends. A helper that runs and does not keep up will be
 * asked in the next round: until then it lives.
 */
static __noinline void expire_and_reset(struct xlvs_conn *conn, __u32 slot)
{
	struct xlvs_settings *set = settings_get();
	struct xlvs_scratch *notes = scratch_get();
	bool helped;

	if (!set || !notes)
		return;
	helped = helper_runs(set);
	if (helped && bpf_ringbuf_query(&events, BPF_RB_AVAIL_DATA) > XLVS_EVENTS_SIZE / 2)
		return;
	__builtin_memset(&notes->expired.event, 0, sizeof(notes->expired.event));
	notes->expired.event.kind = XLVS_EVENT_EXPIRED;
	notes->expired.event.slot = slot;
	notes->expired.event.length = sizeof(notes->expired.conn);
	__builtin_memcpy(&notes->expired.conn, conn, sizeof(notes->expired.conn));
	if (!conn_end(conn, slot))
		return;
	if (!helped || bpf_ringbuf_output(&events, &notes->expired, sizeof(notes->expired), 0))
		__sync_fetch_and_add(&set->unreset, 1);
}

/* A template that connections still hang on waits a minute more (ip_vs_conn_expire). */
static __always_inline void expire(struct xlvs_conn *conn, __u32 slot, const struct sweep *s)
{
	if (READ_ONCE(conn->controlled)) {
		conn->seen = s->time;
		conn->timeout = 60 * s->second;
		return;
	}
	if (s->resets && to_be_reset(conn))
		expire_and_reset(conn, slot);
	else
		conn_end(conn, slot);
}

/*
 * drop_entry, in a second of which one slot in 32 is looked at: whether a connection that
 * has sent but few packets is in bad luck (todrop_entry).
 */
static __always_inline bool drawn(const struct xlvs_conn *conn, __s32 idle, const struct sweep *s)
{
	__u32 packets = conn->in_packets;

	if (idle < 60 * (__s32)s->second || packets < 1 || packets > 8)
		return false;
	return bpf_get_prandom_u32() % packets == 0;
}

/* Which connections drop_entry ends while memory is short (ip_vs_random_dropentry). */
static __always_inline bool thinned_out(const struct xlvs_conn *conn, __s32 idle,
					const struct sweep *s)
{
	__u32 state = conn->state & 0xf;

	if (bpf_get_prandom_u32() & 31 || conn->controlled)
		return false;
	if (conn->flags & XLVS_CONN_TEMPLATE)
		return state != XLVS_TEMPLATE_ASSURED;
	if (conn->protocol == IPPROTO_TCP) {
		if (state == XLVS_TCP_SYN_RECV || state == XLVS_TCP_SYNACK)
			return true;
		return state == XLVS_TCP_ESTABLISHED && drawn(conn, idle, s);
	}
	if (conn->protocol == IPPROTO_SCTP) {
		if (state == XLVS_SCTP_INIT1 || state == XLVS_SCTP_INIT)
			return true;
		return state == XLVS_SCTP_ESTABLISHED && drawn(conn, idle, s);
	}
	return drawn(conn, idle, s);
}

/* End it, and a template that nobody needs any more and that was never answered on. */
static __always_inline void conn_thin_out(struct xlvs_conn *conn, __u32 slot)
{
	struct xlvs_conn *template = conn_template(conn);

	conn_end(conn, slot);
	if (template && !template->controlled &&
	    (!(template->flags & XLVS_CONN_TEMPLATE) || template->state != XLVS_TEMPLATE_ASSURED))
		template->timeout = 0;
}

/* Whether its destination was deleted (ip_vs_expire_nodest_conn_flush). */
static __always_inline bool orphaned(const struct xlvs_conn *conn)
{
	__u32 row = conn->dest;
	struct xlvs_dest *dest = bpf_map_lookup_elem(&dests, &row);

	return dest && !(dest->flags & XLVS_DEST_AVAILABLE) && !conn->controlled;
}

/*
 * A UDP connection whose server is told the client: again, about each second that it is used in.
 * Who has other flags by now is another connection.
 */
static __always_inline void remind(struct xlvs_conn *conn, __s32 idle, const struct sweep *s)
{
	__u32 flags;

	if (idle > 2 * (__s32)s->second || conn->protocol != IPPROTO_UDP)
		return;
	flags = READ_ONCE(conn->flags);
	if (flags & XLVS_CONN_TOA && !(flags & XLVS_CONN_OPENING))
		__sync_val_compare_and_swap(&conn->flags, flags, flags | XLVS_CONN_OPENING);
}

static long sweep_slot(__u32 step, struct sweep *s)
{
	__u32 slot = (s->first + step) & s->mask, phase;
	struct xlvs_conn *conn = conn_at(slot);
	__s32 idle;

	if (!conn)
		return 1;
	phase = conn->phase & XLVS_PHASE;
	if (phase == XLVS_FREE)
		return 0;
	idle = s->time - conn->seen; /* below 0: seen since the sweep began */
	if (phase == XLVS_LIVE && idle >= 0 && (__u32)idle >= conn->timeout + s->slack)
		expire(conn, slot, s);
	else if (phase == XLVS_LIVE && s->dropping && thinned_out(conn, idle, s))
		conn_thin_out(conn, slot);
	else if (phase == XLVS_LIVE && s->orphans && orphaned(conn))
		conn_end(conn, slot);
	else if (phase == XLVS_LIVE && s->helped && (conn->state & 0xf) == XLVS_TCP_SYN_SENT &&
		 is_half_open(conn) && half_open_due(conn, s->time, s->second))
		event_send_slot(XLVS_EVENT_UNANSWERED, slot, conn->phase);
	else if (phase == XLVS_LIVE)
		remind(conn, idle, s);
	else if (phase == XLVS_DYING && idle > (__s32)s->second)
		conn_bury(conn, slot);
	return 0;
}

static __always_inline void sweep(struct xlvs_settings *set)
{
	struct sweep s = {
		.first = set->scan_next,
		.time = now(),
		.slack = set->hz / 4,
		.second = set->hz,
		.mask = conn_mask,
		.dropping = set->drop_entries,
		.helped = helper_runs(set),
		.orphans = set->sysctl.expire_nodest_conn,
		.resets = set->sysctl.expire_reset,
	};

	bpf_loop(set->scan_chunk, sweep_slot, &s, 0);
	if (s.first + set->scan_chunk > conn_mask)
		set->scan_rounds++;
	set->scan_next = (s.first + set->scan_chunk) & conn_mask;
}

struct sum {
	__u32 row;
	__u64 total[RATE_FIELDS];
};

static long add_cpu(__u32 cpu, struct sum *s)
{
	__u32 row = cpu * XLVS_ROWS + s->row;
	struct xlvs_counters *c = bpf_map_lookup_elem(&counters, &row);

	if (!c)
		return 1;
	s->total[0] += c->connections;
	s->total[1] += c->in_packets;
	s->total[2] += c->out_packets;
	s->total[3] += c->in_bytes;
	s->total[4] += c->out_bytes;
	return 0;
}

/* A row is stepped if a service or destination uses it. */
static __always_inline bool row_used(__u32 row)
{
	struct xlvs_service *service;
	struct xlvs_dest *dest;
	__u32 at;

	if (row < XLVS_ROW_DEST) {
		at = row;
		service = bpf_map_lookup_elem(&services, &at);
		return service && service->flags & XLVS_SERVICE_USED;
	}
	at = row - XLVS_ROW_DEST;
	dest = bpf_map_lookup_elem(&dests, &at);
	return dest && dest->flags & XLVS_DEST_USED;
}

struct rate_walk {
	__u32 first;
	__u32 cpus;
};

/* Scales as in the kernel: a 2-second difference times 2^9 is a rate times 2^10. */
static long step_rate(__u32 step, struct rate_walk *walk)
{
	__u32 row = walk->first + step;
	struct xlvs_rate *rate = bpf_map_lookup_elem(&rates, &row);
	struct sum s = { .row = row };

	if (!rate)
		return 1;
	if (!row_used(row))
		return 0;
	bpf_loop(walk->cpus, add_cpu, &s, 0);
#pragma unroll
	for (int i = 0; i < RATE_FIELDS; i++) {
		__s64 moved = s.total[i] - rate->last[i];
		__u64 now_rate;

		if (moved < 0) /* zeroed between the two reads */
			moved = 0;
		now_rate = (__u64)moved << (i < 3 ? 9 : 4);

		rate->last[i] = s.total[i];
		rate->average[i] += (__s64)(now_rate - rate->average[i]) >> 2;
	}
	return 0;
}

static __always_inline void step_rates(struct xlvs_settings *set)
{
	struct rate_walk walk = { .cpus = set->cpus };

	if (!set->rates_next) {
		if ((__s32)(now() - set->rates_due) < 0)
			return;
		set->rates_due += RATE_SECONDS * set->hz;
		if ((__s32)(now() - set->rates_due) >= 0) /* first step, or long asleep */
			set->rates_due = now() + RATE_SECONDS * set->hz;
		if (!set->sysctl.run_estimation) /* rates stay as they are (estimation_timer) */
			return;
		set->rates_next = 1;
	}
	walk.first = set->rates_next - 1;
	bpf_loop(RATE_CHUNK, step_rate, &walk, 0);
	set->rates_next += RATE_CHUNK;
	if (set->rates_next > XLVS_ROWS)
		set->rates_next = 0;
}

static int tick(void *map, __u32 *key, struct xlvs_ticker *t)
{
	struct xlvs_settings *set = settings_get();

	if (!set)
		return 0;
	bpf_timer_start(&t->timer, set->tick_ns, 0);
	set->now = now();
	if (set->flags & XLVS_MIGRATING)
		return 0; /* both tables hold every connection just now */
	sweep(set);
	step_rates(set);
	forget_localities(set);
	return 0;
}

#endif
