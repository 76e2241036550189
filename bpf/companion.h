/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The tc companion: what XDP cannot do.
 *
 * On ingress it takes packets that XDP handed over (marked by metadata in front of
 * them; XDP has counted them already): the next hop's neighbour is not resolved, the
 * device cannot transmit from XDP, segments are not cut yet, or the client is the
 * director itself. On egress it sees what the director sends: answers of a real
 * server that is the director itself, and its own connections to a VIP.
 */
#ifndef XLVS_COMPANION_H
#define XLVS_COMPANION_H

#include <linux/pkt_cls.h>

#include "known.h"
#include "new.h"
#include "opened.h"
#include "reuse.h"
#include "skb_tunnel.h"
#include "transport.h"

#define HEADERS 128 /* enough for link, VLAN, IP with options and TCP's fixed part */
/* skb->tc_index of what the companion has sent: it passes the egress hook again. */
#define SENT_MARK 0x786c

/* As parse_transport of the special program. */
static __always_inline bool skb_parse_transport(struct __sk_buff *skb, struct packet *p)
{
	void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	struct sctp_chunk chunk;
	__u32 behind;

	if (!parse_other(data, end, p, &behind))
		return false;
	if (behind && !bpf_skb_load_bytes(skb, behind, &chunk, sizeof(chunk)))
		sctp_second_chunk(p, &chunk);
	return true;
}

/* Whether *p could be filled. A global function: verified once, and its branches end here. */
__noinline int skb_parse(struct __sk_buff *skb, struct packet *p)
{
	enum parsed what;

	if (!p)
		return 0;
	bpf_skb_pull_data(skb, skb->len < HEADERS ? skb->len : HEADERS);
	what = parse_frame((void *)(long)skb->data, (void *)(long)skb->data_end, skb->len, p);
	return what == PARSED_FLOW || (what == PARSED_PROTOCOL && skb_parse_transport(skb, p));
}

static __always_inline int companion_drop(enum xlvs_outcome outcome)
{
	count(outcome);
	return TC_ACT_SHOT;
}

static __always_inline bool skb_set_address(struct __sk_buff *skb, const struct packet *p, __u32 at,
					    const __u8 *old, const __u8 *new)
{
	__u32 size = address_size(p->family);
	__s64 diff = bpf_csum_diff((__be32 *)old, size, (__be32 *)new, size, 0);
	__u64 flags = BPF_F_PSEUDO_HDR | (p->protocol == IPPROTO_UDP ? BPF_F_MARK_MANGLED_0 : 0);

	if (same_address(old, new, p->family))
		return true;
	if (is_plain(p->protocol) && bpf_l4_csum_replace(skb, check_offset(p), 0, diff, flags))
		return false;
	if (p->family == XLVS_IPV4 &&
	    bpf_l3_csum_replace(skb, p->l3 + 10, 0, diff, 0)) /* RFC 791: header checksum */
		return false;
	return !bpf_skb_store_bytes(skb, at, new, size, 0);
}

static __always_inline bool skb_set_port(struct __sk_buff *skb, const struct packet *p, __u32 at,
					 __be16 old, __be16 new)
{
	__u64 flags = 2 | (p->protocol == IPPROTO_UDP ? BPF_F_MARK_MANGLED_0 : 0);

	if (old == new)
		return true;
	return !bpf_l4_csum_replace(skb, check_offset(p), old, new, flags) &&
	       !bpf_skb_store_bytes(skb, at, &new, 2, 0);
}

/*
 * The same for SCTP. A check field of 0 is one that the kernel fills in as it sends the
 * packet, or has the device fill in.
 */
