/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * SYNPROXY: the director answers clients' SYNs with cookies (cookie.h). Only the ACK of one
 * makes a connection, which then asks a real server (proxied.h); so nobody is asked, and
 * nothing is kept, for a client who does not exist.
 */
#ifndef XLVS_SYNPROXY_H
#define XLVS_SYNPROXY_H

#include "cookie.h"
#include "defence.h"
#include "error.h"
#include "guard.h"
#include "new.h"
#include "options.h"
#include "draft.h"
#include "stamps.h"
#include "toa.h"

#define DEFAULT_MSS  1460
#define DEFAULT_MSS6 1440
/* Told before the real server has said its own, where payload is waited for: ten segments (RFC 6928). */
#define DEFER_WINDOW 14600

/* The window scale for clients, where said is what the service's servers said. */
static __always_inline __u32 told_scale(__u32 said, const struct xlvs_settings *set)
{
	__s32 fixed = set->sysctl.synproxy_wscale;

	return fixed >= 0 ? fixed & 15 : known_scale(said);
}

/* The segment size for clients: servers that are told the address by option have less room. */
static __always_inline __u32 told_mss(const struct xlvs_service *service, const struct packet *p,
				      const struct xlvs_settings *set)
{
	__u32 mss = service->server_offer & 0xffff;

	if (set->sysctl.synproxy_mss)
		return set->sysctl.synproxy_mss;
	if (!mss)
		mss = p->family == XLVS_IPV4 ? DEFAULT_MSS : DEFAULT_MSS6;
	if (service->client_address == XLVS_TELL_TOA)
		mss -= p->family == XLVS_IPV4 ? TOA_IPV4 : TOA_IPV6;
	return mss;
}

/*
 * The director's clock in timestamps: a secret number ahead of the time that it runs. They carry
 * nothing else, for a cookie has room for all that there is to know.
 */
static __always_inline __u32 stamp_clock(const struct xlvs_settings *set)
{
	return now() + hash_words(set->cookie_key, 4, 0);
}

/*
 * Whether clients may have timestamps: until a real server was heard to do without, for they
 * must then be in each segment (RFC 7323, 3.2).
 */
static __always_inline bool stamps_offered(const struct xlvs_service *service,
					   const struct xlvs_settings *set)
{
	return set->sysctl.synproxy_timestamp && !(service->flags & XLVS_SERVICE_FULLNAT) &&
	       !(service->server_offer & XLVS_OFFER_NO_STAMPS);
}

static __always_inline int draft_return(struct xdp_md *ctx, enum xlvs_outcome outcome)
{
	if (!draft_write(ctx) || !turn_link_header(ctx))
		return drop_as(XLVS_DROP_MALFORMED);
	count(outcome);
	return send_back(ctx);
}

static __always_inline int answer_syn(struct xdp_md *ctx, struct xlvs_scratch *notes, __u32 isn,
				      const struct xlvs_service *service,
				      const struct xlvs_settings *set)
{
	struct packet *p = &notes->packet;
	struct draft *s = &notes->draft;
	__u32 said = service->server_offer, scale = told_scale(said, set);
	__u32 offer = offer_of(ctx, p, notes);

	if (scale == XLVS_NO_SCALE)
		offer |= XLVS_NO_SCALE << 16;
	if (!set->sysctl.synproxy_sack || said & XLVS_OFFER_NO_SACK)
		offer &= ~XLVS_OFFER_SACK;
	if (!stamps_offered(service, set))
		offer &= ~XLVS_OFFER_STAMPS;
	if ((offer >> 16 & 15) == XLVS_NO_SCALE)
		scale = XLVS_NO_SCALE;
	draft_back(s, p);
	s->sequence = cookie_of(p, isn, cookie_data(p, offer, said), cookie_period(set), set);
	s->acknowledged = isn + 1;
	s->flags = TCP_SYN | TCP_ACK;
	s->window = set->sysctl.synproxy_defer ? DEFER_WINDOW : 0;
	draft_offer(s, (offer & ~0xffffu) | (told_mss(service, p, set) & 0xffff), scale,
		    stamp_clock(set), notes->offered.stamp);
	return draft_return(ctx, XLVS_COOKIE_SENT);
}

/* The client believes that it is connected: it must hear that it is not. */
static __always_inline int turn_down(struct xdp_md *ctx, struct xlvs_scratch *notes, __u32 sequence)
{
	struct draft *s = &notes->draft;

	draft_back(s, &notes->packet);
	s->sequence = sequence;
	s->acknowledged = 0;
	s->flags = TCP_RST;
	s->window = 0;
	s->words = 0;
	return draft_return(ctx, XLVS_DROP_NO_DESTINATION);
}

/*
 * Neither a SYN to answer nor a good cookie. While the service takes no SYNs itself that is
 * the end of it; else it may be somebody's of before.
 */
