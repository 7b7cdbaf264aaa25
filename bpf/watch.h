/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * Flows whose next few frames are copied: those that saw a reset a moment ago, since a peer that
 * goes on talking never sent that reset; and at the start those that are older than the sensor,
 * so that it learns what their peers look like. Costs one load while no flow is watched. Bounded
 * in number (LRU), in time and in frames a flow. After a reset the last of them are taken at
 * growing intervals: what comes right behind it may have been sent before, and a peer that sends
 * much would use them all up on that.
 */
#ifndef RSTSCOPE_WATCH_H
#define RSTSCOPE_WATCH_H

#include "parse.h"

/* How long, and how many frames, after each reset: the first as they come, then some at twice the
 * time since the reset, each, and no less than WATCH_STEP_NS apart. */
const volatile __u64 watch_ns = 3000000000ULL;
const volatile __u64 watch_budget = 8;
const volatile __u64 watch_spaced = 8;
#define WATCH_STEP_NS 4000000ULL

/* A directed four-tuple; an IPv4 address in the first four bytes, the rest zero. */
struct flow_key {
	__be32 src[4];
	__be32 dst[4];
	__be16 src_port;
	__be16 dst_port;
};

struct watch {
	__u64 until_ns;
	__u64 budget;
	__u64 origin;  /* enum frame_origin */
	__u64 next_ns; /* none before */
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 8192);
	__type(key, struct flow_key);
	__type(value, struct watch);
} watched SEC(".maps");

/* When the last watch ends; 0: nothing is watched. The loader sets it for connections that it
 * found. */
__u64 watching_until_ns;

static __always_inline void key_of(const struct segment *segment, struct flow_key *key)
{
	struct ipv6_header *ip6 = take(struct ipv6_header, segment->network, segment->end);
	struct ipv4_header *ip4 = take(struct ipv4_header, segment->network, segment->end);

	__builtin_memset(key, 0, sizeof(*key));
	if (segment->is_ipv6 && ip6) {
		__builtin_memcpy(key->src, ip6->src, 16);
		__builtin_memcpy(key->dst, ip6->dst, 16);
	} else if (ip4) {
		key->src[0] = ip4->src;
		key->dst[0] = ip4->dst;
	}
	key->src_port = segment->tcp->src;
	key->dst_port = segment->tcp->dst;
}

/* A reset came: watch what its purported sender says next. A further reset renews the watch. */
static __always_inline void watch_flow(const struct segment *segment, __u64 now)
{
	struct watch watch = {
		.until_ns = now + watch_ns,
		.budget = watch_budget + watch_spaced,
		.origin = FRAME_AFTER_RESET,
	};
	struct flow_key key;

	if (!watch_ns || !watch_budget)
		return;
	key_of(segment, &key);
	bpf_map_update_elem(&watched, &key, &watch, BPF_ANY);
	if (watch.until_ns > *(volatile __u64 *)&watching_until_ns)
		*(volatile __u64 *)&watching_until_ns = watch.until_ns;
}

static __always_inline __u64 at_least_a_step(__u64 ns)
{
	return ns > WATCH_STEP_NS ? ns : WATCH_STEP_NS;
}

/*
 * Why this frame of no control flag is to be copied, as enum frame_origin; 0: it is not. Not
 * inlined: it is off the quick path.
 */
static __noinline int watched_as(const struct flow_key *key)
{
	__u64 until = *(volatile __u64 *)&watching_until_ns;
	__u64 now = bpf_ktime_get_ns();
	struct watch *watch;
	__s64 left;
	int origin;

	if (!key)
		return 0;
	if (now > until) {
		/* Back to one load a frame, unless a reset came meanwhile. */
		__sync_val_compare_and_swap(&watching_until_ns, until, 0);
		return 0;
	}
	watch = bpf_map_lookup_elem(&watched, key);
	if (!watch)
		return 0;
	/* Read before a delete may give the entry to another flow. */
	until = watch->until_ns;
	origin = watch->origin;
	if (now <= until && now < *(volatile __u64 *)&watch->next_ns)
		return 0;
	left = (__s64)__sync_fetch_and_add(&watch->budget, -1) - 1;
	if (now > until || left <= 0)
		bpf_map_delete_elem(&watched, key);
	else if (origin == FRAME_AFTER_RESET && left <= (__s64)watch_spaced)
		watch->next_ns = now + at_least_a_step(now - (until - watch_ns));
	return now <= until ? origin : 0;
}

#endif