static __always_inline bool sctp_set_port(struct __sk_buff *skb, const struct packet *p,
					  bool source, __be16 port)
{
	__u32 at = p->l4 + (source ? 0 : 2), place = p->l4 + 8;
	__u32 change = (__u16)(port ^ (source ? p->sport : p->dport)), check;

	if (!change)
		return true;
	if (bpf_skb_load_bytes(skb, place, &check, sizeof(check)))
		return false;
	if (check)
		check ^= crc32c_change(source ? change : change << 16, l4_length(p));
	return !bpf_skb_store_bytes(skb, place, &check, sizeof(check), 0) &&
	       !bpf_skb_store_bytes(skb, at, &port, sizeof(port), 0);
}

/* Change one of the ports, where the protocol has any. */
static __always_inline bool skb_change_port(struct __sk_buff *skb, const struct packet *p,
					    bool source, __be16 port)
{
	if (is_plain(p->protocol))
		return source ? skb_set_port(skb, p, p->l4, p->sport, port)
			      : skb_set_port(skb, p, p->l4 + 2, p->dport, port);
	return p->protocol != IPPROTO_SCTP || sctp_set_port(skb, p, source, port);
}

/* Add to one of TCP's numbers. */
static __always_inline bool skb_add(struct __sk_buff *skb, const struct packet *p, __u32 at,
				    __u32 added)
{
	__be32 old, new;

	if (!added)
		return true;
	if (bpf_skb_load_bytes(skb, at, &old, sizeof(old)))
		return false;
	new = bpf_htonl(bpf_ntohl(old) + added);
	return !bpf_l4_csum_replace(skb, check_offset(p), old, new, sizeof(new)) &&
	       !bpf_skb_store_bytes(skb, at, &new, sizeof(new), 0);
}

/*
 * NAT and FULLNAT on an skb: the helpers know about checksums that hardware will fill in.
 * Not inlined: its stack is its own.
 */
static __noinline bool skb_translate(struct __sk_buff *skb, const struct packet *p, bool reply,
				     const struct xlvs_conn *conn)
{
	__u32 addresses = p->l3 + (p->family == XLVS_IPV4 ? 12 : 8);
	__u32 size = address_size(p->family);
	struct translation t = {};

	if (reply)
		ends_outside(p, conn, &t);
	else
		ends_inside(p, conn, &t);
	if (p->protocol == IPPROTO_TCP &&
	    (!skb_add(skb, p, p->l4 + 4, t.sequence) ||
	     (p->tcp & TCP_ACK && !skb_add(skb, p, p->l4 + 8, t.acknowledged))))
		return false;
	return skb_set_address(skb, p, addresses, p->saddr, t.saddr) &&
	       skb_set_address(skb, p, addresses + size, p->daddr, t.daddr) &&
	       skb_change_port(skb, p, true, t.sport) && skb_change_port(skb, p, false, t.dport);
}

static __always_inline bool skb_decrement_ttl(struct __sk_buff *skb, const struct packet *p)
{
	__u32 at = p->l3 + (p->family == XLVS_IPV4 ? 8 : 7);
	__u8 ttl = p->ttl - 1;

	if (p->family == XLVS_IPV4) {
		__be16 old = bpf_htons(p->ttl << 8 | p->protocol);
		__be16 new = bpf_htons(ttl << 8 | p->protocol);

		if (bpf_l3_csum_replace(skb, p->l3 + 10, old, new, 2))
			return false;
	}
	return !bpf_skb_store_bytes(skb, at, &ttl, 1, 0);
}

/* Length of the longest packet that an uncut skb will become; 0 if it is one already. */
static __always_inline __u32 segment_length(struct __sk_buff *skb, const struct packet *p)
{
	void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	struct tcphdr *tcp = data + l4_of(p);
	__u32 headers = p->l4 - p->l3;

	if (!skb->gso_size || p->protocol == IPPROTO_SCTP) /* which is cut by packets, not sizes */
		return 0;
	if (p->protocol != IPPROTO_TCP)
		return headers + sizeof(struct udphdr) + skb->gso_size;
	if ((void *)(tcp + 1) > end)
		return 0;
	return headers + tcp->doff * 4 + skb->gso_size;
}

