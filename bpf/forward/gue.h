/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * TUN by GUE (draft-ietf-intarea-gue, as linux/net/gue.h has it): a UDP header, whose source
 * port tells flows apart, and a word that names the protocol inside. With --tun-remcsum and a
 * packet whose checksum is still to be computed, a private option leaves that to the real
 * server, since UDP's own checksum guards the packet on its way.
 */
#ifndef XLVS_FORWARD_GUE_H
#define XLVS_FORWARD_GUE_H

#include "../shim.h"

#define UDP_CHECK_OFFSET   6
#define GUE_OPTIONS_SHIFT  24 /* length of the options in words */
#define GUE_PROTOCOL_SHIFT 16
#define GUE_PRIVATE	   0x00000001u /* private flags follow */
#define GUE_REMOTE_CHECK   0x80000000u /* private flag: remote checksum offload */
/* The kernel's ephemeral ports (net.ipv4.ip_local_port_range), which it takes for this. */
#define FIRST_SOURCE_PORT 32768
#define LAST_SOURCE_PORT  60999

static __always_inline __u32 source_port(__u32 flow_hash)
{
	__u64 ports = LAST_SOURCE_PORT - FIRST_SOURCE_PORT;

	return FIRST_SOURCE_PORT + (__u32)(flow_hash * ports >> 32);
}

/*
 * remote: offset of the check field from the inner transport header, for the receiver to
 * complete the checksum; 0: it is whole, or there is none.
 */
static __always_inline void gue_shim(const struct packet *p, const struct xlvs_dest *dest,
				     __u32 flow_hash, bool check, __u32 remote, struct shim *shim)
{
	__u32 inside = p->family == XLVS_IPV4 ? IPPROTO_IPIP : IPPROTO_IPV6;
	__u32 start = p->l4 - p->l3, words = remote ? 2 : 0;

	shim->size = sizeof(struct udphdr) + 4 + 4 * words;
	shim->check = check ? UDP_CHECK_OFFSET : 0;
	shim->protocol = IPPROTO_UDP;
	shim->remote = remote;
	shim->word[0] = bpf_htons(source_port(flow_hash)) | (__u32)dest->tunnel_port << 16;
	shim->word[1] = bpf_htonl((p->length + shim->size) << 16);
	shim->word[2] = bpf_htonl(words << GUE_OPTIONS_SHIFT | inside << GUE_PROTOCOL_SHIFT |
				  (remote ? GUE_PRIVATE : 0));
	shim->word[3] = bpf_htonl(GUE_REMOTE_CHECK);
	shim->word[4] = bpf_htonl(start << 16 | (start + remote));
}

#endif
