/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The sentences in which FTP names an address and a port (RFC 959, RFC 2428), read and
 * written as the kernel's net/netfilter/ipvs/ip_vs_ftp.c does: whatever it accepts and
 * whatever it overlooks. The text lies in the CPU's scratch; a callback takes it byte by
 * byte, so that its length is no concern of the verifier's.
 */
#ifndef XLVS_FTP_TEXT_H
#define XLVS_FTP_TEXT_H

#include "maps.h"

/* Four letters as one word, as they lie in memory; letters without their case. */
#define FTP_WORD(a, b, c, d) ((__u32)(a) | (__u32)(b) << 8 | (__u32)(c) << 16 | (__u32)(d) << 24)
#define FTP_NO_CASE	     0xdfdfdfdfu

static __always_inline bool is_digit(__u8 c)
{
	return c >= '0' && c <= '9';
}

static __always_inline bool is_extended(const struct ftp_reader *r)
{
	return r->sentence == SAYS_EPRT || r->sentence == SAYS_229;
}

/* The callbacks' answers to bpf_loop. */
#define READ_ON	 0
#define READ_END 1

static __always_inline long read_number(struct ftp_reader *r, __u8 c, __u32 at)
{
	if (is_digit(c)) {
		r->number = r->number * 10 + c - '0';
		return r->number > 255 ? READ_END : READ_ON;
	}
	if (c == ',' && r->numbers < 5) {
		r->digits = r->digits << 8 | r->number;
		r->number = 0;
		r->numbers++;
		return READ_ON;
	}
	r->port = (r->digits & 0xff) << 8 | r->number;
	r->digits >>= 8;
	r->end = at;
	r->understood = r->numbers == 5;
	return READ_END;
}

static __always_inline long read_family(struct ftp_reader *r, __u8 c)
{
	if (c == r->delimiter) {
		r->place = NOTHING;
		return r->sentence == SAYS_229 ? READ_ON : READ_END;
	}
	r->place = FAMILY_END;
	return c == (r->family == XLVS_IPV6 ? '2' : '1') ? READ_ON : READ_END;
}

static __always_inline long address_end(struct ftp_reader *r)
{
	r->place = PORT;
	r->number = 0;
	r->addressed = true;
	return READ_ON;
}

static __always_inline void put_word(struct ftp_reader *r, __u32 word)
{
	struct ftp_words *words = r->gap ? &r->tail : &r->head;

	words->high = words->high << 16 | words->low >> 48;
	words->low = words->low << 16 | word;
	words->count++;
}

static __always_inline bool words_complete(const struct ftp_reader *r)
{
	__u32 count = r->head.count + r->tail.count;

	return r->gap ? count < 8 : count == 8;
}

/* The dotted form; it may end an IPv6 address, too. */
static __always_inline long read_ipv4(struct ftp_reader *r, __u8 c)
{
	if (c != r->delimiter && is_digit(c)) {
		r->begun = true;
		r->number = r->number * 10 + c - '0';
		return r->number > 255 ? READ_END : READ_ON;
	}
	if (!r->begun || (c != r->delimiter && c != '.'))
		return READ_END;
	r->digits = r->digits << 8 | r->number;
	r->number = 0;
	r->begun = false;
	r->numbers++;
	if (c != r->delimiter)
		return r->numbers < 4 ? READ_ON : READ_END;
	if (r->numbers != 4)
		return READ_END;
	if (!r->dotted)
		return address_end(r);
	put_word(r, r->digits >> 16);
	put_word(r, r->digits & 0xffff);
	return words_complete(r) ? address_end(r) : READ_END;
}