/* Hand the skb to the neighbour that routing names for target, resolving it if need be. */
static __noinline int skb_send(struct __sk_buff *skb, __u8 family, const __u8 *source,
			       const __u8 *target, __u32 length)
{
	struct bpf_redir_neigh neighbour = {};
	struct bpf_fib_lookup fib;
	long answer = route_lookup(skb, skb->ifindex, family, source, target, length, &fib);

	/* Repeated by its sender, a segment comes alone, and XDP answers that it is too big. */
	if (answer == BPF_FIB_LKUP_RET_FRAG_NEEDED)
		return companion_drop(XLVS_DROP_COMPANION);
	if (answer != BPF_FIB_LKUP_RET_SUCCESS && answer != BPF_FIB_LKUP_RET_NO_NEIGH)
		return companion_drop(hop_refusal(answer));
	neighbour.nh_family = fib.family;
	if (fib.family == AF_INET)
		neighbour.ipv4_nh = fib.ipv4_dst;
	else
		__builtin_memcpy(neighbour.ipv6_nh, fib.ipv6_dst, 16);
	skb->tc_index = SENT_MARK;
	count(XLVS_FORWARDED_TC);
	return bpf_redirect_neigh(fib.ifindex, &neighbour, sizeof(neighbour), 0);
}

/* The director is the client: give the answer to its own stack. */
static __always_inline int skb_deliver_own(struct __sk_buff *skb, bool to_itself)
{
	__u8 no_mac[12] = {};

	count(XLVS_FORWARDED_TC);
	if (!to_itself)
		return TC_ACT_UNSPEC;
	/* From the VIP to the VIP: only lo believes that (accept_local, set by `up`). */
	if (bpf_skb_store_bytes(skb, 0, no_mac, sizeof(no_mac), 0))
		return TC_ACT_SHOT;
	return bpf_redirect(LOOPBACK, BPF_F_INGRESS);
}

/* A packet that XDP has made ready, but for its next hop. */
static __always_inline int skb_send_ready(struct __sk_buff *skb, const struct xlvs_ready *ready)
{
	bool ipv4 = ready->family == XLVS_IPV4;
	__u32 at = sizeof(struct ethhdr) + (ipv4 ? 12 : 8), size = ipv4 ? 4 : 16;
	__u8 source[16] = {}, target[16] = {};
	bool own = ready->own, from_source = ready->from_source;

	copy_address(target, ready->target);
	if (from_source && bpf_skb_load_bytes(skb, at, source, size))
		return companion_drop(XLVS_DROP_COMPANION);
	if (own)
		return skb_deliver_own(skb, same_address(source, target, XLVS_IPV6));
	return skb_send(skb, ipv4 ? XLVS_IPV4 : XLVS_IPV6, from_source ? source : 0, target, 0);
}

static __always_inline int skb_forward_reply(struct __sk_buff *skb, const struct packet *p,
					     const struct xlvs_conn *conn)
{
	bool own = conn->flags & XLVS_CONN_OWN;
	__u32 length = segment_length(skb, p);
	__u8 source[16], target[16];

	copy_address(source, conn->vaddr);
	copy_address(target, conn->caddr);
	if (!skb_translate(skb, p, true, conn))
		return companion_drop(XLVS_DROP_COMPANION);
	if (own)
		return skb_deliver_own(skb, same_address(conn->caddr, conn->vaddr, p->family));
	if (p->ttl <= 1 || !skb_decrement_ttl(skb, p))
		return companion_drop(XLVS_DROP_COMPANION);
	return skb_send(skb, p->family, source, target, length);
}

