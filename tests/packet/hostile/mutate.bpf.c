/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Hostile frames, made where they are needed: BPF_PROG_TEST_RUN repeats this program, which
 * each time takes a frame of the corpus, damages it as the next random number says, and
 * goes on to the program under test. The same number gives the same frame.
 */
#include <stdbool.h>

#include <linux/bpf.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define FRAME_ROOM 1792
#define CORPUS	   8192
#define HEADERS	   96 /* most damage is done in here */
#define SMALLEST   14

struct frame {
	__u32 length;
	__u8 bytes[FRAME_ROOM];
};

struct state {
	__u64 seed;
	__u64 next;   /* number of the next frame */
	__u64 broken; /* frames that could not be made */
	__u32 frames; /* in the corpus, a power of two */
	__u32 alone;  /* make the frame, test nothing */
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct state);
} state SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, CORPUS);
	__type(key, __u32);
	__type(value, struct frame);
} corpus SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} tested SEC(".maps");

/* splitmix64: every number of its own, whatever the seed. */
static __always_inline __u64 mix(__u64 x)
{
	x += 0x9e3779b97f4a7c15ull;
	x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9ull;
	x = (x ^ x >> 27) * 0x94d049bb133111ebull;
	return x ^ x >> 31;
}

static const __u16 telling[16] = {
	0x0000, 0xffff, 0x0800, 0x86dd, 0x8100, 0x88a8, 0x4500, 0x4f00,
	0x0014, 0x0028, 0x2000, 0x1fff, 0x0601, 0x2c2c, 0x0050, 0x8000,
};

/* As pointers 64 bits wide: clang would subtract halves, which no verifier takes. */
static __always_inline __s32 distance(__u32 from, __u32 to)
{
	void *begin = (void *)(long)from, *end = (void *)(long)to;
	__u64 result = end - begin;

	asm volatile("" : "+r"(result));
	return (__s32)result;
}

/* To the very front of the buffer, and back to where a packet begins: it may have been moved. */
static __always_inline bool reset(struct xdp_md *ctx, __u32 length)
{
	__s32 meta = distance(ctx->data_meta, ctx->data);

	if (meta && bpf_xdp_adjust_meta(ctx, meta))
		return false;
	for (int i = 0; i < 96; i++)
		if (bpf_xdp_adjust_head(ctx, -8))
			break;
	if (bpf_xdp_adjust_head(ctx, 200))
		return false;
	return !bpf_xdp_adjust_tail(ctx, (__s32)length - distance(ctx->data, ctx->data_end));
}

static __always_inline void damage(struct xdp_md *ctx, __u32 length, __u64 number)
{
	__u32 reach = number & 3 && length > HEADERS ? HEADERS : length;
	__u32 at = (__u32)(number >> 32) % reach;
	__u16 word = (__u16)(number >> 16);
	__u8 bytes[2] = {};

	if (at + 2 > length || bpf_xdp_load_bytes(ctx, at, bytes, 2))
		return;
	switch (number >> 2 & 7) {
	case 0:
		bytes[0] ^= 1 << (word & 7);
		break;
	case 1:
		bytes[0] = word;
		break;
	case 2:
		bytes[0] = telling[word & 15] >> 8;
		bytes[1] = telling[word & 15];
		break;
	case 3:
		bytes[0] = 0;
		break;
	case 4:
		bytes[0] = 0xff;
		break;
	case 5:
		bytes[0] = word >> 8;
		bytes[1] = word;
		break;
	case 6:
		bytes[0]++;
		break;
	default:
		bytes[0]--;
	}
	bpf_xdp_store_bytes(ctx, at, bytes, 2);
}

/* Where the IP header begins, and whose it is; 0 for none. */
static __always_inline __u32 find_ip(struct xdp_md *ctx, __u16 *kind)
{
	__u32 at = 12;

	for (int i = 0; i < 3; i++, at += 4) {
		if (bpf_xdp_load_bytes(ctx, at, kind, sizeof(*kind)))
			return 0;
		if (*kind != bpf_htons(0x8100) && *kind != bpf_htons(0x88a8))
			return at + 2;
	}
	return 0;
}

/* Make the lengths and the IPv4 checksum right again, lest most frames end at the door. */
static __always_inline void mend(struct xdp_md *ctx, __u32 length, bool lengths)
{
	__u8 header[60] = {};
	__u32 at, size;
	__u16 kind = 0, sum;
	__be16 said;
	__s64 folded;

	at = find_ip(ctx, &kind);
	if (!at || at > length)
		return;
	if (kind == bpf_htons(0x86dd) && lengths) {
		said = bpf_htons(length - at - 40);
		bpf_xdp_store_bytes(ctx, at + 4, &said, sizeof(said));
	}
	if (kind != bpf_htons(0x0800) || bpf_xdp_load_bytes(ctx, at, header, 20))
		return;
	if (lengths) {
		said = bpf_htons(length - at);
		bpf_xdp_store_bytes(ctx, at + 2, &said, sizeof(said));
	}
	size = (header[0] & 15) * 4;
	if (size < 20 || size > 60)
		return;
	sum = 0;
	bpf_xdp_store_bytes(ctx, at + 10, &sum, sizeof(sum));
	if (bpf_xdp_load_bytes(ctx, at, header, size))
		return;
	folded = bpf_csum_diff(0, 0, (__be32 *)header, sizeof(header), 0);
	folded = (folded & 0xffff) + ((__u32)folded >> 16);
	folded = (folded & 0xffff) + ((__u32)folded >> 16);
	sum = ~(__u16)folded;
	bpf_xdp_store_bytes(ctx, at + 10, &sum, sizeof(sum));
}

static __always_inline bool make(struct xdp_md *ctx, const struct frame *f, __u64 number)
{
	__u32 length = f->length, choice = number >> 40;
	bool cut = !(choice & 31);

	if (length < SMALLEST || length > FRAME_ROOM)
		return false;
	if (!reset(ctx, length) || bpf_xdp_store_bytes(ctx, 0, (void *)f->bytes, length))
		return false;
	if (cut) {
		length = SMALLEST + (__u32)mix(number ^ 1) % (length - SMALLEST + 1);
		if (bpf_xdp_adjust_tail(ctx, (int)length - (int)f->length))
			return false;
	}
	for (__u32 i = 0; i < 3; i++)
		if (i < (choice >> 5 & 3))
			damage(ctx, length, mix(number + 2 + i));
	if (choice >> 7 & 7) /* seven in eight */
		mend(ctx, length, cut && choice >> 10 & 3);
	return true;
}

SEC("xdp")
int hostile(struct xdp_md *ctx)
{
	__u32 zero = 0, chosen;
	struct state *s = bpf_map_lookup_elem(&state, &zero);
	struct frame *f;
	__u64 number;

	if (!s)
		return XDP_ABORTED;
	number = mix(s->seed + __sync_fetch_and_add(&s->next, 1));
	chosen = (__u32)number & (s->frames - 1);
	f = bpf_map_lookup_elem(&corpus, &chosen);
	if (!f || !make(ctx, f, number)) {
		__sync_fetch_and_add(&s->broken, 1);
		return XDP_ABORTED;
	}
	if (s->alone)
		return XDP_PASS;
	bpf_tail_call(ctx, &tested, 0);
	return XDP_ABORTED;
}

char LICENSE[] SEC("license") = "GPL";
