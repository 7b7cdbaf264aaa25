/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* The ring buffer that all programs share, and how a record is put into it. */
#ifndef RSTSCOPE_EVENTS_H
#define RSTSCOPE_EVENTS_H

#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 8 << 20); /* the loader may set another size */
} events SEC(".maps");

/*
 * Records that may wait before their reader is woken, in bytes: some 800 of them. It looks every
 * few milliseconds by itself; to wake it for each record would cost every handshake of the host an
 * interrupt of another CPU and a context switch.
 */
#define WAKE_BYTES (256 << 10)

static __always_inline void submit(void *record)
{
	__u64 waiting = bpf_ringbuf_query(&events, BPF_RB_AVAIL_DATA);

	bpf_ringbuf_submit(record, waiting < WAKE_BYTES ? BPF_RB_NO_WAKEUP : BPF_RB_FORCE_WAKEUP);
}

#endif
