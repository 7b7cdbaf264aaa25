/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * Counters of the programs that look at what this host does; all of them share one map, whose one
 * entry holds them all, so that reading them is one system call.
 */
#ifndef RSTSCOPE_HOST_H
#define RSTSCOPE_HOST_H

#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include "shared.h"

struct host_counts {
	__u64 of[HOST_COUNTERS]; /* by enum host_counter */
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct host_counts);
} host_counters SEC(".maps");

static __always_inline void count_host(__u32 which)
{
	__u32 only = 0;
	struct host_counts *counts = bpf_map_lookup_elem(&host_counters, &only);

	if (counts && which < HOST_COUNTERS)
		counts->of[which] += 1;
}

#endif
