/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * A real server's SYN-ACK on a connection of SYNPROXY's: the ACK that it waits for, and for
 * the client, who has had a SYN-ACK long since, the window that it may send into. Only tc can
 * make two packets of one. The checksum goes from one packet to the next by differences, for
 * which the helpers know whether the sender had computed it or left it to hardware.
 */
#ifndef XLVS_ANSWER_H
#define XLVS_ANSWER_H

#include "draft.h"
#include "stamps.h"
#include "toa.h"

#define BARE_TCP   5  /* words of a TCP header without options */
#define STAMP_TEXT 12 /* bytes of timestamps behind two NOPs */

/*
 * Put the first size bytes of this header in place of old ones, as many as they are, and
 * correct the checksum; pseudo is by how much the addresses change that.
 */
static __always_inline bool skb_set_tcp(struct __sk_buff *skb, const struct packet *p, __be32 *new,
					__u32 size, __be32 *old, __u32 old_size, __s64 pseudo)
{
	__u32 at = p->l4, check = at + 16;
	__s64 diff;

	size = ((size - 1) & (ANSWER_WORDS * 4 - 1)) + 1;
	old_size = ((old_size - 1) & (ANSWER_WORDS * 4 - 1)) + 1;
	new[4] = 0;
	old[4] &= bpf_htonl(0xffff); /* both without the checksum */
	pseudo += (__u16)~bpf_htons(old_size) + bpf_htons(size);
	diff = bpf_csum_diff(old, old_size, new, size, 0);
	if (diff < 0 || bpf_l4_csum_replace(skb, check, 0, diff, 0) ||
	    bpf_l4_csum_replace(skb, check, 0, pseudo, BPF_F_PSEUDO_HDR) ||
	    bpf_skb_load_bytes(skb, check, &new[4], 2))
		return false;
	return !bpf_skb_store_bytes(skb, at, new, size, 0);
}

/* The IP header of such a segment between these addresses. */
static __always_inline bool skb_set_ip(struct __sk_buff *skb, const struct packet *p,
				       const struct draft *s, __u32 size)
{
	__be32 header[10] = {};

	if (p->family == XLVS_IPV4) {
		draft_ipv4((struct iphdr *)header, s, sizeof(struct iphdr) + size);
		return !bpf_skb_store_bytes(skb, p->l3, header, sizeof(struct iphdr), 0);
	}
	draft_ipv6((struct ipv6hdr *)header, s, size);
	return !bpf_skb_store_bytes(skb, p->l3, header, sizeof(struct ipv6hdr), 0);
}

static __always_inline void answer_header(__be32 *tcp, const struct draft *s, __u32 size)
{
	tcp[0] = *(const __be32 *)&s->sport;
	tcp[1] = bpf_htonl(s->sequence);
	tcp[2] = bpf_htonl(s->acknowledged);
	tcp[3] = bpf_htonl(size / 4 << 28 | TCP_ACK << 16 | s->window);
}

/* Put timestamps behind the header's first words; how many there are then. */
static __always_inline __u32 answer_stamps(__be32 *tcp, __u32 words, __u32 stamp, __u32 echo)
{
	__be32 *option = tcp + (words & (ANSWER_WORDS - 1));

	option[0] = bpf_htonl(PLAIN_TIMESTAMPS);
	option[1] = bpf_htonl(stamp);
	option[2] = bpf_htonl(echo);
	return words + STAMP_TEXT / 4;
}

/* The window that the client shall see: a SYN-ACK's is not scaled, the client takes this one for scaled. */
static __always_inline __u16 first_window(const struct xlvs_conn *conn, __u16 window)
{
	__u32 told = conn->older >> 24 & 15;

	return told == XLVS_NO_SCALE ? window : window >> told;
}

/* What the client said in its ACK, as its real server reads it. */
static __always_inline __u16 client_window(const struct xlvs_conn *conn)
{
	__u32 window = conn->ftp >> 16;

	if (conn->older & XLVS_SERVER_UNSCALED)
		window <<= conn->older >> 16 & 15;
	return window > 0xffff ? 0xffff : window;
}

/*
 * Make the SYN-ACK the ACK that answers it, and send that back the way it came. It is what the
 * real server opens the connection by: it tells the client's address, if anything does.
 */
