/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * TCP's options (RFC 9293, 3.1), edited in the CPU's scratch and written back at once. A walk
 * ends where every receiver's does: at the end of list, and at a length that cannot be.
 */
#ifndef XLVS_TCP_OPTIONS_H
#define XLVS_TCP_OPTIONS_H

#include "checksum.h"

#define OPTION_END	   0
#define OPTION_NOP	   1
#define OPTION_MSS	   2
#define OPTION_MSS_SIZE	   4
#define OPTION_SACK_OK	   4 /* RFC 2018 */
#define OPTION_SACK	   5
#define OPTION_TIMESTAMPS  8 /* RFC 7323 */
#define OPTION_STAMPS_SIZE 10
#define OPTION_FAST_OPEN   34
#define OPTION_TOA	   254 /* the client's address; sysctl toa_kind may say another */
#define OPTION_TOA_OLD	   200 /* the kind that early senders had */
#define SACK_EDGES	   8   /* of at most four blocks */
/* Two NOPs and timestamps: what nearly every segment has that has options at all. */
#define PLAIN_TIMESTAMPS 0x0101080a
#define PLAIN_WORDS	 8 /* length of its header in words */

/* Whether a TCP segment has options that need a look, or an IPv4 datagram any. */
static __always_inline bool has_odd_options(struct xdp_md *ctx, const struct packet *p)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	struct tcphdr *tcp = data + l4_of(p);
	__be32 *first = (void *)(tcp + 1);
	__u32 words;

	if (p->protocol == IPPROTO_UDP)
		return p->family == XLVS_IPV4 && p->l4 - p->l3 > (int)sizeof(struct iphdr);
	if (p->protocol != IPPROTO_TCP || (void *)(tcp + 1) > end)
		return false;
	words = ((__u8 *)tcp)[12] >> 4;
	if (words <= 5)
		return false;
	return words != PLAIN_WORDS || (void *)(first + 1) > end ||
	       *first != bpf_htonl(PLAIN_TIMESTAMPS);
}

/* Store a number of the TCP header, at an even place, and correct the checksum. */
static __noinline bool tcp_store(struct xdp_md *ctx, const struct packet *p, __u32 at, __u32 number)
{
	__be32 old, new = bpf_htonl(number);
	__u16 *check;

	if (bpf_xdp_load_bytes(ctx, at, &old, sizeof(old)) ||
	    bpf_xdp_store_bytes(ctx, at, &new, sizeof(new)))
		return false;
	check = check_field((void *)(long)ctx->data, (void *)(long)ctx->data_end, p);
	if (!check)
		return false;
	if (!checksum_partial(p, *check))
		*check = csum_replace(*check, old, new);
	return true;
}

static __always_inline __u32 options_at(const struct packet *p)
{
	return l4_of(p) + sizeof(struct tcphdr);
}

static __always_inline __u64 options_sum(const __u8 *options)
{
	return csum_fold(bpf_csum_diff(0, 0, (__be32 *)options, TCP_OPTIONS, 0));
}

/* Begin an edit of the segment's options, that many bytes. */
static __always_inline bool options_load(struct xdp_md *ctx, const struct packet *p, __u32 length,
					 struct option_edit *e)
{
	__builtin_memset(e, 0, sizeof(*e));
	e->length = length;
	if (!length)
		return true;
	if (length > TCP_OPTIONS ||
	    bpf_xdp_load_bytes(ctx, options_at(p), e->was, ((length - 1) & OPTION_PLACE) + 1))
		return false;
	__builtin_memcpy(e->is, e->was, sizeof(e->is));
	return true;
}

static __always_inline bool option_goes(const struct option_edit *e, __u8 kind)
{
	if (e->claim)
		return kind == e->claim;
	if (e->strip && (kind == e->toa_kind || kind == OPTION_TOA || kind == OPTION_TOA_OLD))
		return true;
	switch (kind) {
	case OPTION_TIMESTAMPS:
		return e->no_timestamps;
	case OPTION_FAST_OPEN:
		return e->no_fast_open;
	case OPTION_SACK_OK:
		return e->no_sack;
	default:
		return false;
	}
}

/* The option that begins at a place: its size, or 0 where the walk ends. */
static __always_inline __u32 option_size(const struct option_edit *e, __u32 at)
{
	__u8 kind = e->is[at & OPTION_PLACE], size;

	if (kind == OPTION_END)
		return 0;
	if (kind == OPTION_NOP)
		return 1;
	size = e->is[(at + 1) & OPTION_PLACE];
	return size < 2 || at + size > e->length ? 0 : size;
}

