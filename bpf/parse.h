/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * From bytes to a struct packet: Ethernet, up to two VLAN tags, IPv4 with options
 * or IPv6 without extension headers, TCP or UDP ports. Works on any data/data_end
 * pair, so that XDP and tc programs share it.
 */
#ifndef XLVS_PARSE_H
#define XLVS_PARSE_H

#include <stdbool.h>

#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/tcp.h>
#include <linux/udp.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "abi.h"

#define likely(x)	     __builtin_expect(!!(x), 1)
#define unlikely(x)	     __builtin_expect(!!(x), 0)
#define READ_ONCE(x)	     (*(volatile typeof(x) *)&(x))
#define WRITE_ONCE(x, value) (*(volatile typeof(x) *)&(x) = (value))
#define barrier()	     asm volatile("" ::: "memory")

#define IP_FRAGMENT	 0x3fff /* more-fragments flag and offset (RFC 791) */
#define IP_DONT_FRAGMENT 0x4000
#define VLAN_TAG	 4

struct vlan_tag {
	__be16 id;
	__be16 protocol;
};

/* Bits of packet.tcp, in the order of the TCP header's flag byte (RFC 9293, 3.1). */
#define TCP_FIN 0x01
#define TCP_SYN 0x02
#define TCP_RST 0x04
#define TCP_PSH 0x08
#define TCP_ACK 0x10

struct packet {
	__u8 saddr[16] __attribute__((aligned(8))); /* copied as words */
	__u8 daddr[16];
	__be16 sport;
	__be16 dport;
	__u8 protocol;
	__u8 family;
	__u8 tcp; /* flag byte of the TCP header; what an SCTP packet means (sctp.h); 0 for others */
	__u8 ttl;
	__u16 l3;     /* offset of the IP header */
	__u16 l4;     /* offset of the transport header */
	__u16 length; /* from the IP header on, as that says */
	__u16 tags;   /* VLAN tags in front */
};

#define L4_OFFSETS 511 /* mask: no transport header that we read begins later */

/* What is read beyond the headers of most packets: of a fragment, */
struct fragment {
	__be32 id;
	__u32 offset; /* of its data in the datagram, bytes */
	__u32 size;   /* of its data */
	bool more;
	bool header; /* IPv6: there is a fragment header */
};

/* and of the packet that an ICMP error quotes. */
struct quote {
	__u32 icmp;	    /* offset of the ICMP message in the frame */
	__u32 ip;	    /* offset of the quoted IP header */
	__u32 l4;	    /* of the quoted transport header */
	__u32 header;	    /* length of the quoted IPv4 header */
	__u32 numbers;	    /* of TCP's two that are quoted, too */
	bool dont_fragment; /* said by the quoted header; always, in IPv6 */
};

static __always_inline __u32 address_size(__u8 family)
{
	return family == XLVS_IPV4 ? 4 : 16;
}

/* Size of an IP header without options or extensions. */
static __always_inline __u32 ip_header_size(__u8 family)
{
	return family == XLVS_IPV4 ? sizeof(struct iphdr) : sizeof(struct ipv6hdr);
}

enum relay {
	RELAY_WHOLE, /* a whole packet, behind whatever headers */
	RELAY_FIRST, /* a first fragment */
	RELAY_LATER, /* another fragment: no transport header */
	RELAY_ERROR, /* an ICMP error, or its first fragment */
};

/* What the relay program is to do with the packet. */
struct relay_note {
	enum relay kind;
	__u32 packets; /* to be counted: a datagram is one, by its first fragment */
	__u32 bytes;
	__u32 ref; /* its connection */
	__u32 generation;
	__u32 once;  /* that one is for this packet alone */
	__u32 noted; /* the packet was counted, and noted on its connection */
};

/* The offsets with bounds that the verifier can see; extension headers make l4 large. */
static __always_inline __u32 l3_of(const struct packet *p)
{
	return p->l3 & 31;
}

static __always_inline __u32 l4_of(const struct packet *p)
{
	return p->l4 & L4_OFFSETS;
}

/* Fold to 16 bits: each half added to the other, the carry comes up in the upper one. */
static __always_inline __u16 csum_fold(__u64 sum)
{
	__u32 half;

	sum += sum << 32 | sum >> 32;
	half = sum >> 32;
	half += half << 16 | half >> 16;
	return half >> 16;
}

enum parsed {
	PARSED_FLOW,
	PARSED_OTHER, /* nothing that a service could want */
	/* For the special program: */
	PARSED_FRAGMENT,
	PARSED_EXTENSION,
	PARSED_PROTOCOL, /* ICMP, SCTP, AH, ESP */
	PARSED_MALFORMED,
};

/* An address of that family into sixteen zero bytes. */
static __always_inline void set_address(__u8 *to, const __u8 *from, __u8 family)
{
	if (family == XLVS_IPV4)
		*(__be32 *)to = *(const __be32 *)from;
	else
		__builtin_memcpy(to, from, 16);
}

static __always_inline bool is_vlan(__be16 protocol)
{
	return protocol == bpf_htons(ETH_P_8021Q) || protocol == bpf_htons(ETH_P_8021AD);
}

static __always_inline bool is_extension(__u8 header)
{
	switch (header) {
	case 0:	  /* hop-by-hop */
	case 43:  /* routing */
	case 51:  /* authentication */
	case 60:  /* destination options */
	case 135: /* mobility */
		return true;
	default:
		return false;
	}
}

/* Protocols that the fast path forwards. */
static __always_inline bool is_plain(__u8 protocol)
{
	return protocol == IPPROTO_TCP || protocol == IPPROTO_UDP;
}