static __always_inline int hex_value(__u8 c)
{
	if (is_digit(c))
		return c - '0';
	c |= 0x20; /* lower case */
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static __always_inline long read_word(struct ftp_reader *r, __u8 c)
{
	int digit = hex_value(c);

	/* One colon alone begins no address; a word has four digits. */
	if (digit < 0 || r->number & 0xf000 || (r->colons == 1 && !r->gap && !r->head.count))
		return READ_END;
	r->number = r->number << 4 | digit;
	/* Should a dot follow, it was a decimal number. */
	r->decimal = digit > 9 || r->decimal > 255 ? 256 : r->decimal * 10 + digit;
	r->begun = true;
	r->colons = 0;
	return READ_ON;
}

static __always_inline long read_ipv6(struct ftp_reader *r, __u8 c)
{
	if (c == '.' && c != r->delimiter) {
		r->dotted = true;
		r->digits = r->decimal;
		r->numbers = 1;
		r->number = 0;
		if (!r->begun || r->digits > 255)
			return READ_END;
		r->begun = false;
		return READ_ON;
	}
	if (c != r->delimiter && c != ':')
		return read_word(r, c);
	if (r->begun)
		put_word(r, r->number);
	r->begun = false;
	r->number = r->decimal = 0;
	if (c == r->delimiter)
		return r->colons != 1 && words_complete(r) ? address_end(r) : READ_END;
	if (r->colons && r->gap)
		return READ_END;
	if (r->colons)
		r->gap = true;
	r->colons++;
	return r->head.count + r->tail.count < 8 ? READ_ON : READ_END;
}

static __always_inline long read_port(struct ftp_reader *r, __u8 c, __u32 at)
{
	if (is_digit(c)) {
		r->port = r->port * 10 + c - '0';
		return r->port > 65535 ? READ_END : READ_ON;
	}
	r->end = at + 1;
	r->understood = r->port && c == r->delimiter;
	return READ_END;
}

static __always_inline long read_delimiter(struct ftp_reader *r, __u8 c)
{
	r->delimiter = c;
	r->place = FAMILY;
	return c >= 33 && c <= 126 ? READ_ON : READ_END;
}

/* From the sentence's word to where address and port begin. */
static __always_inline long read_opening(struct ftp_reader *r, __u8 c, __u32 at)
{
	__u8 skipped = r->sentence == SAYS_227 || r->sentence == SAYS_229 ? '(' : ' ';

	/* In the old form the opening may be missing. */
	if (r->place == BEFORE && (is_extended(r) || !is_digit(c))) {
		if (c == skipped)
			r->place = OPENED;
		return READ_ON;
	}
	if (r->place == OPENED && c == skipped)
		return READ_ON;
	r->start = at;
	if (is_extended(r))
		return read_delimiter(r, c);
	r->place = NUMBERS;
	return read_number(r, c, at);
}

static long ftp_read_byte(__u32 step, void *unused)
{
	struct xlvs_scratch *notes = scratch_get();
	struct ftp_reader *r;
	__u32 at;
	__u8 c;

	if (!notes)
		return READ_END;
	r = &notes->ftp.reader;
	at = r->first + step;
	c = notes->payload[at & (PAYLOAD_SIZE - 1)];
	switch (r->place) {
	case BEFORE:
	case OPENED:
		return read_opening(r, c, at);
	case NUMBERS:
		return read_number(r, c, at);
	case FAMILY:
		return read_family(r, c);
	case NOTHING:
		r->place = PORT;
		return c == r->delimiter ? READ_ON : READ_END;
	case FAMILY_END:
		r->place = ADDRESS;
		return c == r->delimiter ? READ_ON : READ_END;
	case ADDRESS:
		return r->family == XLVS_IPV6 && !r->dotted ? read_ipv6(r, c) : read_ipv4(r, c);
	default:
		return read_port(r, c, at);
	}
}

/*
 * Read a sentence at the beginning of the text of that length, which begins with word
 * (under mask). Nothing is understood that the segment does not hold whole. A global
 * function: verified once.
 */
__noinline int ftp_read(__u32 sentence, __u32 family, __u32 word, __u32 mask, __u32 length)
{
	struct xlvs_scratch *notes = scratch_get();
	struct ftp_reader *r;

	if (!notes)
		return false;
	r = &notes->ftp.reader;
	if (length <= 4 || ((*(__u32 *)notes->payload ^ word) & mask))
		return false;
	__builtin_memset(r, 0, sizeof(*r));
	r->sentence = sentence;
	r->family = family;
	r->first = 4;
	bpf_loop((length - 4) & (PAYLOAD_SIZE - 1), ftp_read_byte, 0, 0);
	return r->understood;
}

static __always_inline void shift_words(struct ftp_words *words, __u32 count)
{
	__u32 bits = 16 * (count & 3);

	if (count & 4) {
		words->high = words->low;
		words->low = 0;
	}
	if (bits) {
		words->high = words->high << bits | words->low >> (64 - bits);
		words->low <<= bits;
	}
}

/* The address that was named. */
static __always_inline void ftp_address(const struct ftp_reader *r, __u8 *to)
{
	struct ftp_words words = r->head;
	__be64 *halves = (__be64 *)to;

	halves[0] = halves[1] = 0;
	if (r->family == XLVS_IPV4) {
		*(__be32 *)to = bpf_htonl((__u32)r->digits);
		return;
	}
	if (r->gap && words.count)
		shift_words(&words, (8 - words.count) & 7);
	halves[0] = bpf_cpu_to_be64(words.high | r->tail.high);
	halves[1] = bpf_cpu_to_be64(words.low | r->tail.low);
}

static long ftp_find_command(__u32 at, void *unused)
{
	struct xlvs_scratch *notes = scratch_get();
	struct ftp_search *s;
	const __u8 *text;
	__u32 word;

	if (!notes)
		return READ_END;
	s = &notes->ftp.search;
	text = notes->payload + (at & (PAYLOAD_SIZE - 1));
	word = *(const __u32 *)text & FTP_NO_CASE;
	if (s->family == XLVS_IPV4 && word == FTP_WORD('P', 'A', 'S', 'V') && text[4] == '\r' &&
	    text[5] == '\n') {
		s->mode = FTP_PASSIVE;
		s->found = true;
		return READ_END;
	}
	if (word != FTP_WORD('E', 'P', 'S', 'V') || (text[4] != ' ' && text[4] != '\r'))
		return READ_ON;
	s->over = text[4] == ' ' && (at + 7 > s->length || text[6] != '\r' ||
				     text[5] != (s->family == XLVS_IPV6 ? '2' : '1'));
	if (!s->over) {
		s->mode = FTP_EXTENDED;
		s->found = true;
	}
	return READ_END;
}

/* Look through the client's text for a command that asks for passive mode. */
__noinline int ftp_search(__u32 family, __u32 length)
{
	struct xlvs_scratch *notes = scratch_get();
	struct ftp_search *s;

	if (!notes)
		return 0;
	s = &notes->ftp.search;
	__builtin_memset(s, 0, sizeof(*s));
	s->family = family;
	s->length = length;
	if (length >= 6)
		bpf_loop((length - 5) & (PAYLOAD_SIZE - 1), ftp_find_command, 0, 0);
	return 0;
}

/* Decimal, at this place of notes->made; the place behind it. */
static __noinline __u32 ftp_write_number(struct xlvs_scratch *notes, __u32 at, __u32 value,
					 __u8 after)
{
	__u32 divisor = 10000;
	bool begun = false;

	for (int i = 0; i < 5; i++) {
		__u32 digit = value / divisor % 10;

		if (digit || begun || divisor == 1) {
			notes->made[at++ & (MADE_SIZE - 1)] = '0' + digit;
			begun = true;
		}
		divisor /= 10;
	}
	if (after)
		notes->made[at++ & (MADE_SIZE - 1)] = after;
	return at;
}

/* Where the client shall connect to, into notes->made; how long it is. */
static __always_inline __u32 ftp_write(struct xlvs_scratch *notes, const __u8 *vaddr, __be16 vport,
				       bool extended)
{
	__u16 port = bpf_ntohs(vport);
	__u32 at = 0;

	if (extended) {
		notes->made[0] = notes->made[1] = notes->made[2] = '|';
		return ftp_write_number(notes, 3, port, '|');
	}
	for (int i = 0; i < 4; i++)
		at = ftp_write_number(notes, at, vaddr[i], ',');
	at = ftp_write_number(notes, at, port >> 8, ',');
	return ftp_write_number(notes, at, port & 0xff, 0);
}

#endif
