/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Firewall marks. XDP runs before netfilter, so packets are marked by rules of our own
 * (`xlvs fwmark`): as in iptables, all rules that match apply in order, the last one wins.
 */
#ifndef XLVS_MARK_H
#define XLVS_MARK_H

#include "index.h"

struct mark_walk {
	__u32 first;
	__u16 port;
	__u8 protocol;
	__u32 mark;
};

static long mark_step(__u32 step, struct mark_walk *walk)
{
	__u32 row = walk->first + step;
	struct xlvs_mark_rule *rule = bpf_map_lookup_elem(&mark_rules, &row);

	if (!rule)
		return 1;
	if (rule->protocol && rule->protocol != walk->protocol)
		return 0;
	if (walk->port >= rule->first_port && walk->port <= rule->last_port)
		walk->mark = rule->mark;
	return 0;
}

/* The packet's mark, 0 where no rule applies. */
static __always_inline __u32 mark_of(const struct packet *p)
{
	struct xlvs_mark_prefix key = { .family = p->family };
	struct mark_walk walk = { .port = bpf_ntohs(p->dport), .protocol = p->protocol };
	__u64 *stretch;

	key.bits = p->family == XLVS_IPV4 ? 64 : 160;
	copy_address(key.address, p->daddr);
	stretch = bpf_map_lookup_elem(&mark_prefixes, &key);
	if (!stretch)
		return 0;
	walk.first = (__u32)*stretch;
	bpf_loop(*stretch >> 32, mark_step, &walk, 0);
	return walk.mark;
}

/* Whether rules may mark packets to this one's destination. */
static __always_inline bool may_be_marked(const struct packet *p)
{
	struct xlvs_mark_prefix key = { .family = p->family };

	key.bits = p->family == XLVS_IPV4 ? 64 : 160;
	copy_address(key.address, p->daddr);
	return bpf_map_lookup_elem(&mark_prefixes, &key);
}

#endif
