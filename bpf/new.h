/* SPDX-License-Identifier: GPL-2.0-only */
/* A packet of no connection: is it for a service, and who shall serve it? */
#ifndef XLVS_NEW_H
#define XLVS_NEW_H

#include "defence.h"
#include "persist.h"
#include "schedule.h"

enum admission {
	ADMITTED,	     /* a connection exists now */
	ADMITTED_ONCE,	     /* a connection for this packet alone: notes->once */
	ADMIT_NO_CONNECTION, /* TCP, but not a SYN: no service schedules it */
	ADMIT_NO_DESTINATION,
	ADMIT_NO_DATA, /* the persistence engine found nothing to go by */
	ADMIT_UNLUCKY, /* drop_packet */
	ADMIT_FULL,
	ADMIT_DRY, /* FULLNAT without a local port */
	ADMIT_AGAIN,
	ADMIT_LATER,	 /* the table is being migrated */
	ADMIT_HALF_OPEN, /* its real server has too many SYNs of SYNPROXY's unanswered */
};

/* drop_packet: while memory is short, one new connection in so many is turned away. */
static __always_inline bool unlucky(struct xlvs_settings *set)
{
	if (likely(!set->drop_rate))
		return false;
	if (__sync_fetch_and_add(&set->drop_counter, -1) > 1)
		return false;
	set->drop_counter = set->drop_rate;
	return true;
}

/* An FTP service stands in for every other port: those are not its business. */
static __always_inline bool stands_in(const struct packet *p, const struct xlvs_service *service)
{
	return service->port == bpf_htons(FTP_PORT) && p->dport != service->port;
}

/* Whether the client can have that server: the director itself crosses to no other family. */
static __always_inline bool is_in_reach(const struct xlvs_dest *dest, __u8 family, bool own)
{
	return dest->family == family || dest->forward == XLVS_TUNNEL ||
	       (dest->forward == XLVS_FULLNAT && !own && !(dest->flags & XLVS_DEST_LOCAL));
}

/* A packet for a service, but for none of its servers (ip_vs_leave). */
static __always_inline enum admission nobody_serves(const struct packet *p,
						    const struct xlvs_service *service)
{
	return stands_in(p, service) ? ADMIT_NO_CONNECTION : ADMIT_NO_DESTINATION;
}

/*
 * What the director itself takes part in comes back by itself: FULLNAT needs no local
 * address there, and is plain NAT.
 */
static __always_inline __u32 conn_flags_to(const struct xlvs_dest *dest, __u8 family, bool own)
{
	__u32 flags = dest->forward & XLVS_CONN_METHOD;

	if (flags == XLVS_FULLNAT && (own || dest->flags & XLVS_DEST_LOCAL))
		flags = XLVS_MASQ;
	if (dest->flags & XLVS_DEST_LOCAL)
		flags |= XLVS_CONN_LOCAL;
	if (flags == XLVS_FULLNAT && dest->family != family)
		flags |= XLVS_CONN_OTHER_FAMILY | XLVS_CONN_SPECIAL;
	return flags;
}

static __always_inline enum admission admission_of(int made)
{
	switch (made) {
	case CREATED:
		return ADMITTED;
	case CREATE_AGAIN:
		return ADMIT_AGAIN;
	case CREATE_DRY:
		return ADMIT_DRY;
	default:
		return ADMIT_FULL;
	}
}

/* Why a packet makes no connection whoever could serve it, or ADMITTED. */
static __always_inline enum admission turned_away(const struct packet *p,
						  const struct xlvs_service *service, bool proxied,
						  struct xlvs_settings *set)
{
	if (!proxied && !starts_connection(p, set))
		return set->flags & XLVS_MIGRATING ? ADMIT_LATER : ADMIT_NO_CONNECTION;
	if (unlucky(set))
		return ADMIT_UNLUCKY;
	/* An active FTP server's data connection belongs to one that exists, or to nobody. */
	if (p->sport == bpf_htons(FTP_DATA_PORT))
		return ADMIT_NO_CONNECTION;
	if (!(service->flags & XLVS_SERVICE_PERSISTENT) && !service->fwmark &&
	    p->dport != service->port)
		return nobody_serves(p, service);
	return ADMITTED;
}

/*
 * The template of the packet's client: true where there is one that serves, which the
 * birth then hangs on.
 */
