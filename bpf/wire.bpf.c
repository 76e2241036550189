/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * A bad wire, for labs: frames that come in by a port of the switch are lost, or are late so
 * that others overtake them. Kernels without netem have this.
 */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#define MILLION 1000000

/* Frames of a million. */
const volatile __u32 lost SEC(".rodata.wire") = 0;
const volatile __u32 late SEC(".rodata.wire") = 0;

/* A thread of its own takes what is late on: it runs after those that came behind it. */
struct {
	__uint(type, BPF_MAP_TYPE_CPUMAP);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct bpf_cpumap_val);
} detour SEC(".maps");

SEC("xdp")
int wire(struct xdp_md *ctx)
{
	__u32 drawn = bpf_get_prandom_u32() % MILLION;

	if (drawn < lost)
		return XDP_DROP;
	if (drawn - lost < late)
		return bpf_redirect_map(&detour, 0, XDP_PASS);
	return XDP_PASS;
}

char LICENSE[] SEC("license") = "GPL";
