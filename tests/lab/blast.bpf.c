// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/*
 * Test traffic at the speed of the kernel: run by BPF_PROG_RUN with live frames, it fills in the
 * template that it is given (Ethernet, IPv4 and TCP without options) and sends it by an interface
 * of its namespace. Addresses, ports and sequence numbers are random where the plan says so;
 * checksums are right. Needs nothing but the kernel's own headers.
 */
#include <linux/bpf.h>

#define SEC(name) __attribute__((section(name), used))
#define __uint(name, val) int(*name)[val]
#define __type(name, val) typeof(val) *name

static void *(*bpf_map_lookup_elem)(void *map, const void *key) = (void *)BPF_FUNC_map_lookup_elem;
static __u32 (*bpf_get_prandom_u32)(void) = (void *)BPF_FUNC_get_prandom_u32;
static long (*bpf_redirect)(__u32 ifindex, __u64 flags) = (void *)BPF_FUNC_redirect;

char LICENSE[] SEC("license") = "Dual BSD/GPL";

enum {
	RANDOM_SOURCE = 1, /* the address, out of 1.0.0.0 to 223.255.255.255 but 10.0.0.0/8 */
	RANDOM_SOURCE_PORT = 2,
	RANDOM_TARGET_PORT = 4,
};

struct plan {
	__u32 ifindex;
	__u32 random;
	__u64 sent;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct plan);
} plans SEC(".maps");

/* Sixteen-bit words of a plain frame: Ethernet 0 to 6, IPv4 7 to 16, TCP 17 to 26. */
enum { IP = 7, IP_ID = IP + 2, IP_SUM = IP + 5, SOURCE = IP + 6, TCP = 17, TCP_SUM = TCP + 8, END = 27 };

static inline __attribute__((always_inline)) __u16 fold(__u32 sum)
{
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return ~sum;
}

static inline __attribute__((always_inline)) void fill(__u16 *word, __u32 random)
{
	__u32 dice = bpf_get_prandom_u32(), more = bpf_get_prandom_u32();

	word[IP_ID] = dice;
	if (random & RANDOM_SOURCE) {
		__u32 first = 1 + (dice >> 16) % 223;

		if (first == 10 || first == 127)
			first++;
		word[SOURCE] = first | (more & 0xff) << 8;
		word[SOURCE + 1] = more >> 8;
	}
	if (random & RANDOM_SOURCE_PORT)
		word[TCP] = bpf_get_prandom_u32() | 4;
	if (random & RANDOM_TARGET_PORT)
		word[TCP + 1] = bpf_get_prandom_u32() | 4;
	dice = bpf_get_prandom_u32();
	word[TCP + 2] = dice;
	word[TCP + 3] = dice >> 16;
}

SEC("xdp")
int blast(struct xdp_md *ctx)
{
	__u16 *word = (void *)(long)ctx->data;
	__u32 zero = 0, sum = 0;
	struct plan *plan = bpf_map_lookup_elem(&plans, &zero);

	if (!plan || (void *)(word + END) > (void *)(long)ctx->data_end)
		return XDP_DROP;
	fill(word, plan->random);
	word[IP_SUM] = 0;
#pragma unroll
	for (int i = IP; i < TCP; i++)
		sum += word[i];
	word[IP_SUM] = fold(sum);
	/* The pseudo header: addresses, protocol 6, 20 bytes; big-endian as the words are. */
	sum = (6 << 8) + (20 << 8);
	word[TCP_SUM] = 0;
#pragma unroll
	for (int i = SOURCE; i < END; i++)
		sum += word[i];
	word[TCP_SUM] = fold(sum);
	plan->sent++;
	return bpf_redirect(plan->ifindex, 0);
}