static __always_inline void lower_mss(struct option_edit *e, __u32 at)
{
	__be16 *place = (void *)(e->is + (at & OPTION_PLACE));
	__u32 mss = bpf_ntohs(*place);

	if (e->mss_most && mss > e->mss_most)
		mss = e->mss_most;
	if (mss > e->mss_less)
		mss -= e->mss_less;
	*place = bpf_htons(mss);
}

static __always_inline bool begin_option(struct option_edit *e, __u32 at)
{
	__u8 kind = e->is[at & OPTION_PLACE];
	__u32 size = option_size(e, at);

	if (!size)
		return false;
	e->next = at + size;
	e->blank = size > 1 && option_goes(e, kind);
	if (e->blank || size == 1)
		return true;
	e->kept += size;
	if (kind == OPTION_TIMESTAMPS) {
		e->stamp = size;
		e->stamps = size == OPTION_STAMPS_SIZE ? at + 2 : 0;
	}
	if (kind == OPTION_MSS && size == OPTION_MSS_SIZE)
		lower_mss(e, at + 2);
	if (kind == OPTION_SACK) {
		e->sack = at + 2;
		e->blocks = (size - 2) / 8;
	}
	return true;
}

static long edit_place(__u32 at, void *unused)
{
	struct xlvs_scratch *notes = scratch_get();
	struct option_edit *e;

	if (!notes)
		return 1;
	e = &notes->edit;
	if (at >= e->next && !begin_option(e, at))
		return 1;
	if (e->blank)
		e->is[at & OPTION_PLACE] = OPTION_NOP;
	return 0;
}

/*
 * Do to the options in the CPU's scratch what is asked for there; 0 where that was nothing. A
 * global function: each program verifies it once.
 */
__noinline int options_edit(void)
{
	struct xlvs_scratch *notes = scratch_get();
	struct option_edit *e;
	const __u64 *was, *is;

	if (!notes)
		return 0;
	e = &notes->edit;
	bpf_loop(e->length, edit_place, 0, 0);
	was = (const __u64 *)e->was;
	is = (const __u64 *)e->is;
	return was[0] != is[0] || was[1] != is[1] || was[2] != is[2] || was[3] != is[3] ||
	       was[4] != is[4];
}

static long pack_place(__u32 at, void *unused)
{
	struct xlvs_scratch *notes = scratch_get();
	struct option_edit *e;
	__u32 size;
	__u8 kind;

	if (!notes)
		return 1;
	e = &notes->edit;
	if (at >= e->next) {
		kind = e->is[at & OPTION_PLACE];
		size = option_size(e, at);
		if (!size)
			return 1;
		e->next = at + size;
		if (kind == OPTION_SACK && size > e->room)
			e->is[(at + 1) & OPTION_PLACE] = size = e->room;
		else if (kind == OPTION_NOP ||
			 (kind != OPTION_TIMESTAMPS && !e->others && kind != OPTION_SACK))
			size = 0;
		if (e->out + size > TCP_OPTIONS) /* timestamps more than once */
			size = 0;
		e->stop = at + size;
	}
	if (at < e->stop)
		e->made[e->out++ & OPTION_PLACE] = e->is[at & OPTION_PLACE];
	return 0;
}

/*
 * The edited options behind what is in e->made already, so many bytes: as they are, or where
 * the header has no room for that, without padding; if need be, timestamps alone (to leave
 * them out would end the connection, RFC 7323, 3.2) and as many selective acknowledgements as
 * there is room for. Their length then. A global function, as above.
 */
__noinline int options_pack(__u32 used)
{
	struct xlvs_scratch *notes = scratch_get();
	struct option_edit *e;
	__u32 room, blocks;

	if (!notes || used > TCP_OPTIONS)
		return 0;
	e = &notes->edit;
	room = TCP_OPTIONS - used;
	e->others = e->kept <= room;
	blocks = room >= e->stamp + 2 ? (room - e->stamp - 2) / 8 : 0;
	e->room = e->others ? TCP_OPTIONS : blocks ? 2 + blocks * 8 : 0;
	e->out = used;
	e->next = 0;
	e->stop = 0;
	bpf_loop(e->length, pack_place, 0, 0);
	return (e->out + 3) & ~3;
}

#endif
