/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * SYN cookies: all that a connection needs to begin, in the sequence number that answers
 * a SYN, so that nothing has to be kept until the client shows that it is there.
 *
 *  31       10 9         8        7     6     3 2   0
 * | keyed hash | period | offer's | SACK | scale | MSS |
 *
 * The hash covers the two ends, the client's own number and the rest of the cookie. A
 * period is about a minute, and a cookie is good in its own and in the next.
 */
#ifndef XLVS_COOKIE_H
#define XLVS_COOKIE_H

#include "maps.h"
#include "schedule/siphash.h"

#define COOKIE_HASH_SHIFT  10
#define COOKIE_PERIOD	   0x200u
#define COOKIE_TURN	   0x100u /* XLVS_OFFER_TURN of the offer that was made with it */
#define COOKIE_SACK	   0x80u
#define COOKIE_SCALE_SHIFT 3
#define COOKIE_MSS	   7u

/* The usual segment sizes: Ethernet, PPPoE, common tunnels, and what everybody must take (RFC 9293, 3.7.1). */
static const __u16 cookie_mss[2][8] = {
	{ 536, 1200, 1300, 1360, 1400, 1440, 1452, 1460 },
	{ 536, 1220, 1300, 1340, 1380, 1420, 1432, 1440 },
};

/* About a minute, by shifting: a division costs as much as the rest of it. */
static __always_inline __u32 cookie_period(const struct xlvs_settings *set)
{
	__u32 shift = set->hz >= 1000 ? 16 : set->hz >= 250 ? 14 : 13;

	return (__u32)(bpf_jiffies64() >> shift);
}

static __always_inline void sip_take(struct sip *s, __u64 word)
{
	s->d ^= word;
	sip_round(s);
	s->a ^= word;
}

/* SipHash-1-3 with all of its key, of what names the client's attempt and of rest. */
static __always_inline __u32 cookie_hash(const struct packet *p, __u32 isn, __u64 rest,
					 const struct xlvs_settings *set)
{
	__u64 low = (__u64)set->cookie_key[1] << 32 | set->cookie_key[0];
	__u64 high = (__u64)set->cookie_key[3] << 32 | set->cookie_key[2];
	const __u32 *client = (const __u32 *)p->saddr, *virtual = (const __u32 *)p->daddr;
	struct sip s = {
		.a = low ^ 0x736f6d6570736575ull,
		.b = high ^ 0x646f72616e646f6dull,
		.c = low ^ 0x6c7967656e657261ull,
		.d = high ^ 0x7465646279746573ull,
	};

	sip_take(&s, (__u64) virtual[0] << 32 | client[0]);
	if (p->family == XLVS_IPV6) {
		sip_take(&s, (__u64) virtual[1] << 32 | client[1]);
		sip_take(&s, (__u64) virtual[2] << 32 | client[2]);
		sip_take(&s, (__u64) virtual[3] << 32 | client[3]);
	}
	sip_take(&s, (__u64)isn << 32 | (__u32)p->dport << 16 | p->sport);
	sip_take(&s, rest << 8 | p->family);
	s.c ^= 0xff;
	sip_round(&s);
	sip_round(&s);
	sip_round(&s);
	return (__u32)(s.a ^ s.b ^ s.c ^ s.d) << COOKIE_HASH_SHIFT;
}

/* The cookie whose other bits are data, made in that period. */
static __always_inline __u32 cookie_of(const struct packet *p, __u32 isn, __u32 data, __u32 period,
				       const struct xlvs_settings *set)
{
	data |= period & 1 ? COOKIE_PERIOD : 0;
	return cookie_hash(p, isn, (__u64)period << COOKIE_HASH_SHIFT | data, set) | data;
}

static __always_inline __u32 cookie_data(const struct packet *p, __u32 offer, __u32 turn)
{
	__u32 family = p->family == XLVS_IPV6, mss = offer & 0xffff, data = 0;

#pragma unroll
	for (int i = 1; i < 8; i++)
		data += mss >= cookie_mss[family][i];
	data |= (offer >> 16 & 15) << COOKIE_SCALE_SHIFT;
	data |= offer & XLVS_OFFER_SACK ? COOKIE_SACK : 0;
	return data | (turn & XLVS_OFFER_TURN ? COOKIE_TURN : 0);
}

/* What a cookie says of the client's SYN, as cookie_data was given it. */
static __always_inline __u32 cookie_offer(const struct packet *p, __u32 cookie)
{
	__u32 offer = cookie_mss[p->family == XLVS_IPV6][cookie & COOKIE_MSS];

	offer |= (cookie >> COOKIE_SCALE_SHIFT & 15) << 16;
	return offer | (cookie & COOKIE_SACK ? XLVS_OFFER_SACK : 0);
}

/* Whether the director gave this cookie to this client for a SYN of that number, lately. */
static __always_inline bool cookie_good(const struct packet *p, __u32 isn, __u32 cookie,
					const struct xlvs_settings *set)
{
	__u32 period = cookie_period(set);

	if ((period & 1) != !!(cookie & COOKIE_PERIOD))
		period--;
	return cookie_of(p, isn, cookie & ((1 << COOKIE_HASH_SHIFT) - 1), period, set) == cookie;
}

#endif
