/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * Orderly closings around a reset that a process sends out of itself. A proxy that gives a
 * connection up, by a time-out or by command, ends both of its legs in one turn of its loop: the
 * one with a FIN, the other with a reset, in either order. The last closings of a CPU are kept
 * until their thread resets a connection there, and told then.
 */
#ifndef RSTSCOPE_CLOSINGS_H
#define RSTSCOPE_CLOSINGS_H

#include "events.h"
#include "host.h"

/* How far apart the two are at most: a thread that was interrupted for some slices. */
#define TURN_NS 10000000ULL

/* So many closings behind the reset, and one more before it: where there are more, no two of them
 * stand alone. */
#define TURN_CLOSINGS 4

struct turn {
	struct socket_event kept[TURN_CLOSINGS + 1]; /* the next is written over the oldest */
	__u32 next;
	__u32 thread; /* that sent the last reset on this CPU */
	__u64 until_ns;
	__u32 left;
	__u32 pad;
};

/* Written on its own CPU alone, where no tracing program breaks in on another's. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct turn);
} turns SEC(".maps");

static __always_inline struct turn *this_turn(void)
{
	__u32 only = 0;

	return bpf_map_lookup_elem(&turns, &only);
}

/* Whether the calling thread has just reset a connection, so that its closings are told at once. */
static __always_inline int follows_reset(struct turn *turn, __u64 now)
{
	__u32 thread = bpf_get_current_pid_tgid();

	if (turn->thread != thread || now > turn->until_ns || !turn->left)
		return 0;
	turn->left -= 1;
	return 1;
}

/* Where the current one is written: over the oldest. */
static __always_inline struct socket_event *place_for_closing(struct turn *turn)
{
	__u32 place = turn->next;

	return &turn->kept[place <= TURN_CLOSINGS ? place : 0];
}

/* Keeps the current one. */
static __always_inline void keep_closing(struct turn *turn)
{
	turn->next = turn->next < TURN_CLOSINGS ? turn->next + 1 : 0;
}

static __always_inline void tell(const struct socket_event *closed)
{
	if (bpf_ringbuf_output(&events, (void *)closed, sizeof(*closed), BPF_RB_NO_WAKEUP))
		count_host(HOST_EVENTS_LOST);
	else
		count_host(HOST_EVENTS);
}

/* A process resets a connection: what its thread closed before, and what it closes next, is told.
 */
static __always_inline void tell_turn(__u64 now)
{
	struct turn *turn = this_turn();
	__u32 thread = bpf_get_current_pid_tgid();

	if (!turn)
		return;
	for (int i = 0; i < TURN_CLOSINGS + 1; i++) {
		struct socket_event *kept = &turn->kept[i];

		if (kept->thread != thread || now - kept->time_ns > TURN_NS)
			continue;
		tell(kept);
		kept->thread = 0;
	}
	turn->thread = thread;
	turn->until_ns = now + TURN_NS;
	turn->left = TURN_CLOSINGS;
}

#endif
