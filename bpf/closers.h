/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * Who closed which connection. What still comes for it the kernel answers with a reset, long after
 * its process has let go of the socket: from TIME-WAIT, from an orphan, or where nothing is left.
 * The last closings of the namespace are kept for that moment.
 */
#ifndef RSTSCOPE_CLOSERS_H
#define RSTSCOPE_CLOSERS_H

#include <linux/bpf.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>
#include "kernel.h"
#include "shared.h"

/* The ends of a connection, as in struct socket_event. */
struct ends {
	__u8 local_addr[16] __attribute__((aligned(8)));
	__u8 peer_addr[16];
	__u16 local_port;
	__u16 peer_port;
	__u8 family;
	__u8 pad[3];
};

struct closer {
	__u64 is_busy; /* being written or read: somebody else goes without */
	struct ends ends;
	__u64 time_ns;
	/* As in struct socket_event. */
	__u64 sleeps;
	__u64 major_faults;
	__u32 pid;
	__u32 thread;
	__u32 exit_code;
	__u8 exit_kind;
	__u8 pad[3];
	char comm[COMM_BYTES];
	char thread_comm[COMM_BYTES];
};

/*
 * One place for each hash of a connection's ends, the last to close there has it: a closing must
 * not wait for another CPU's, as it would for the lists of an LRU map. At 1,000 closings a second
 * more than half are there for 10 s (e^-10000/16384); a peer that goes on after its end was closed
 * does so within a round-trip or some. 2 MB of the kernel's memory; a power of two.
 */
#define CLOSERS 16384

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, CLOSERS);
	__type(key, __u32);
	__type(value, struct closer);
} closers SEC(".maps");

static __always_inline struct ends ends_of(const struct socket_event *event)
{
	struct ends ends = {
		.local_port = event->local_port,
		.peer_port = event->peer_port,
		.family = event->family,
	};

	__builtin_memcpy(ends.local_addr, event->local_addr, 16);
	__builtin_memcpy(ends.peer_addr, event->peer_addr, 16);
	return ends;
}

/* What goes over the wire counts: IPv4 at a socket of IPv6 (RFC 4291 2.5.5.2) is IPv4. */
static __always_inline struct ends wire_ends_of(const struct socket_event *event)
{
	struct ends ends = ends_of(event);
	__u32 *local = (__u32 *)ends.local_addr, *peer = (__u32 *)ends.peer_addr;

	if (ends.family != AF_INET6 || local[0] || local[1] || local[2] != bpf_htonl(0xffff))
		return ends;
	ends.family = AF_INET;
	local[0] = local[3];
	peer[0] = peer[3];
	local[2] = local[3] = peer[2] = peer[3] = 0;
	return ends;
}

/* Multiplied by an odd number, a word reaches the bits above its own (Knuth, TAOCP 6.4); folded,
 * its highest the lower ones as well: the last byte of an IPv6 address is one of these. */
static __always_inline struct closer *closer_at(const struct ends *ends)
{
	const __u64 *words = (const __u64 *)ends;
	__u64 hash = 0;
	__u32 place;

	for (int i = 0; i < sizeof(*ends) / sizeof(*words); i++) {
		hash = (hash ^ words[i]) * 0x9e3779b97f4a7c15ULL;
		hash ^= hash >> 32;
	}
	place = hash & (CLOSERS - 1);
	return bpf_map_lookup_elem(&closers, &place);
}

static __always_inline int are_same(const struct ends *a, const struct ends *b)
{
	const __u64 *left = (const __u64 *)a, *right = (const __u64 *)b;
	__u64 differ = 0;

	for (int i = 0; i < sizeof(*a) / sizeof(*left); i++)
		differ |= left[i] ^ right[i];
	return !differ;
}

static __always_inline int claim(struct closer *closer)
{
	return closer && !__sync_lock_test_and_set(&closer->is_busy, 1);
}

/* Nothing is to move beyond it. Owners are told on x86-64 only (is_process), where no processor
 * moves a store before another; a locked instruction would wait for all of them. */
static __always_inline void release(struct closer *closer)
{
	barrier();
	*(volatile __u64 *)&closer->is_busy = 0;
}

/* Looks first: most places are somebody else's, who is not to be kept from writing it. */
static __always_inline int claim_of(struct closer *closer, const struct ends *ends)
{
	if (!closer || !are_same(&closer->ends, ends) || !claim(closer))
		return 0;
	if (are_same(&closer->ends, ends))
		return 1;
	release(closer);
	return 0;
}

static __always_inline void remember_closer(const struct socket_event *closed)
{
	struct ends ends = wire_ends_of(closed);
	struct closer *closer = closer_at(&ends);

	if (!claim(closer))
		return;
	closer->ends = ends;
	closer->time_ns = closed->time_ns;
	closer->sleeps = closed->sleeps;
	closer->major_faults = closed->major_faults;
	closer->pid = closed->pid;
	closer->thread = closed->thread;
	closer->exit_code = closed->exit_code;
	closer->exit_kind = closed->exit_kind;
	__builtin_memcpy(closer->comm, closed->comm, COMM_BYTES);
	__builtin_memcpy(closer->thread_comm, closed->thread_comm, COMM_BYTES);
	release(closer);
}

/* A connection is opened: who closed an earlier one between the same ends did not close this. */
static __always_inline void forget_closer(const struct socket_event *opened)
{
	struct ends ends = wire_ends_of(opened);
	struct closer *closer = closer_at(&ends);

	if (!claim_of(closer, &ends))
		return;
	closer->ends.family = 0;
	release(closer);
}

/* Of a reset that no process sent. */
static __always_inline void fill_closer(struct socket_event *event)
{
	struct ends ends = wire_ends_of(event);
	struct closer *closer = closer_at(&ends);

	if (!claim_of(closer, &ends))
		return;
	event->closed_ns = closer->time_ns;
	event->sleeps = closer->sleeps;
	event->major_faults = closer->major_faults;
	event->pid = closer->pid;
	event->thread = closer->thread;
	event->exit_code = closer->exit_code;
	event->exit_kind = closer->exit_kind;
	__builtin_memcpy(event->comm, closer->comm, COMM_BYTES);
	__builtin_memcpy(event->thread_comm, closer->thread_comm, COMM_BYTES);
	release(closer);
}

#endif