static __always_inline int skb_forward_request(struct __sk_buff *skb, const struct packet *p,
					       const struct xlvs_conn *conn,
					       const struct xlvs_settings *set, bool own)
{
	__u32 method = conn->flags & XLVS_CONN_METHOD, row = conn->dest;
	struct xlvs_dest *dest = bpf_map_lookup_elem(&dests, &row);
	__u32 length = segment_length(skb, p);
	struct shim shim = {};

	if (!dest)
		return companion_drop(XLVS_DROP_DESTINATION_GONE);
	if (is_translated(method) && !skb_translate(skb, p, false, conn))
		return companion_drop(XLVS_DROP_COMPANION);
	if (conn->flags & XLVS_CONN_LOCAL) {
		count(XLVS_LOCAL);
		return TC_ACT_UNSPEC;
	}
	/* What the director itself sends has passed no router yet. */
	if (!own && (p->ttl <= 1 || !skb_decrement_ttl(skb, p)))
		return companion_drop(XLVS_DROP_COMPANION);
	if (method == XLVS_TUNNEL) {
		/*
		 * Segments that the device cuts cannot have the shim's checksum: such a packet
		 * goes without, which GRE and UDP allow. Nor is its own left to the real
		 * server, for the kernel here completes it.
		 */
		shim_of(p, conn, dest, set, !skb->gso_size, false, &shim);
		if (!skb_encapsulate(skb, p, dest, &shim))
			return companion_drop(XLVS_DROP_COMPANION);
		length += length ? tunnel_header(dest) + shim.size : 0;
	}
	return skb_send(skb, dest->family, 0, dest->address, length);
}

/*
 * A packet that XDP has not seen, because the interface changes its mode just now: what
 * is ours is dropped, to be sent again, lest the director's own stack resets it.
 */
static __always_inline int companion_hold(struct __sk_buff *skb)
{
	struct xlvs_settings *set = settings_get();
	struct packet p = {};
	struct flow flow;
	__u32 *exact, mark;

	if (likely(!set || !(set->flags & XLVS_HOLD)) || !skb_parse(skb, &p))
		return TC_ACT_UNSPEC;
	exact = service_find(&p);
	if (!flow_find(&p, &flow) &&
	    service_resolve(&p, exact ? *exact : NOBODY, set, &mark) == NOBODY)
		return TC_ACT_UNSPEC;
	return companion_drop(XLVS_DROP_MIGRATING);
}

#include "answer.h"

static __always_inline int companion_ingress(struct __sk_buff *skb)
{
	struct xlvs_meta *meta = (void *)(long)skb->data_meta;
	struct xlvs_ready *ready = (void *)meta;
	struct xlvs_settings *set = settings_get();
	struct packet p = {};
	struct flow flow;
	bool answered;

	if ((void *)(ready + 1) <= (void *)(long)skb->data && ready->magic == XLVS_READY_MAGIC) {
		ready->magic = 0;
		return skb_send_ready(skb, ready);
	}
	if ((void *)(meta + 1) > (void *)(long)skb->data ||
	    (meta->magic != XLVS_META_MAGIC && meta->magic != XLVS_ANSWER_MAGIC))
		return companion_hold(skb);
	answered = meta->magic == XLVS_ANSWER_MAGIC;
	meta->magic = 0;
	if (!set || !skb_parse(skb, &p))
		return companion_drop(XLVS_DROP_COMPANION);
	if (answered)
		return companion_answer(skb, &p, set);
	if (!flow_find(&p, &flow))
		return companion_drop(XLVS_DROP_RACE);
	if (is_reply(&flow))
		return skb_forward_reply(skb, &p, flow.conn);
	return skb_forward_request(skb, &p, flow.conn, set, false);
}

