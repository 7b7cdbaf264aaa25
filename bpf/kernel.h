/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * The few kernel structs that are read, with the members that are read; the loader finds their
 * places in the running kernel by name (CO-RE). No layout is assumed here.
 */
#ifndef RSTSCOPE_KERNEL_H
#define RSTSCOPE_KERNEL_H

#include <linux/types.h>

#define AF_INET 2
#define AF_INET6 10

/* include/net/tcp_states.h */
#define TCP_ESTABLISHED 1
#define TCP_SYN_SENT 2
#define TCP_FIN_WAIT1 4
#define TCP_FIN_WAIT2 5
#define TCP_TIME_WAIT 6
#define TCP_LAST_ACK 9
#define TCP_LISTEN 10
#define TCP_NEW_SYN_RECV 12

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

struct ns_common {
	unsigned int inum;
};

struct net {
	struct ns_common ns;
};

typedef struct {
	struct net *net;
} possible_net_t;

typedef struct {
	__s64 counter;
} atomic64_t;

struct in6_addr {
	union {
		__u8 u6_addr8[16];
	} in6_u;
};

struct sock_common {
	__be32 skc_daddr;
	__be32 skc_rcv_saddr;
	__be16 skc_dport;
	__u16 skc_num;
	unsigned short skc_family;
	volatile unsigned char skc_state;
	unsigned long skc_flags;
	possible_net_t skc_net;
	struct in6_addr skc_v6_daddr;
	struct in6_addr skc_v6_rcv_saddr;
	atomic64_t skc_cookie;
};

struct pt_regs {
	unsigned long orig_ax; /* x86: the system call's number, or -1 */
};

struct kernfs_node {
	__u64 id;
};

struct cgroup {
	struct kernfs_node *kn;
};

struct sock_cgroup_data {
	struct cgroup *cgroup;
};

struct socket;

struct sock {
	struct sock_common __sk_common;
	__u16 sk_protocol;
	struct socket *sk_socket;
	struct sock_cgroup_data sk_cgrp_data;
};

struct inet_sock {
	struct sock sk;
	__be16 inet_sport;
};

struct inet_connection_sock {
	struct inet_sock icsk_inet;
	struct {
		__u32 lrcvtime;
	} icsk_ack;
};

struct tcp_options_received {
	__u32 ts_recent;
	__u16 tstamp_ok : 1;
};

struct tcp_sock {
	struct inet_connection_sock inet_conn;
	__u32 rcv_nxt;
	__u32 write_seq;
	__u32 snd_una;
	__u32 srtt_us; /* times 8 */
	__u32 mdev_us; /* times 4 */
	__u32 reord_seen;
	__u32 rcv_ooopack;
	__u32 rcv_wnd;
	__u32 rcv_tstamp;
	__u32 lsndtime;
	__u64 tcp_mstamp;
	struct tcp_options_received rx_opt;
	__u64 bytes_received;
	__u32 segs_in;
	__u64 bytes_acked;
};

struct net_device {
	possible_net_t nd_net;
};

struct sk_buff {
	struct net_device *dev;
	unsigned int len;
	__u16 transport_header;
	__u16 network_header;
	unsigned char *head;
};

struct signal_struct {
	void *oom_mm; /* set by the OOM killer in its victim */
};

struct task_struct {
	void *stack;
	struct task_struct *group_leader;
	char comm[16]; /* TASK_COMM_LEN */
	struct signal_struct *signal;
	unsigned int flags;
	unsigned long nvcsw;
	unsigned long maj_flt;
	int exit_code;
	int softirq_disable_cnt; /* PREEMPT_RT only */
};

#pragma clang attribute pop

/* include/net/sock.h; the loader resolves the value of the running kernel. */
enum sock_flags {
	SOCK_KEEPOPEN = 2,
};

#endif
