/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * SipHash-1-3 of one 32-bit word, cut to 32 bits: what the kernel's hsiphash() gives on
 * 64-bit machines (Aumasson and Bernstein, "SipHash: a fast short-input PRF").
 */
#ifndef XLVS_SCHEDULE_SIPHASH_H
#define XLVS_SCHEDULE_SIPHASH_H

#include <linux/types.h>

struct sip {
	__u64 a, b, c, d;
};

static __always_inline __u64 rotate(__u64 word, __u32 bits)
{
	return word << bits | word >> (64 - bits);
}

static __always_inline void sip_round(struct sip *s)
{
	s->a += s->b;
	s->b = rotate(s->b, 13) ^ s->a;
	s->a = rotate(s->a, 32);
	s->c += s->d;
	s->d = rotate(s->d, 16) ^ s->c;
	s->a += s->d;
	s->d = rotate(s->d, 21) ^ s->a;
	s->c += s->b;
	s->b = rotate(s->b, 17) ^ s->c;
	s->c = rotate(s->c, 32);
}

/* The key's two words are the same one, as mh's are. */
static __always_inline __u32 siphash_word(__u32 word, __u64 key)
{
	__u64 block = (__u64)sizeof(word) << 56 | word;
	struct sip s = {
		/* "somepseudorandomlygeneratedbytes" */
		.a = key ^ 0x736f6d6570736575ull,
		.b = key ^ 0x646f72616e646f6dull,
		.c = key ^ 0x6c7967656e657261ull,
		.d = key ^ 0x7465646279746573ull ^ block,
	};

	sip_round(&s);
	s.a ^= block;
	s.c ^= 0xff;
	sip_round(&s);
	sip_round(&s);
	sip_round(&s);
	return (__u32)(s.a ^ s.b ^ s.c ^ s.d);
}

#endif
