// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/*
 * The tcp tracepoints of one network namespace: resets that the kernel sends and why, resets that
 * it accepts, handshakes that complete, whose the sockets were, and what was closed in order soon
 * after, or beside one that a process sends. Every pointer is checked
 * though the kernel promises it: which of them may be NULL differs between versions, so the test
 * is of what lies behind.
 */
#include "closers.h"
#include "closings.h"
#include "events.h"
#include "host.h"
#include "packet.h"
#include "socket.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

/* The namespace to report: inode of /proc/self/ns/net. */
const volatile __u32 netns_inum = 0;

/*
 * Sockets that a reset ended and a process still holds, by cookie. They may forget their ends
 * before they are destroyed: connect() that fails makes them like new.
 */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 4096);
	__type(key, __u64);
	__type(value, struct ends);
} reset_sockets SEC(".maps");

/*
 * Orderly closings are reported only soon after a reset ended a socket that a process holds: one of
 * them may be that process's answer to it. A proxy answers within one turn of its loop; 100 ms
 * are a long one on a busy host. Else they are kept for a moment, for a reset that their process
 * may send itself (closings.h).
 */
#define CLOSINGS_NS 100000000ULL

/*
 * So many of them at most after each reset, whoever makes them: at 10,000 closings a second they
 * are 6 ms. Thousands of resets a second cannot ask for more than there are closings.
 */
#define CLOSINGS_MAX 64

/* Written by any CPU without a lock: a closing more or less than the budget harms nobody. */
__u64 closings_until_ns = 0;
__u32 closings_left = 0;

const struct socket_event *btf_socket_event __attribute__((unused));

static __always_inline int is_ours(const struct net *net)
{
	return net && net->ns.inum == netns_inum;
}

static __always_inline int is_full(__u8 state)
{
	return state != TCP_TIME_WAIT && state != TCP_NEW_SYN_RECV;
}

static __always_inline void fill_tuple(struct socket_event *event, const struct sock *sk)
{
	const struct sock_common *common = &sk->__sk_common;

	event->family = common->skc_family;
	/* A closing socket has given up skc_num by now, but inet_sport goes into its reset. */
	event->local_port = common->skc_num;
	if (is_full(common->skc_state))
		event->local_port = bpf_ntohs(BPF_CORE_READ((struct inet_sock *)sk, inet_sport));
	event->peer_port = bpf_ntohs(common->skc_dport);
	if (event->family == AF_INET6) {
		bpf_core_read(event->local_addr, 16, &common->skc_v6_rcv_saddr);
		bpf_core_read(event->peer_addr, 16, &common->skc_v6_daddr);
	} else {
		__be32 local = common->skc_rcv_saddr, peer = common->skc_daddr;

		__builtin_memcpy(event->local_addr, &local, 4);
		__builtin_memcpy(event->peer_addr, &peer, 4);
	}
}

/* What only a full socket has: the others are shorter structs. */
static __always_inline void fill_socket(struct socket_event *event, struct sock *sk)
{
	event->state = sk->__sk_common.skc_state;
	if (!is_full(event->state))
		return;
	event->cookie = bpf_get_socket_cookie(sk);
	event->cgroup_id = sk->sk_cgrp_data.cgroup->kn->id;
}

/* What it had carried when it was aborted, and for how long its peer had been silent. */
static __always_inline void fill_counts(struct socket_event *event, struct sock *sk)
{
	struct tcp_sock *tp = bpf_skc_to_tcp_sock(sk);
	struct socket_view view = {};

	if (!tp)
		return;
	view_full(&view, tp, event->time_ns);
	event->bytes_received = view.bytes_received;
	event->bytes_acked = view.bytes_acked;
	event->last_received_ns = view.last_received_ns;
	/* Nobody has accepted it, or its file was closed. */
	event->is_unclaimed = !sk->sk_socket;
}