static __always_inline int no_cookie(struct xdp_md *ctx, struct xlvs_scratch *notes,
				     const struct xlvs_service *service,
				     const struct xlvs_settings *set)
{
	if (is_guarded(service, now(), set))
		return set->sysctl.tcp_drop_entry ? drop_as(XLVS_DROP_COOKIE)
						  : pass_as(XLVS_PASS_COOKIE);
	notes->unproxied = 1;
	bpf_tail_call(ctx, &programs, XLVS_PROG_NEW);
	notes->unproxied = 0;
	return drop_as(XLVS_DROP_RACE);
}

/* Read the cookie that an ACK brings back; false where there is no good one. */
static __always_inline bool read_cookie(const struct packet *p, const struct tcphdr *tcp,
					bool payload, const struct xlvs_service *service,
					struct cookie_note *note, const struct xlvs_settings *set)
{
	__u32 said = service->server_offer, told = told_scale(said, set);

	note->isn = bpf_ntohl(tcp->seq) - 1;
	note->cookie = bpf_ntohl(tcp->ack_seq) - 1;
	note->window = bpf_ntohs(tcp->window);
	if (!cookie_good(p, note->isn, note->cookie, set)) {
		/* Where the ACK was lost, a probe of the closed window may be the next to come. */
		note->isn++;
		if (payload || !cookie_good(p, note->isn, note->cookie, set))
			return false;
	}
	if ((said & XLVS_OFFER_TURN) != (note->cookie & COOKIE_TURN ? XLVS_OFFER_TURN : 0))
		told = said >> XLVS_OFFER_BEFORE & 15;
	note->offer = cookie_offer(p, note->cookie);
	if ((note->offer >> 16 & 15) == XLVS_NO_SCALE)
		note->offer |= XLVS_NO_SCALE << 24;
	else
		note->offer |= told << 24;
	return true;
}

/* A client that was given timestamps has them in all that it sends since. */
static __always_inline void read_stamps(struct xdp_md *ctx, struct xlvs_scratch *notes,
					const struct xlvs_settings *set)
{
	struct cookie_note *note = &notes->cookie;

	if (!set->sysctl.synproxy_timestamp)
		return;
	note->offer |= offer_of(ctx, &notes->packet, notes) & XLVS_OFFER_STAMPS;
	note->stamp = notes->offered.stamp;
	note->told = notes->offered.echo;
}

/* The client is there: make its connection, whose program asks the real server. */
static __always_inline int open_connection(struct xdp_md *ctx, struct xlvs_scratch *notes,
					   struct xlvs_service *service, __u32 row,
					   const struct xlvs_settings *set)
{
	enum xlvs_outcome refused = XLVS_FORWARDED;
	enum admission answer;

	if (service->syn_limit | service->source_limit)
		refused = defend_cookie(row, true);
	if (refused)
		return drop_as(refused);
	notes->sequence = notes->cookie.isn;
	notes->caller = 0;
	notes->foreign = 0;
	notes->engine.length = 0;
	notes->cookie.good = true;
	answer = admit(row, false);
	notes->cookie.good = false;
	switch (answer) {
	case ADMITTED:
	case ADMIT_AGAIN:
		bpf_tail_call(ctx, &programs, XLVS_PROG_KNOWN);
		return drop_as(XLVS_DROP_RACE);
	case ADMIT_HALF_OPEN:
		return drop_as(XLVS_DROP_HALF_OPEN);
	case ADMIT_UNLUCKY:
		return drop_as(XLVS_DROP_UNLUCKY);
	case ADMIT_DRY:
		return drop_as(XLVS_DROP_NO_LOCAL);
	case ADMIT_FULL:
		return drop_as(XLVS_DROP_TABLE_FULL);
	default:
		return turn_down(ctx, notes, notes->cookie.cookie + 1);
	}
}

static __always_inline int handle_synproxy(struct xdp_md *ctx, struct xlvs_scratch *notes,
					   const struct xlvs_settings *set)
{
	struct packet *p = &notes->packet;
	struct tcphdr *tcp = data_of(ctx) + l4_of(p);
	__u32 row = notes->service;
	struct xlvs_service *service = bpf_map_lookup_elem(&services, &row);
	enum xlvs_outcome refused = XLVS_FORWARDED;
	bool payload;

	if (!service || (void *)(tcp + 1) > end_of(ctx))
		return drop_as(XLVS_DROP_RACE);
	if (service->flags & XLVS_SERVICE_LISTED)
		refused = defend_cookie(row, false);
	if (refused)
		return drop_as(refused);
	if (is_opening_syn(p))
		return answer_syn(ctx, notes, bpf_ntohl(tcp->seq), service, set);
	payload = l4_length(p) > tcp->doff * 4 || p->tcp & TCP_FIN;
	if ((p->tcp & (TCP_SYN | TCP_ACK)) != TCP_ACK ||
	    !read_cookie(p, tcp, payload, service, &notes->cookie, set))
		return no_cookie(ctx, notes, service, set);
	if (set->sysctl.synproxy_defer && !payload)
		return drop_as(XLVS_DROP_DEFERRED);
	read_stamps(ctx, notes, set);
	return open_connection(ctx, notes, service, row, set);
}

#endif
