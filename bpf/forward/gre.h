/* SPDX-License-Identifier: GPL-2.0-only */
/* TUN by GRE (RFC 2784): flags and protocol, and with --tun-csum a checksum. */
#ifndef XLVS_FORWARD_GRE_H
#define XLVS_FORWARD_GRE_H

#include "../shim.h"

#define GRE_CHECKSUM	 0x80000000u /* first bit of the header */
#define GRE_CHECK_OFFSET 4

static __always_inline void gre_shim(const struct packet *p, bool check, struct shim *shim)
{
	__u32 protocol = p->family == XLVS_IPV4 ? ETH_P_IP : ETH_P_IPV6;

	shim->word[0] = bpf_htonl(protocol | (check ? GRE_CHECKSUM : 0));
	shim->size = check ? 8 : 4;
	shim->check = check ? GRE_CHECK_OFFSET : 0;
	shim->protocol = IPPROTO_GRE;
}

#endif
