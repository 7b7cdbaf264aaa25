/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * The local socket that a frame would meet, as struct socket_view. Works from XDP and from tc; in
 * the network namespace of the interface. Takes no lock: the fields are read as they stand.
 */
#ifndef RSTSCOPE_SOCKET_H
#define RSTSCOPE_SOCKET_H

#include <bpf/bpf_core_read.h>
#include "kernel.h"
#include "parse.h"

/* Length of the kernel's tick (jiffy), which the loader learns from CLOCK_MONOTONIC_COARSE. */
const volatile __u64 tick_ns = 4000000;

static __always_inline __u8 traits_of(struct tcp_sock *tp)
{
	__u8 traits = BPF_CORE_READ_BITFIELD(tp, rx_opt.tstamp_ok) ? HAS_TIMESTAMPS : 0;

	if (tp->inet_conn.icsk_inet.sk.__sk_common.skc_flags >>
		    bpf_core_enum_value(enum sock_flags, SOCK_KEEPOPEN) &
	    1)
		traits |= HAS_KEEPALIVE;
	if (tp->rcv_ooopack || tp->reord_seen)
		traits |= HAS_REORDERED;
	return traits;
}

/* In 64ths of the smoothed round-trip time, which the kernel keeps eightfold and this fourfold. */
static __always_inline __u8 deviation_of(struct tcp_sock *tp)
{
	__u64 srtt = tp->srtt_us, deviation;

	if (!srtt)
		return 0;
	deviation = (__u64)tp->mdev_us * 128 / srtt;
	return deviation < 255 ? deviation : 255;
}

static __always_inline void view_full(struct socket_view *view, struct tcp_sock *tp, __u64 now)
{
	__u32 tick = bpf_jiffies64();
	__u32 idle = tick - tp->rcv_tstamp, idle_data = tick - tp->inet_conn.icsk_ack.lrcvtime;
	__u32 sent = tick - tp->lsndtime;
	__u64 touched = tp->tcp_mstamp * 1000;
	__u32 heard = tp->rcv_tstamp | tp->inet_conn.icsk_ack.lrcvtime;

	view->kind = SOCKET_FULL;
	view->rcv_nxt = tp->rcv_nxt;
	view->rcv_wnd = tp->rcv_wnd;
	view->write_seq = tp->write_seq;
	view->snd_una = tp->snd_una;
	view->ts_recent = tp->rx_opt.ts_recent;
	view->segs_in = tp->segs_in;
	view->srtt_us = tp->srtt_us >> 3;
	view->bytes_received = tp->bytes_received;
	view->bytes_acked = tp->bytes_acked;
	/* The last ACK or the last data, whichever came later; each is 0 until there was one. */
	if (idle_data < idle)
		idle = idle_data;
	/* Within one tick is not the same as not known. */
	view->last_received_ns = heard ? (idle ? idle * tick_ns : 1) : 0;
	view->last_sent_ns = tp->lsndtime ? (sent ? sent * tick_ns : 1) : 0;
	/* Another CPU may touch it at this instant. */
	view->last_touched_ns = touched ? (now > touched ? now - touched : 1) : 0;
	view->traits = traits_of(tp);
	view->rtt_deviation = deviation_of(tp);
}

static __always_inline void view_found(struct socket_view *view, struct bpf_sock *sk, __u64 now)
{
	struct tcp_sock *tp;

	view->state = sk->state;
	switch (sk->state) {
	case TCP_LISTEN:
		view->kind = SOCKET_LISTENER;
		return;
	case TCP_TIME_WAIT:
		view->kind = SOCKET_TIME_WAIT;
		return;
	case TCP_NEW_SYN_RECV:
		view->kind = SOCKET_REQUEST;
		return;
	}
	tp = bpf_skc_to_tcp_sock(sk);
	if (tp)
		view_full(view, tp, now);
	else
		view->kind = SOCKET_ABSENT; /* gone between the lookup and now */
}

/*
 * The frame's source is the remote end: the kernel's lookup takes the tuple as it arrived. `now` is
 * CLOCK_MONOTONIC, as close to the lookup as the caller has it.
 */
static __always_inline void view_socket(void *ctx, const struct segment *segment,
					struct socket_view *view, __u64 now)
{
	struct ipv6_header *ip6 = take(struct ipv6_header, segment->network, segment->end);
	struct ipv4_header *ip4 = take(struct ipv4_header, segment->network, segment->end);
	struct bpf_sock_tuple tuple = {};
	__u32 size = sizeof(tuple.ipv4);
	struct bpf_sock *sk;

	if (segment->is_ipv6 && ip6) {
		__builtin_memcpy(tuple.ipv6.saddr, ip6->src, 16);
		__builtin_memcpy(tuple.ipv6.daddr, ip6->dst, 16);
		tuple.ipv6.sport = segment->tcp->src;
		tuple.ipv6.dport = segment->tcp->dst;
		size = sizeof(tuple.ipv6);
	} else if (ip4) {
		tuple.ipv4.saddr = ip4->src;
		tuple.ipv4.daddr = ip4->dst;
		tuple.ipv4.sport = segment->tcp->src;
		tuple.ipv4.dport = segment->tcp->dst;
	}
	sk = bpf_skc_lookup_tcp(ctx, &tuple, size, BPF_F_CURRENT_NETNS, 0);
	if (!sk) {
		view->kind = SOCKET_ABSENT;
		return;
	}
	view_found(view, sk, now);
	bpf_sk_release(sk);
}

#endif