static __always_inline struct socket_event *begin(__u32 kind)
{
	struct socket_event *event = bpf_ringbuf_reserve(&events, sizeof(*event), 0);

	if (!event) {
		count_host(HOST_EVENTS_LOST);
		return NULL;
	}
	__builtin_memset(event, 0, sizeof(*event));
	event->kind = kind;
	event->time_ns = bpf_ktime_get_ns();
	return event;
}

static __always_inline int finish(struct socket_event *event)
{
	submit(event);
	count_host(HOST_EVENTS);
	return 0;
}

static __always_inline void expect_closings(__u64 now)
{
	closings_until_ns = now + CLOSINGS_NS;
	closings_left = CLOSINGS_MAX;
}

/* Whether one that a process closes now is told at once, rather than kept. */
static __always_inline int is_told(struct turn *turn, __u64 now)
{
	if (now > closings_until_ns)
		return follows_reset(turn, now);
	if (!closings_left) {
		count_host(HOST_CLOSINGS_UNTOLD);
		return 0;
	}
	closings_left -= 1;
	return 1;
}

/* A process closes a connection with a FIN, or one of which it had shut only its own direction. */
static __always_inline int closed(struct sock *sk, int old_state, int state)
{
	struct socket_event *event;
	struct turn *turn;

	if (!is_process())
		return 0;
	turn = this_turn();
	if (!turn)
		return 0;
	event = place_for_closing(turn);
	__builtin_memset(event, 0, sizeof(*event));
	event->kind = EVENT_CLOSED;
	event->time_ns = bpf_ktime_get_ns();
	fill_socket(event, sk);
	fill_tuple(event, sk);
	fill_owner(event);
	event->state = state;
	remember_closer(event);
	if (old_state == state) {
		/* Its FIN was told, or kept, when it was sent. */
		event->thread = 0;
		return 0;
	}
	if (!is_told(turn, event->time_ns)) {
		keep_closing(turn);
		return 0;
	}
	tell(event);
	event->thread = 0;
	return 0;
}

/* No process can have a hand in it any more: it is a listener that stands in for nothing,
 * TIME-WAIT, or an orphan. */
static __always_inline int is_let_go(const struct sock *sk)
{
	__u8 state = sk->__sk_common.skc_state;

	if (state == TCP_NEW_SYN_RECV)
		return 0;
	return state == TCP_TIME_WAIT || state == TCP_LISTEN || !sk->sk_socket;
}

static __always_inline int reset_sent(struct sock *sk, struct sk_buff *skb, __u32 reason)
{
	int has_socket = sk && sk->__sk_common.skc_family, has_packet = skb && skb->head, is_own;
	struct socket_event *event;
	__u8 flags = 0;

	if (has_socket) {
		if (!is_ours(sk->__sk_common.skc_net.net))
			return 0;
	} else if (!has_packet || !skb->dev || !is_ours(skb->dev->nd_net.net)) {
		return 0;
	}
	/* What a packet caused, no process did, though one may poll the device that brought it. */
	is_own = !has_packet && is_process();
	event = begin(EVENT_RESET_SENT);
	if (!event)
		return 0;
	event->reason = reason;
	event->active = !has_packet;
	if (has_socket) {
		fill_socket(event, sk);
		fill_tuple(event, sk);
		if (event->active)
			fill_counts(event, sk);
	}
	/* A listener's socket does not know the peer, and without a socket there is none to ask. */
	if (has_packet)
		flags = fill_from_packet(event, skb);
	if (is_own)
		fill_owner(event);
	/* A SYN asks for a connection of its own. */
	else if (!(flags & TCP_SYN) && (!has_socket || is_let_go(sk)))
		fill_closer(event);
	return finish(event);
}

/*
 * What stood beside a reset that a process sends out of itself. A program of its own, that runs
 * before the next one: while a program runs, the kernel calls it for nobody else on that CPU, and
 * no reset is to be missed for the sake of what is only near it. (Kernels of either kind have these
 * arguments.)
 */
