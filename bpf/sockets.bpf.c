// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/*
 * The tcp tracepoints of one network namespace: resets that the kernel sends and why, resets that
 * it accepts, handshakes that complete, and whose the sockets were. Every pointer is checked
 * though the kernel promises it: which of them may be NULL differs between versions, so the test
 * is of what lies behind.
 */
#include "host.h"
#include "packet.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

/* The namespace to report: inode of /proc/self/ns/net. */
const volatile __u32 netns_inum = 0;

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 8 << 20); /* shared with the other programs */
} events SEC(".maps");

/* Sockets that a reset ended and a process still holds, by cookie. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 4096);
	__type(key, __u64);
	__type(value, __u8);
} reset_sockets SEC(".maps");

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
		event->local_port =
			bpf_ntohs(BPF_CORE_READ((const struct inet_sock *)sk, inet_sport));
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
	bpf_ringbuf_submit(event, 0);
	count_host(HOST_EVENTS);
	return 0;
}

static __always_inline int reset_sent(struct sock *sk, struct sk_buff *skb, __u32 reason)
{
	int has_socket = sk && sk->__sk_common.skc_family, has_packet = skb && skb->head;
	struct socket_event *event;

	if (has_socket) {
		if (!is_ours(sk->__sk_common.skc_net.net))
			return 0;
	} else if (!has_packet || !skb->dev || !is_ours(skb->dev->nd_net.net)) {
		return 0;
	}
	event = begin(EVENT_RESET_SENT);
	if (!event)
		return 0;
	event->reason = reason;
	event->active = !has_packet;
	if (has_socket) {
		fill_socket(event, sk);
		fill_tuple(event, sk);
	}
	/* A listener's socket does not know the peer, and without a socket there is none to ask. */
	if (has_packet)
		fill_from_packet(event, skb);
	/* What a packet caused, no process did, though one may poll the device that brought it. */
	if (event->active && is_process())
		fill_owner(event);
	return finish(event);
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
	__u8 yes = 1;

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

		bpf_map_update_elem(&reset_sockets, &cookie, &yes, BPF_ANY);
	}
	return finish(event);
}

SEC("tp_btf/inet_sock_set_state")
int BPF_PROG(on_state_change, struct sock *sk, int old_state, int new_state)
{
	struct socket_event *event;

	if (new_state != TCP_ESTABLISHED || !sk || sk->sk_protocol != PROTOCOL_TCP)
		return 0;
	if (!is_ours(sk->__sk_common.skc_net.net))
		return 0;
	event = begin(EVENT_ESTABLISHED);
	if (!event)
		return 0;
	fill_socket(event, sk);
	fill_tuple(event, sk);
	event->state = new_state;
	event->active = old_state == TCP_SYN_SENT;
	return finish(event);
}

SEC("tp_btf/tcp_destroy_sock")
int BPF_PROG(on_destroyed, struct sock *sk)
{
	struct socket_event *event;
	__u64 cookie;

	if (!sk)
		return 0;
	cookie = sk->__sk_common.skc_cookie.counter;
	if (!cookie || bpf_map_delete_elem(&reset_sockets, &cookie) || !is_process())
		return 0;
	event = begin(EVENT_OWNER);
	if (!event)
		return 0;
	fill_socket(event, sk);
	fill_tuple(event, sk);
	fill_owner(event);
	return finish(event);
}
