/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * Every type that crosses the line between the kernel and user space, and the only definition of
 * each. User space gets the same layouts from BTF (libbpf-cargo's `types`) and pins their sizes;
 * it decodes ring buffer records field by field.
 */
#ifndef RSTSCOPE_SHARED_H
#define RSTSCOPE_SHARED_H

/* What the socket lookup found. */
enum socket_kind {
	SOCKET_UNASKED = 0, /* no lookup was made for this frame */
	SOCKET_ABSENT = 1,  /* the lookup found none */
	SOCKET_LISTENER = 2,
	SOCKET_TIME_WAIT = 3,
	SOCKET_REQUEST = 4, /* NEW_SYN_RECV */
	SOCKET_FULL = 5,
};

/* The local socket at the instant of a frame's arrival. Zero where the kind has no such field. */
enum socket_trait {
	HAS_TIMESTAMPS = 1, /* ts_recent counts (rx_opt.tstamp_ok) */
	HAS_KEEPALIVE = 2,  /* SO_KEEPALIVE: it may send probes of its own accord */
	HAS_REORDERED = 4,  /* segments of either side came out of order, or behind a lost one */
};

struct socket_view {
	__u8 kind;	    /* enum socket_kind */
	__u8 state;	    /* include/net/tcp_states.h */
	__u8 traits;	    /* enum socket_trait, any of them */
	__u8 rtt_deviation; /* mean deviation of the round-trip time, in 64ths of srtt_us */
	__u32 rcv_nxt;
	__u32 rcv_wnd;
	__u32 write_seq; /* end of what it was given to send: snd_nxt moves after a segment left */
	__u32 snd_una;
	__u32 ts_recent;
	__u32 segs_in;
	__u32 srtt_us; /* smoothed, already divided by 8 */
	__u64 bytes_received;
	__u64 bytes_acked;
	__u64 last_received_ns; /* ns since the last segment from the peer; 0: not known */
	__u64 last_sent_ns;	/* ns since the last data to the peer; 0: not known */
	__u64 last_touched_ns;	/* ns since it sent or got anything, or was read; 0: not known */
};

/*
 * Stands right before a redirected frame's first byte (XDP metadata). `magic` is last, next to the
 * frame, so that user space finds it whatever the length of the rest.
 */
struct frame_meta {
	struct socket_view socket;
	__u64 time_ns; /* bpf_ktime_get_ns(): CLOCK_MONOTONIC */
	__u32 reserved;
	__u32 magic; /* FRAME_META_MAGIC */
};

#define FRAME_META_MAGIC 0x52535431 /* "RST1" */

/*
 * The same in 32 bytes, for kernels before 6.8, where metadata has no room for more
 * (xdp_metalen_invalid). Told apart by the last two bytes.
 */
struct frame_meta_short {
	__u64 time_ns;
	__u32 rcv_nxt;
	__u32 rcv_wnd;
	__u32 write_seq;
	__u32 snd_una;
	__u32 ts_recent;
	__u8 kind; /* enum socket_kind; SHORT_HAS_TIMESTAMPS added */
	__u8 state;
	__u16 magic; /* FRAME_META_SHORT_MAGIC */
};

#define SHORT_HAS_TIMESTAMPS 0x80
#define FRAME_META_SHORT_MAGIC 0x5332

/* Queues of one interface that `steer` serves; frames of further ones go to the host. */
#define QUEUES_MAX 256

/* Bytes of a frame that a copy holds: Ethernet, two tags, IPv6 with some extensions, TCP in full.
 */
#define COPY_BYTES 192

/* The tag that every ring buffer record begins with. */
enum event_kind {
	EVENT_FRAME = 1,      /* struct frame_event */
	EVENT_RESET_SENT = 2, /* struct socket_event, and so on */
	EVENT_RESET_ACCEPTED = 3,
	EVENT_ESTABLISHED = 4,
	EVENT_OWNER = 5,
	EVENT_CLOSED =
		6, /* in order, soon after some socket was reset, or beside a reset of ours */
};

/* Why a frame was copied rather than (or before it was) looked at in a worker. */
enum frame_origin {
	FRAME_EGRESS = 1,	    /* leaving; seen by the tc egress program */
	FRAME_EGRESS_FORWARDED = 2, /* leaving, and had come in by another interface */
	FRAME_BYPASSED = 3,    /* coming in; the gate was closed, so it went straight to the host */
	FRAME_AFTER_RESET = 4, /* coming in; its flow saw a reset a moment ago */
	FRAME_MIRRORED = 5,    /* coming in; mirror mode */
	FRAME_OLDER = 6,       /* coming in; its connection is older than the sensor */
};

/* The head of a frame that took its own way. */
struct frame_event {
	__u32 kind; /* EVENT_FRAME */
	__u32 ifindex;
	__u64 time_ns;
	__u8 origin; /* enum frame_origin */
	__u8 pad[3];
	__u32 frame_len; /* of the whole frame */
	__u32 copied;	 /* bytes of `data` that count */
	__u32 pad2;
	__u64 cookie; /* leaving: the socket that the packet belongs to; 0: none */
	struct socket_view socket;
	__u8 data[COPY_BYTES];
};

#define COMM_BYTES 16

/* How an owner ended. */
enum exit_kind {
	EXIT = 1,
	EXIT_OUT_OF_MEMORY = 2, /* the OOM killer chose it (mark_oom_victim) */
};

/* One event of a tcp tracepoint. Addresses in network order, IPv4 in the first four bytes. */
struct socket_event {
	__u32 kind;  /* enum event_kind */
	__u8 family; /* AF_INET, AF_INET6 */
	__u8 state;  /* include/net/tcp_states.h; 0: no socket */
	__u8 active; /* EVENT_RESET_SENT: a socket's own abort. EVENT_ESTABLISHED: we sent the SYN
		      */
	__u8 has_answered; /* answered_seq and answered_len count */
	__u64 time_ns;
	__u64 cookie;	 /* 0: none */
	__u64 cgroup_id; /* of the socket; 0: not known */
	__u8 local_addr[16];
	__u8 peer_addr[16];
	__u16 local_port; /* host order */
	__u16 peer_port;  /* host order */
	__u32 reason;	  /* enum sk_rst_reason of the running kernel */
	__u32 pid;	  /* tgid of the owner; 0: not known */
	__u32 answered_seq;
	__u32 answered_len;
	__u32 thread;	       /* the owner's thread; 0: not known */
	char comm[COMM_BYTES]; /* of the process: its first thread's */
	__u64 sleeps;	       /* how often that thread has given up its CPU to wait */
	__u64 major_faults;    /* of its pages that were not in memory */
	/* Of a socket's own abort, as in struct socket_view. */
	__u64 bytes_received;
	__u64 bytes_acked;
	__u64 last_received_ns;
	__u32 exit_code;   /* of an owner that ended, as in wait(2) */
	__u8 exit_kind;	   /* enum exit_kind; 0: the owner called, and goes on */
	__u8 is_unclaimed; /* of a socket's own abort: no process has a file of it (any more) */
	__u8 pad[2];
	char thread_comm[COMM_BYTES]; /* of that thread itself */
	/* Of a reset that no process sent: when the owner had closed the connection; 0: not known.
	 */
	__u64 closed_ns;
};

/*
 * The gate of one queue: two cache lines in a mmap-able array, one written by the kernel, one by
 * the worker. A frame is redirected only while produced - consumed < limit and the heartbeat is
 * fresh; so a full ring or a stopped process never costs the host a frame.
 */
struct gate {
	__u64 produced; /* frames redirected; only `steer` writes it */
	__u64 cpu;	/* that redirected the last of them; only `steer` writes it */
	__u64 pad_kernel[6];
	__u64 consumed;	    /* frames given back to the fill ring; only the worker writes it */
	__u64 heartbeat_ns; /* CLOCK_MONOTONIC of the worker's last turn */
	__u64 limit;	    /* frames that may be under way; 0 closes the gate */
	__u64 draining;	    /* set by `steer` when it bypassed: closed until all is consumed */
	__u64 pad_worker[4];
};

/*
 * Why `steer` did what it did with a frame: index into the counters of its queue. In native XDP
 * one CPU at a time serves a queue, so that a plain add is enough and no helper is called.
 */
enum steer_counter {
	STEER_PASSED = 0, /* TCP, but none of SYN, FIN, RST */
	STEER_NOT_IP,
	STEER_NOT_TCP,
	STEER_FRAGMENT,
	STEER_TRUNCATED,
	STEER_MALFORMED,
	STEER_TOO_DEEP,	   /* more tags or extension headers than are followed */
	STEER_TOO_LONG,	   /* longer than a UMEM frame */
	STEER_NO_METADATA, /* the driver has no room for metadata */
	STEER_REDIRECTED,
	STEER_BYPASS_CREDIT,	/* all credit is under way */
	STEER_BYPASS_HEARTBEAT, /* the worker is late */
	STEER_BYPASS_DRAINING, /* bypass holds until the queue is drained, so that nothing overtakes
				*/
	STEER_BYPASS_CLOSED,   /* no worker for this queue */
	STEER_NO_SOCKET,       /* no AF_XDP socket in the map */
	STEER_COPIED,	       /* headers copied into the ring buffer */
	STEER_COPY_LOST,       /* the ring buffer was full */
	STEER_CHECKSUM_PARTIAL, /* the sender left the checksum to its interface */
	STEER_FAST_OPEN,	/* a SYN-ACK that data may follow at once */
	STEER_ROUTED,		/* no socket's, while its next hop would be chosen by its hash */
	STEER_COUNTERS,
};

/* The counters of one queue, three cache lines. */
struct queue_counters {
	__u64 count[24]; /* by enum steer_counter */
};

/* Frames that one call hands back live, at most: a batch of the worker. */
#define BURST_FRAMES 64
/* Longest of them: Ethernet, two tags, IPv6, TCP with all its options, and no payload. */
#define BURST_BYTES 240

/* One frame that waits to be handed back live. */
struct burst_slot {
	__u32 len;
	__u32 pad[3];
	__u8 bytes[BURST_BYTES];
};

/*
 * What the worker of one queue hands back in one call of BPF_PROG_RUN; an entry of a mmap-able
 * array. The worker writes the slots, then `give_back` takes them in order, one a run.
 */
struct burst {
	__u64 taken; /* slots that `give_back` looked at in this call */
	__u64 given; /* those that it gave to the interface */
	__u64 pad[6];
	struct burst_slot slots[BURST_FRAMES];
};

/* Counters of the egress program, the tracepoints and the hand-back classifier. */
enum host_counter {
	HOST_EGRESS_COPIED = 0,
	HOST_EGRESS_LOST, /* the ring buffer was full; of SYN and FIN */
	HOST_EVENTS,
	HOST_EVENTS_LOST,
	HOST_MIRRORED,
	HOST_MIRROR_LOST,     /* the ring buffer was full; of what is no reset */
	HOST_HANDED_BACK,     /* frames given to the interface, by the veth's peer or live */
	HOST_CLOSINGS_UNTOLD, /* orderly closings soon after a reset, beyond the budget */
	/* Not followed to a TCP header by a tc program: as STEER_FRAGMENT and those behind it. */
	HOST_UNREAD_FRAGMENT,
	HOST_UNREAD_TRUNCATED,
	HOST_UNREAD_MALFORMED,
	HOST_UNREAD_TOO_DEEP,
	/* A lost baseline is a verdict with less evidence; a lost reset may be a lost record. */
	HOST_EGRESS_RESET_LOST,
	HOST_MIRROR_RESET_LOST,
	HOST_COUNTERS,
};

#endif