SEC("?tp_btf/tcp_send_reset")
int BPF_PROG(on_reset_of_process, struct sock *sk, struct sk_buff *skb)
{
	if (!sk || !sk->__sk_common.skc_family || (skb && skb->head))
		return 0;
	if (is_ours(sk->__sk_common.skc_net.net) && is_process())
		tell_turn(bpf_ktime_get_ns());
	return 0;
}

SEC("?tp_btf/tcp_send_reset")
int BPF_PROG(on_reset_sent, struct sock *sk, struct sk_buff *skb, int reason)
{
	return reset_sent(sk, skb, reason);
}

/* Kernels before 6.10 give no reason. */
SEC("?tp_btf/tcp_send_reset")
int BPF_PROG(on_reset_sent_no_reason, struct sock *sk, struct sk_buff *skb)
{
	return reset_sent(sk, skb, 0);
}

SEC("tp_btf/tcp_receive_reset")
int BPF_PROG(on_reset_accepted, struct sock *sk)
{
	struct socket_event *event;

	if (!sk || !is_ours(sk->__sk_common.skc_net.net))
		return 0;
	event = begin(EVENT_RESET_ACCEPTED);
	if (!event)
		return 0;
	fill_socket(event, sk);
	fill_tuple(event, sk);
	/* An orphan is destroyed by whoever happens to run; a held socket by its process. */
	if (event->cookie && sk->sk_socket) {
		__u64 cookie = event->cookie;
		struct ends ends = ends_of(event);

		bpf_map_update_elem(&reset_sockets, &cookie, &ends, BPF_ANY);
		expect_closings(event->time_ns);
	}
	return finish(event);
}

SEC("tp_btf/inet_sock_set_state")
int BPF_PROG(on_state_change, struct sock *sk, int old_state, int new_state)
{
	struct socket_event *event;

	if (!sk || new_state != TCP_ESTABLISHED || old_state == new_state)
		return 0;
	if (sk->sk_protocol != PROTOCOL_TCP || !is_ours(sk->__sk_common.skc_net.net))
		return 0;
	event = begin(EVENT_ESTABLISHED);
	if (!event)
		return 0;
	fill_socket(event, sk);
	fill_tuple(event, sk);
	event->state = new_state;
	event->active = old_state == TCP_SYN_SENT;
	forget_closer(event);
	return finish(event);
}

/* A program of its own, so that no new connection is missed while this one runs: only a process
 * closes. */
SEC("tp_btf/inet_sock_set_state")
int BPF_PROG(on_closing, struct sock *sk, int old_state, int new_state)
{
	/* close() after shutdown() sets the same state once more, FIN_WAIT2 too (tcp_close_state).
	 */
	if (!sk || (new_state == TCP_FIN_WAIT2 && old_state != new_state))
		return 0;
	if (new_state != TCP_FIN_WAIT1 && new_state != TCP_FIN_WAIT2 && new_state != TCP_LAST_ACK)
		return 0;
	if (sk->sk_protocol != PROTOCOL_TCP || !is_ours(sk->__sk_common.skc_net.net))
		return 0;
	return closed(sk, old_state, new_state);
}

SEC("tp_btf/tcp_destroy_sock")
int BPF_PROG(on_destroyed, struct sock *sk)
{
	struct socket_event *event;
	struct ends *ends;
	__u64 cookie;

	if (!sk)
		return 0;
	cookie = sk->__sk_common.skc_cookie.counter;
	ends = cookie ? bpf_map_lookup_elem(&reset_sockets, &cookie) : NULL;
	if (!ends)
		return 0;
	event = is_process() ? begin(EVENT_OWNER) : NULL;
	if (!event)
		goto forget;
	/* It may have slept for long before it noticed. */
	expect_closings(event->time_ns);
	fill_socket(event, sk);
	event->family = ends->family;
	event->local_port = ends->local_port;
	event->peer_port = ends->peer_port;
	__builtin_memcpy(event->local_addr, ends->local_addr, 16);
	__builtin_memcpy(event->peer_addr, ends->peer_addr, 16);
	fill_owner(event);
	finish(event);
forget:
	bpf_map_delete_elem(&reset_sockets, &cookie);
	return 0;
}