static __always_inline bool skb_acknowledge(struct __sk_buff *skb, struct packet *p,
					    struct xlvs_scratch *notes,
					    const struct xlvs_conn *conn, __u32 old_size, __u8 kind,
					    __u32 *acknowledged)
{
	__u32 header = ip_header_size(p->family);
	__be32 *old = (__be32 *)notes->offered.text, *tcp = notes->answers[0];
	const struct stamps *stamps = stamps_of(conn);
	struct draft *s = &notes->draft;
	__u32 words = BARE_TCP, size;
	__u8 link[12], turned[12];

	draft_back(s, p);
	s->sequence = bpf_ntohl(old[2]);
	s->acknowledged = bpf_ntohl(old[1]) + 1;
	s->window = client_window(conn);
	if (conn->flags & XLVS_CONN_TOA) {
		toa_write((__u8 *)(tcp + BARE_TCP), conn, kind);
		words += toa_size(conn) / 4;
	}
	if (conn->flags & XLVS_CONN_STAMPED)
		words = answer_stamps(tcp, words, stamps->client, stamps->told - stamps->shift);
	*acknowledged = size = words * 4;
	answer_header(tcp, s, size);
	if (bpf_skb_load_bytes(skb, 0, link, sizeof(link)) ||
	    bpf_skb_change_tail(skb, p->l3 + header + (old_size > size ? old_size : size), 0) ||
	    !skb_set_tcp(skb, p, tcp, size, old, old_size, 0) || !skb_set_ip(skb, p, s, size))
		return false;
	__builtin_memcpy(turned, link + 6, 6);
	__builtin_memcpy(turned + 6, link, 6);
	if (bpf_skb_store_bytes(skb, 0, turned, sizeof(turned), 0) ||
	    bpf_skb_change_tail(skb, p->l3 + header + size, 0))
		return false;
	skb->tc_index = SENT_MARK;
	return !bpf_clone_redirect(skb, skb->ifindex, 0);
}

/* Give the packet room for the IP header of another family. */
static __always_inline bool skb_cross(struct __sk_buff *skb, struct packet *p, __u8 family)
{
	bool ipv4 = family == XLVS_IPV4;

	if (p->family == family)
		return true;
	if (p->l3 != sizeof(struct ethhdr) ||
	    bpf_skb_change_proto(skb, bpf_htons(ipv4 ? ETH_P_IP : ETH_P_IPV6), 0))
		return false;
	p->family = family;
	p->l4 = p->l3 + ip_header_size(family);
	return true;
}

/* Make that ACK one for the client, from the VIP. */
static __always_inline bool skb_open_window(struct __sk_buff *skb, struct packet *p,
					    struct xlvs_scratch *notes,
					    const struct xlvs_conn *conn, __u32 old_size,
					    __u16 window)
{
	__u32 before = address_size(p->family), after = address_size(conn->family);
	__u32 words = BARE_TCP, size, header;
	__be32 *old = notes->answers[0], *tcp = notes->answers[1];
	const struct stamps *stamps = stamps_of(conn);
	struct draft *s = &notes->draft;
	__s64 pseudo;

	s->acknowledged = s->sequence - syn_shift(conn);
	s->sequence = conn->seq_base + 1;
	s->sport = conn->vport;
	s->dport = conn->cport;
	s->window = first_window(conn, window);
	if (conn->older & XLVS_OFFER_STAMPS)
		words = answer_stamps(tcp, words, stamps->told, stamps->client);
	size = words * 4;
	answer_header(tcp, s, size);
	pseudo = bpf_csum_diff((__be32 *)s->saddr, before, (__be32 *)conn->vaddr, after, 0);
	pseudo = bpf_csum_diff((__be32 *)s->daddr, before, (__be32 *)conn->caddr, after,
			       csum_fold(pseudo));
	copy_address(s->saddr, conn->vaddr);
	copy_address(s->daddr, conn->caddr);
	if (!skb_cross(skb, p, conn->family))
		return false;
	header = p->l4 - p->l3;
	return !bpf_skb_change_tail(skb, p->l3 + header + size, 0) &&
	       skb_set_tcp(skb, p, tcp, size, old, old_size, csum_fold(pseudo)) &&
	       skb_set_ip(skb, p, s, size);
}

static __always_inline bool has_ip_options(const struct packet *p)
{
	return p->family == XLVS_IPV4 && p->l4 - p->l3 != sizeof(struct iphdr);
}

static __always_inline int companion_answer(struct __sk_buff *skb, struct packet *p,
					    const struct xlvs_settings *set)
{
	struct xlvs_scratch *notes = scratch_get();
	__u32 size, acknowledged, at = l4_of(p);
	struct flow flow;
	__u16 window;

	if (!notes || !conn_find(p, &flow) || !(flow.conn->flags & XLVS_CONN_SYNPROXY))
		return companion_drop(XLVS_DROP_RACE);
	size = l4_length(p);
	if (size < sizeof(struct tcphdr) || size > 60 || size & 3 || has_ip_options(p))
		return companion_drop(XLVS_DROP_COMPANION);
	if (bpf_skb_load_bytes(skb, at, notes->offered.text, ((size - 1) & (OFFER_TEXT - 1)) + 1))
		return companion_drop(XLVS_DROP_COMPANION);
	window = bpf_ntohs(*(__be16 *)(notes->offered.text + 14));
	if (!skb_acknowledge(skb, p, notes, flow.conn, size, set->sysctl.toa_kind, &acknowledged) ||
	    !skb_open_window(skb, p, notes, flow.conn, acknowledged, window))
		return companion_drop(XLVS_DROP_COMPANION);
	return skb_send(skb, flow.conn->family, flow.conn->vaddr, flow.conn->caddr, 0);
}

#endif
