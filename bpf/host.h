/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Counters of the programs that look at what this host does; all of them share one map. */
#ifndef RSTSCOPE_HOST_H
#define RSTSCOPE_HOST_H

#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include "shared.h"

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, HOST_COUNTERS);
	__type(key, __u32); /* enum host_counter */
	__type(value, __u64);
} host_counters SEC(".maps");

static __always_inline void count_host(__u32 which)
{
	__u64 *counter = bpf_map_lookup_elem(&host_counters, &which);

	if (counter)
		*counter += 1;
}

#endif