/* Whether packets of a protocol other than TCP and UDP may belong to a service. */
static __always_inline bool is_special(__u8 protocol)
{
	switch (protocol) {
	case IPPROTO_ICMP:
	case IPPROTO_ESP:
	case IPPROTO_AH:
	case IPPROTO_ICMPV6:
	case IPPROTO_SCTP:
		return true;
	default:
		return false;
	}
}

static __always_inline enum parsed parse_ports(void *data, void *end, struct packet *p)
{
	__u32 room = p->length - (p->l4 - p->l3);
	void *l4 = data + l4_of(p);

	if (p->protocol == IPPROTO_TCP) {
		if (room < sizeof(struct tcphdr) || l4 + sizeof(struct tcphdr) > end)
			return PARSED_MALFORMED;
		p->tcp = ((__u8 *)l4)[13];
	} else if (p->protocol == IPPROTO_UDP) {
		if (room < sizeof(struct udphdr) || l4 + sizeof(struct udphdr) > end)
			return PARSED_MALFORMED;
		p->tcp = 0;
	} else {
		return is_special(p->protocol) ? PARSED_PROTOCOL : PARSED_OTHER;
	}
	*(__be32 *)&p->sport = *(__be32 *)l4; /* both ports, as both protocols have them */
	return PARSED_FLOW;
}

/*
 * Whether the IPv4 header checksum is right: a wrong one is the kernel's to drop. With
 * options it is not looked at: updated incrementally, a wrong one stays wrong.
 */
static __always_inline bool header_intact(const struct iphdr *ip)
{
	const __u32 *words = (const __u32 *)ip;

	return ip->ihl > 5 ||
	       csum_fold((__u64)words[0] + words[1] + words[2] + words[3] + words[4]) == 0xffff;
}

static __always_inline enum parsed parse_ipv4(void *data, void *end, __u32 size, struct packet *p)
{
	struct iphdr *ip = data + l3_of(p);
	__u32 header;

	if ((void *)(ip + 1) > end)
		return PARSED_OTHER;
	header = ip->ihl * 4;
	p->length = bpf_ntohs(ip->tot_len);
	if (ip->version != 4 || header < sizeof(*ip) || p->length < header ||
	    p->l3 + p->length > size)
		return PARSED_OTHER; /* the kernel counts and drops what is wrong */
	if (!header_intact(ip))
		return PARSED_OTHER;
	p->family = XLVS_IPV4;
	p->protocol = ip->protocol;
	p->ttl = ip->ttl;
	*(__be32 *)p->saddr = ip->saddr;
	*(__be32 *)p->daddr = ip->daddr;
	p->l4 = p->l3 + header;
	if (ip->frag_off & bpf_htons(IP_FRAGMENT))
		return PARSED_FRAGMENT;
	return parse_ports(data, end, p);
}

static __always_inline enum parsed parse_ipv6(void *data, void *end, __u32 size, struct packet *p)
{
	struct ipv6hdr *ip = data + l3_of(p);
	__u32 length;

	if ((void *)(ip + 1) > end)
		return PARSED_OTHER;
	length = bpf_ntohs(ip->payload_len) + sizeof(*ip);
	if (ip->version != 6 || p->l3 + length > size || length > 0xffff)
		return PARSED_OTHER;
	p->length = length;
	p->family = XLVS_IPV6;
	p->protocol = ip->nexthdr;
	p->ttl = ip->hop_limit;
	__builtin_memcpy(p->saddr, &ip->saddr, 16);
	__builtin_memcpy(p->daddr, &ip->daddr, 16);
	p->l4 = p->l3 + sizeof(*ip);
	if (p->protocol == IPPROTO_FRAGMENT)
		return PARSED_FRAGMENT;
	if (is_extension(p->protocol))
		return PARSED_EXTENSION;
	return parse_ports(data, end, p);
}

/*
 * Fill *p, whose addresses must be zero, from the frame of size bytes at data; end may
 * come before its last byte (skbs), but not within the headers.
 */
static __always_inline enum parsed parse_frame(void *data, void *end, __u32 size, struct packet *p)
{
	struct ethhdr *eth = data;
	__u32 offset = sizeof(*eth);
	__be16 protocol;

	if ((void *)(eth + 1) > end)
		return PARSED_OTHER;
	protocol = eth->h_proto;
	p->tags = 0;
#pragma unroll
	for (int i = 0; i < 2; i++) {
		struct vlan_tag *tag = data + offset;

		if (!is_vlan(protocol))
			break;
		if ((void *)(tag + 1) > end)
			return PARSED_OTHER;
		protocol = tag->protocol;
		offset += sizeof(*tag);
		p->tags++;
	}
	p->l3 = offset;
	if (protocol == bpf_htons(ETH_P_IP))
		return parse_ipv4(data, end, size, p);
	if (protocol == bpf_htons(ETH_P_IPV6))
		return parse_ipv6(data, end, size, p);
	return PARSED_OTHER;
}

/*
 * The packet's bounds, loaded where it is said: clang else shares one load between branches,
 * as a number that 6.1's verifier no longer takes for a pointer.
 */
static __always_inline void *data_of(struct xdp_md *ctx)
{
	void *data;

	asm volatile("%0 = *(u32 *)(%1 + 0)" : "=r"(data) : "r"(ctx));
	return data;
}

static __always_inline void *end_of(struct xdp_md *ctx)
{
	void *end;

	asm volatile("%0 = *(u32 *)(%1 + 4)" : "=r"(end) : "r"(ctx));
	return end;
}

static __always_inline enum parsed parse_xdp(struct xdp_md *ctx, struct packet *p)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;

	return parse_frame(data, end, end - data, p);
}

#endif