static __always_inline bool follow_template(const struct packet *p,
					    const struct xlvs_service *service,
					    struct xlvs_scratch *notes,
					    const struct xlvs_settings *set)
{
	struct birth *birth = &notes->birth;
	struct xlvs_conn *template;

	template_tuple(p, service, &birth->tuple);
	copy_address(birth->client, birth->tuple.saddr);
	if (service->engine)
		tuple_of_engine(&birth->tuple, (const __u8 *)&notes->engine_hash, p->family);
	template = template_find(birth, set, &notes->other);
	if (template && notes->caller && template->dest != notes->caller - 1) {
		template_put_away(template, birth);
		template = 0;
	}
	birth->dest = template ? template->dest : NOBODY;
	return template;
}

/* Make the template that this and later connections of the client hang on. */
static __always_inline int template_create(const struct packet *p,
					   const struct xlvs_service *service,
					   const struct xlvs_dest *dest, struct xlvs_scratch *notes,
					   const struct xlvs_settings *set)
{
	bool own_port = p->dport == service->port && service->port != bpf_htons(FTP_PORT);
	struct birth *birth = &notes->birth;
	int made;

	birth->dport = own_port ? dest->port : 0;
	birth->flags = conn_flags_to(dest, p->family, false) | XLVS_CONN_TEMPLATE;
	birth->timeout = service->timeout * set->hz;
	birth->template_phase = 0;
	if (service->engine) {
		birth->flags |= XLVS_CONN_ENGINE;
		birth->engine_hash = notes->engine_hash;
	}
	made = conn_create();
	birth->template_slot = birth->slot;
	if (made == CREATED && service->engine)
		bpf_map_update_elem(&engine_data, &birth->template_slot, &notes->engine, BPF_ANY);
	return made;
}

/* Count the connection that is about to be made on its template, and renew that. */
static __always_inline void hang_on(struct birth *birth)
{
	struct xlvs_conn *template = conn_at(birth->template_slot);

	if (!template)
		return;
	birth->template_phase = READ_ONCE(template->phase);
	__sync_fetch_and_add(&template->controlled, 1);
	template->seen = now();
}

/* Connections that announce others, whose addresses NAT must translate (ip_vs_ftp). */
static __always_inline bool is_ftp_control(const struct packet *p, __u32 flags)
{
	return p->dport == bpf_htons(FTP_PORT) && p->protocol == IPPROTO_TCP &&
	       (flags & (XLVS_CONN_METHOD | XLVS_CONN_LOCAL)) == XLVS_MASQ;
}

/*
 * What is done about a connection's options while it is opened (opening.h). The director's own
 * server or client needs no option to be told. A connection that the director has not seen
 * begin is not touched.
 */
static __always_inline __u32 opening_flags(__u8 protocol, const struct xlvs_service *service,
					   bool begins, __u32 flags)
{
	if (protocol == IPPROTO_UDP && has_local(flags) && service->client_address == XLVS_TELL_TOA)
		return XLVS_CONN_OPENING | XLVS_CONN_TOA;
	if (!begins || !is_translated(flags))
		return 0;
	if (service->client_address == XLVS_TELL_TOA &&
	    !(flags & (XLVS_CONN_LOCAL | XLVS_CONN_OWN)))
		return XLVS_CONN_OPENING | XLVS_CONN_TOA;
	if (service->client_address == XLVS_TELL_PROXY && !(flags & XLVS_CONN_OWN))
		return XLVS_CONN_OPENING | XLVS_CONN_PROXY | XLVS_CONN_SHIFTED;
	return has_local(flags) ? XLVS_CONN_OPENING : 0;
}

/* Whether SYNPROXY may make a connection to that destination. */
static __always_inline enum admission may_be_asked(__u32 row, const struct xlvs_dest *dest,
						   const struct xlvs_settings *set)
{
	struct xlvs_load *load = bpf_map_lookup_elem(&loads, &row);
	bool masked;

	if (!dest || !load || dest->flags & XLVS_DEST_LOCAL)
		return ADMIT_NO_DESTINATION;
	masked = dest->forward == XLVS_MASQ || dest->forward == XLVS_FULLNAT;
	if (!masked)
		return ADMIT_NO_DESTINATION;
	return READ_ONCE(load->half_open) < (__u32)set->sysctl.synproxy_half_open ? ADMITTED
										  : ADMIT_HALF_OPEN;
}