/* The director as a client: a connection of its own to one of its services. */
static __always_inline bool own_connection(struct __sk_buff *skb, const struct packet *p,
					   struct xlvs_settings *set, struct flow *flow,
					   int *verdict)
{
	struct xlvs_scratch *notes = scratch_get();
	__u32 *exact, row;

	*verdict = TC_ACT_UNSPEC;
	if (!notes || skb->ingress_ifindex)
		return false; /* somebody else's, that the kernel forwards */
	exact = service_find(p);
	row = service_resolve(p, exact ? *exact : NOBODY, set, &notes->mark);
	if (row == NOBODY)
		return false;
	notes->packet = *p;
	notes->about_error = 0;
	notes->foreign = 0;
	notes->caller = 0;
	notes->engine.length = 0;
	switch (admit(row, true)) {
	case ADMITTED:
	case ADMIT_AGAIN:
		return conn_find(p, flow);
	case ADMITTED_ONCE:
		return made_for_it(flow);
	case ADMIT_NO_DESTINATION:
		*verdict = companion_drop(XLVS_DROP_NO_DESTINATION);
		return false;
	case ADMIT_NO_DATA:
		*verdict = companion_drop(XLVS_DROP_NO_DATA);
		return false;
	case ADMIT_UNLUCKY:
		*verdict = companion_drop(XLVS_DROP_UNLUCKY);
		return false;
	case ADMIT_FULL:
		*verdict = companion_drop(XLVS_DROP_TABLE_FULL);
		return false;
	default:
		return false;
	}
}

/*
 * The director's own server, on a connection that is being opened (opening.h). Its segments
 * come in trains, so that payload says nothing; and it was not told of by an option.
 */
static __noinline bool skb_hear_server(struct __sk_buff *skb, const struct packet *p,
				       struct xlvs_conn *conn)
{
	struct segment s = {};
	__be32 numbers[2];

	if (p->protocol != IPPROTO_TCP || !(conn->flags & XLVS_CONN_OPENING))
		return true;
	if (bpf_skb_load_bytes(skb, p->l4 + 4, numbers, sizeof(numbers)))
		return false;
	s.sequence = bpf_ntohl(numbers[0]);
	s.acknowledged = bpf_ntohl(numbers[1]);
	opening_of(conn, &s);
	if (p->tcp & TCP_SYN)
		conn->edge_out = s.sequence;
	if (s.flags & XLVS_CONN_OPENING && is_opened(conn, p, &s))
		opened(conn);
	return !acknowledges_header(conn, p, &s) ||
	       skb_add(skb, p, p->l4 + 8,
		       header_place(conn, &s) + proxy_size(s.flags, conn->family) - s.acknowledged);
}

/* A packet of a connection that ends or begins on the director. */
static __always_inline int egress_known(struct __sk_buff *skb, const struct packet *p,
					const struct flow *flow, const struct xlvs_settings *set)
{
	struct xlvs_conn *conn = flow->conn;
	__u32 flags = conn->flags, row = conn->dest;
	struct xlvs_dest *dest = bpf_map_lookup_elem(&dests, &row);
	bool reply = is_reply(flow);

	if (reply ? !(flags & XLVS_CONN_LOCAL) : !(flags & XLVS_CONN_OWN))
		return TC_ACT_UNSPEC;
	if (dest && dest->flags & XLVS_DEST_AVAILABLE)
		account(dest, row, reply, p->length);
	else if (!reply)
		return companion_drop(XLVS_DROP_DESTINATION_GONE);
	touch_any(conn, p, reply, set);
	if (!reply)
		return skb_forward_request(skb, p, conn, set, true);
	if (is_translated(flags) &&
	    (!skb_hear_server(skb, p, conn) || !skb_translate(skb, p, true, conn)))
		return companion_drop(XLVS_DROP_COMPANION);
	return TC_ACT_UNSPEC;
}

static __always_inline int companion_egress(struct __sk_buff *skb)
{
	struct xlvs_settings *set = settings_get();
	struct packet p = {};
	struct flow flow;
	bool known;
	int verdict;

	if (skb->tc_index == SENT_MARK || !set || !skb_parse(skb, &p))
		return TC_ACT_UNSPEC;
	known = flow_find(&p, &flow);
	if (known && reused(&p, &flow, set)) {
		conn_replace(&flow);
		known = false;
	}
	if (!known && !own_connection(skb, &p, set, &flow, &verdict))
		return verdict;
	return egress_known(skb, &p, &flow, set);
}

#endif
