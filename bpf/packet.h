/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * For the tracepoints: what the answered packet's headers say, and whose process runs. Refuses to
 * guess: where the running process may be a bystander, there is no owner.
 */
#ifndef RSTSCOPE_PACKET_H
#define RSTSCOPE_PACKET_H

#include <bpf/bpf_core_read.h>
#include <bpf/bpf_tracing.h>
#include "kernel.h"
#include "parse.h"

/* Size of a task's kernel stack; 0 where softirqs may run on it: then no owner is ever told. */
const volatile __u32 task_stack_bytes = 0;

/* include/linux/sched.h */
#define PF_EXITING 0x00000004
#define PF_KTHREAD 0x00200000

/*
 * Whether the running process made the call, rather than an interrupt that happened to it. The
 * kernel serves interrupts and softirqs on a stack of their own, so the place of this very frame
 * tells; but one that breaks in on user code stays on the task's stack, which is empty then
 * (arch/x86/include/asm/irq_stack.h). Such an entry has no system call's number, and does nothing
 * of the process's own but end it. (The preemption counter would tell too, but its symbol is not
 * there on every kernel.) Not inlined, and small: a large frame would be given a private stack.
 */
static __noinline int is_process(void)
{
	struct task_struct *task = (void *)bpf_get_current_task_btf();
	struct pt_regs *regs;
	void *slot = &slot;
	__u64 here = 0;

	/* Kernel threads do somebody else's work; so does PREEMPT_RT with softirqs. */
	if (task->flags & PF_KTHREAD || bpf_core_field_exists(task->softirq_disable_cnt))
		return 0;
	regs = (void *)bpf_task_pt_regs((void *)task);
	if (bpf_core_field_exists(regs->orig_ax) && (long)regs->orig_ax < 0 &&
	    !(task->flags & PF_EXITING))
		return 0;
	/* Through a read, since the verifier will not do sums with a stack pointer. */
	if (bpf_probe_read_kernel(&here, sizeof(here), &slot))
		return 0;
	return here - (__u64)task->stack < task_stack_bytes;
}

static __always_inline void fill_owner(struct socket_event *event)
{
	struct task_struct *task = (void *)bpf_get_current_task_btf();
	__u64 pid_tgid = bpf_get_current_pid_tgid();

	event->pid = pid_tgid >> 32;
	event->thread = (__u32)pid_tgid;
	event->sleeps = task->nvcsw;
	event->major_faults = task->maj_flt;
	/* It was killed, crashed or left: the kernel closes what it had open (do_exit,
	 * include/linux/sched.h). */
	if (task->flags & PF_EXITING) {
		struct signal_struct *signal = task->signal;

		event->exit_kind = signal && signal->oom_mm ? EXIT_OUT_OF_MEMORY : EXIT;
		event->exit_code = task->exit_code;
	}
	bpf_get_current_comm(event->thread_comm, sizeof(event->thread_comm));
	/* A thread may have a name of its own (Envoy's "wrk:worker_0", those of Java), which tells
	 * nobody the program's. */
	bpf_core_read(event->comm, sizeof(event->comm), &task->group_leader->comm);
}

/* The tuple as this host writes it, so the packet's destination is local; and what is answered. The
 * packet's flags; none where it has no headers. */
static __always_inline __u8 fill_from_packet(struct socket_event *event, const struct sk_buff *skb)
{
	__u32 network = skb->network_header, transport = skb->transport_header;
	const unsigned char *head = skb->head;
	__u32 len = skb->len, before = transport - network, data_offset;
	struct tcp_header tcp;
	__u8 version;

	if (bpf_probe_read_kernel(&tcp, sizeof(tcp), head + transport) ||
	    bpf_probe_read_kernel(&version, 1, head + network))
		return 0;
	data_offset = (tcp.offset >> 4) * 4;
	/* Without a length in the IP header: what is left of the packet, from the TCP header on. */
	if (version >> 4 == 4) {
		struct ipv4_header ip;

		if (bpf_probe_read_kernel(&ip, sizeof(ip), head + network))
			return 0;
		event->family = AF_INET;
		__builtin_memset(event->local_addr, 0, 16);
		__builtin_memset(event->peer_addr, 0, 16);
		__builtin_memcpy(event->local_addr, &ip.dst, 4);
		__builtin_memcpy(event->peer_addr, &ip.src, 4);
		if (ip.total_len)
			len = bpf_ntohs(ip.total_len) - before;
	} else if (version >> 4 == 6) {
		struct ipv6_header ip;

		if (bpf_probe_read_kernel(&ip, sizeof(ip), head + network))
			return 0;
		event->family = AF_INET6;
		__builtin_memcpy(event->local_addr, ip.dst, 16);
		__builtin_memcpy(event->peer_addr, ip.src, 16);
		if (ip.payload_len)
			len = bpf_ntohs(ip.payload_len) + sizeof(ip) - before;
	} else {
		return 0;
	}
	event->local_port = bpf_ntohs(tcp.dst);
	event->peer_port = bpf_ntohs(tcp.src);
	event->answered_seq = bpf_ntohl(tcp.seq);
	event->answered_len = len > data_offset ? len - data_offset : 0;
	event->has_answered = 1;
	return tcp.flags;
}

#endif