/* Make the packet's own connection to its destination; null: to where it wanted to go. */
static __always_inline enum admission
connect_to(const struct packet *p, const struct xlvs_service *service, const struct xlvs_dest *dest,
	   bool own, struct xlvs_scratch *notes, const struct xlvs_settings *set)
{
	bool mapped = !(service->flags & XLVS_SERVICE_PERSISTENT) || p->dport == service->port;
	bool begins = p->protocol == IPPROTO_TCP && (p->tcp & TCP_SYN || notes->cookie.good);
	struct birth *birth = &notes->birth;
	int made;

	tuple_of_packet(p, &birth->tuple);
	copy_address(birth->client, p->saddr);
	birth->flags = dest ? conn_flags_to(dest, p->family, own) : XLVS_BYPASS | XLVS_CONN_SPECIAL;
	if (!own && is_ftp_control(p, birth->flags))
		birth->flags |= XLVS_CONN_WATCHED | XLVS_CONN_SPECIAL;
	birth->dport = !dest ? 0 : mapped && dest->port ? dest->port : p->dport;
	birth->timeout =
		p->protocol == IPPROTO_UDP ? set->udp_timeout : set->tcp_timeout[XLVS_TCP_SYN_RECV];
	if (own)
		birth->flags |= XLVS_CONN_OWN;
	if (notes->cookie.good) {
		birth->flags |= XLVS_CONN_SYNPROXY | XLVS_CONN_HALF_OPEN | XLVS_CONN_OPENING |
				XLVS_CONN_SHIFTED;
		birth->timeout = set->tcp_timeout[XLVS_TCP_SYN_SENT];
	}
	if (service->flags & XLVS_SERVICE_ONEPACKET && p->protocol == IPPROTO_UDP) {
		birth->flags |= XLVS_CONN_ONE_PACKET | XLVS_CONN_SPECIAL;
		if (!has_local(birth->flags))
			birth->timeout = 0;
	}
	if (has_local(birth->flags) && begins) {
		birth->flags |= XLVS_CONN_SHIFTED;
		birth->sequence = notes->sequence;
	}
	birth->flags |= opening_flags(p->protocol, service, begins, birth->flags);
	made = conn_create();
	if (made != CREATED)
		return admission_of(made);
	if (dest)
		account_connection(dest, birth->dest);
	notes->once = birth->flags & XLVS_CONN_ONE_PACKET ? birth->slot + 1 : 0;
	return notes->once ? ADMITTED_ONCE : ADMITTED;
}

/*
 * Make the connection for the packet in the CPU's scratch, of the service in that row: an
 * enum admission. own: the client is the director, so that answers go to its stack instead
 * of a next hop. All else about the packet is in the scratch, too: its mark, its Call-ID,
 * whether it would be routed elsewhere. A global function: each program verifies it once.
 */
__noinline int admit(__u32 service_row, __u32 own)
{
	struct xlvs_service *service = bpf_map_lookup_elem(&services, &service_row);
	struct xlvs_settings *set = settings_get();
	struct xlvs_scratch *notes = scratch_get();
	enum admission answer;
	struct xlvs_dest *dest;
	struct packet *p;
	bool persistent, followed;
	__u32 row;

	if (!service || !set || !notes)
		return ADMIT_NO_CONNECTION;
	p = &notes->packet;
	answer = turned_away(p, service, notes->cookie.good, set);
	if (answer != ADMITTED)
		return answer;
	persistent = service->flags & XLVS_SERVICE_PERSISTENT;
	if (persistent && service->engine && !notes->engine.length)
		return ADMIT_NO_DATA;
	notes->birth.family = p->family;
	notes->birth.fwmark = notes->mark;
	notes->birth.template_phase = 0;
	followed = persistent && follow_template(p, service, notes, set);
	if (!followed)
		notes->birth.dest = notes->caller ? notes->caller - 1 : schedule(service, p);
	row = notes->birth.dest;
	dest = bpf_map_lookup_elem(&dests, &row);
	if ((!dest && !notes->foreign) || (dest && !is_in_reach(dest, p->family, own)))
		return nobody_serves(p, service);
	if (notes->cookie.good) {
		answer = may_be_asked(row, dest, set);
		if (answer != ADMITTED)
			return answer;
	}
	if (persistent && dest) {
		if (!followed) {
			int made = template_create(p, service, dest, notes, set);

			if (made != CREATED)
				return admission_of(made);
		}
		hang_on(&notes->birth);
	}
	return connect_to(p, service, dest, own, notes, set);
}

#endif
