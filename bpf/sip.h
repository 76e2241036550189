/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The persistence engine "sip": the Call-ID of a SIP message over UDP (RFC 3261, 20.8),
 * read as the kernel does (ct_sip_get_header in nf_conntrack_sip.c): a header line of that
 * name or its short form, its value a word, or two with an at sign between.
 */
#ifndef XLVS_SIP_H
#define XLVS_SIP_H

#include "maps.h"

enum sip_place {
	SIP_IN_LINE,
	SIP_LINE_START,
	SIP_NAME,
	SIP_SHORT_NAME,
	SIP_AFTER_NAME,
	SIP_AFTER_COLON,
	SIP_VALUE,
	SIP_FOUND,
	SIP_NOT_THERE,
};

#define SIP_NAME_LENGTH 7 /* of "call-id" */
#define SIP_SEED	0xcbf29ce484222325ull
#define SIP_PRIME	0x100000001b3ull /* FNV-1a, begun with a secret */

static __always_inline bool is_line_end(__u8 c)
{
	return c == '\r' || c == '\n';
}

static __always_inline bool is_blank(__u8 c)
{
	return c == ' ' || c == '\t';
}

static __always_inline bool is_letter(__u8 c)
{
	return (c | 0x20) >= 'a' && (c | 0x20) <= 'z';
}

/* RFC 3261, 25.1: word. One bit a character of ASCII. */
static __always_inline bool is_word(__u8 c)
{
	/* ! " % ' ( ) * + - . / 0-9 : < > ?  and  A-Z [ \ ] _ ` a-z { } ~ */
	const __u64 low = 0xd7ffefa600000000ull, high = 0x6fffffffbffffffeull;

	return c < 64 ? low >> c & 1 : c < 128 ? high >> (c - 64) & 1 : false;
}

/* What comes after the name's last letter. */
static __always_inline __u32 sip_after_name(__u8 c)
{
	return c == ':' ? SIP_AFTER_COLON : is_blank(c) ? SIP_AFTER_NAME : SIP_NOT_THERE;
}

static __always_inline __u32 sip_line_start(struct sip_walk *w, __u8 c)
{
	w->matched = 1;
	return is_line_end(c)	   ? SIP_LINE_START
	       : (c | 0x20) == 'c' ? SIP_NAME
	       : (c | 0x20) == 'i' ? SIP_SHORT_NAME
				   : SIP_IN_LINE;
}

static __always_inline __u32 sip_name(struct sip_walk *w, __u8 c)
{
	const __u64 name = 0x0064692d6c6c6163ull; /* "call-id", first letter lowest */
	__u8 letter = c == '-' ? c : c | 0x20;

	if (w->matched == SIP_NAME_LENGTH)
		return sip_after_name(c);
	if (is_line_end(c))
		return SIP_LINE_START;
	return (__u8)(name >> (8 * (w->matched++ & 7))) == letter ? SIP_NAME : SIP_IN_LINE;
}

static __always_inline __u32 sip_value(struct sip_walk *w, __u8 c, __u32 at)
{
	w->end = at;
	if (c == '@' && !w->domain && at > w->start)
		w->domain = at + 1;
	else if (!is_word(c))
		return is_line_end(c) && at > w->start && at != w->domain ? SIP_FOUND
									  : SIP_NOT_THERE;
	w->hash = (w->hash ^ c) * SIP_PRIME;
	return SIP_VALUE;
}

static long sip_step(__u32 at, void *unused)
{
	struct xlvs_scratch *notes = scratch_get();
	struct sip_walk *w;
	__u8 c;

	if (!notes)
		return 1;
	w = &notes->sip;
	if (at >= w->length)
		return 1;
	c = notes->payload[at & (PAYLOAD_SIZE - 1)];
	switch (w->place) {
	case SIP_IN_LINE:
		w->place = is_line_end(c) ? SIP_LINE_START : SIP_IN_LINE;
		break;
	case SIP_LINE_START:
		w->place = sip_line_start(w, c);
		break;
	case SIP_NAME:
		w->place = sip_name(w, c);
		break;
	case SIP_SHORT_NAME:
		w->place = is_line_end(c) ? SIP_LINE_START
			   : is_letter(c) ? SIP_IN_LINE
					  : sip_after_name(c);
		break;
	case SIP_AFTER_NAME:
		w->place = sip_after_name(c);
		break;
	case SIP_AFTER_COLON:
		if (is_blank(c))
			break;
		w->start = at;
		w->place = SIP_VALUE;
		/* fall through */
	case SIP_VALUE:
		w->place = sip_value(w, c, at);
		break;
	}
	return w->place >= SIP_FOUND;
}

/*
 * Read the Call-ID of a SIP message into notes->engine, a hash of it into
 * notes->engine_hash. False where there is none, or one too long.
 */
static __always_inline bool sip_call_id(struct xdp_md *ctx, const struct packet *p,
					struct xlvs_scratch *notes, const struct xlvs_settings *set)
{
	__u32 offset = p->l4 + sizeof(struct udphdr), length = p->length - (offset - p->l3);
	struct sip_walk *w = &notes->sip;

	if (p->protocol != IPPROTO_UDP || p->length <= offset - p->l3)
		return false;
	if (length > PAYLOAD_SIZE)
		length = PAYLOAD_SIZE;
	if (bpf_xdp_load_bytes(ctx, offset, notes->payload,
			       ((length - 1) & (PAYLOAD_SIZE - 1)) + 1))
		return false;
	__builtin_memset(w, 0, sizeof(*w));
	w->hash = SIP_SEED ^ (__u64)set->hash_seed << 32;
	w->length = length;
	bpf_loop(PAYLOAD_SIZE, sip_step, 0, 0);
	length = w->end - w->start;
	if (w->place != SIP_FOUND || length > XLVS_ENGINE_DATA)
		return false;
	__builtin_memset(&notes->engine, 0, sizeof(notes->engine));
	notes->engine.length = length;
	notes->engine_hash = w->hash;
	return !bpf_xdp_load_bytes(ctx, offset + w->start, notes->engine.text,
				   ((length - 1) & 255) + 1 > XLVS_ENGINE_DATA
					   ? XLVS_ENGINE_DATA
					   : ((length - 1) & 255) + 1);
}

#endif
