// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/*
 * XDP: which frames go to an AF_XDP socket and which to the host. TCP with SYN, FIN or RST goes to
 * the worker of its queue, with the state of the local socket in front of it, while the gate is
 * open; else its head is copied and the host gets the frame at once. Everything else passes.
 * Never drops.
 */
#include "copy.h"
#include "fast_open.h"
#include "gate.h"
#include "room.h"
#include "routed.h"
#include "socket.h"
#include "watch.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

/* Longest frame that fits a UMEM frame behind its headroom. */
const volatile __u32 frame_bytes_max = 1536;
/* Metadata of 32 bytes, for kernels that have no room for more. */
const volatile __u8 short_metadata = 0;
/* The kernel knows frames in several buffers (Linux 5.18), and their length may be asked for. */
const volatile __u8 has_fragments = 0;

struct {
	__uint(type, BPF_MAP_TYPE_XSKMAP);
	__uint(max_entries, QUEUES_MAX);
	__type(key, __u32); /* queue */
	__type(value, __u32);
} xsks SEC(".maps");

struct queue_counters counters[QUEUES_MAX] SEC(".data.counters");

const struct frame_meta *btf_frame_meta __attribute__((unused));
const struct frame_meta_short *btf_frame_meta_short __attribute__((unused));

static __always_inline void count(struct xdp_md *ctx, __u32 which)
{
	counters[ctx->rx_queue_index & (QUEUES_MAX - 1)].count[which]++;
}

/* Bytes of the whole frame; data_end is the end of its first buffer only. */
static __always_inline __u32 length_of(struct xdp_md *ctx)
{
	if (has_fragments)
		return bpf_xdp_get_buff_len(ctx);
	return ctx->data_end - ctx->data;
}

/* The frame goes to the host; the sensor keeps its head. */
static __noinline int copy_frame(struct xdp_md *ctx, const struct socket_view *view, __u64 now,
				 __u32 origin)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	struct frame_event *event = bpf_ringbuf_reserve(&events, sizeof(*event), 0);

	if (!event) {
		count(ctx, STEER_COPY_LOST);
		return XDP_PASS;
	}
	describe(event, origin, now, ctx->ingress_ifindex, length_of(ctx), view);
	event->copied = copy_head(event->data, data, end);
	submit(event);
	count(ctx, STEER_COPIED);
	return XDP_PASS;
}

static __always_inline int write_long(struct xdp_md *ctx, const struct socket_view *view, __u64 now)
{
	struct frame_meta *meta;

	if (bpf_xdp_adjust_meta(ctx, -(int)sizeof(*meta)))
		return -1;
	meta = (void *)(long)ctx->data_meta;
	if ((void *)(meta + 1) > (void *)(long)ctx->data)
		return -1;
	meta->socket = *view;
	meta->time_ns = now;
	meta->reserved = 0;
	meta->magic = FRAME_META_MAGIC;
	return sizeof(*meta);
}

static __always_inline int write_short(struct xdp_md *ctx, const struct socket_view *view,
				       __u64 now)
{
	struct frame_meta_short *meta;

	if (bpf_xdp_adjust_meta(ctx, -(int)sizeof(*meta)))
		return -1;
	meta = (void *)(long)ctx->data_meta;
	if ((void *)(meta + 1) > (void *)(long)ctx->data)
		return -1;
	meta->time_ns = now;
	meta->rcv_nxt = view->rcv_nxt;
	meta->rcv_wnd = view->rcv_wnd;
	meta->write_seq = view->write_seq;
	meta->snd_una = view->snd_una;
	meta->ts_recent = view->ts_recent;
	meta->kind = view->kind | (view->traits & HAS_TIMESTAMPS ? SHORT_HAS_TIMESTAMPS : 0);
	meta->state = view->state;
	meta->magic = FRAME_META_SHORT_MAGIC;
	return sizeof(*meta);
}

/* The same for one that should have gone to a worker, as far as there is room for its like. */
static __always_inline int bypass(struct xdp_md *ctx, const struct socket_view *view, __u64 now,
				  __u32 room)
{
	if (has_room(room))
		return copy_frame(ctx, view, now, FRAME_BYPASSED);
	count(ctx, STEER_COPY_LOST);
	return XDP_PASS;
}

/* A frame with SYN, FIN or RST. */
static __always_inline int steer_control(struct xdp_md *ctx, const struct segment *segment,
					 __u8 flags)
{
	struct socket_view view = {};
	__u32 queue = ctx->rx_queue_index, why, room;
	__u64 now = bpf_ktime_get_ns();
	struct gate *gate;
	int meta_len, action;

	if (flags & TCP_RST)
		watch_flow(segment, now);
	if (flags & (TCP_RST | TCP_FIN))
		view_socket(ctx, segment, &view, now);
	room = room_for(flags, segment, &view);

	gate = bpf_map_lookup_elem(&gates, &queue);
	why = gate ? closed_because(gate, now) : STEER_BYPASS_CLOSED;
	if (!why && length_of(ctx) > frame_bytes_max)
		why = STEER_TOO_LONG;
	/* One that is so by chance may overtake another of its flow; by intent, they all pass. */
	if (!why && is_checksum_partial(segment))
		why = STEER_CHECKSUM_PARTIAL;
	if (!why && (flags & (TCP_SYN | TCP_ACK)) == (TCP_SYN | TCP_ACK) &&
	    is_fast_open(ctx, segment, now))
		why = STEER_FAST_OPEN;
	if (!why && is_routed_by_hash(ctx, segment, view.kind, now))
		why = STEER_ROUTED;
	if (why || !gate) {
		count(ctx, why);
		return bypass(ctx, &view, now, room);
	}

	meta_len = short_metadata ? write_short(ctx, &view, now) : write_long(ctx, &view, now);
	if (meta_len < 0) {
		count(ctx, STEER_NO_METADATA);
		return bypass(ctx, &view, now, room);
	}
	action = bpf_redirect_map(&xsks, queue, XDP_PASS);
	if (action == XDP_REDIRECT) {
		gate->produced++;
		gate->cpu = bpf_get_smp_processor_id();
		count(ctx, STEER_REDIRECTED);
		return action;
	}
	/* The host's stack does not merge packets whose metadata differs: take ours away again. */
	bpf_xdp_adjust_meta(ctx, meta_len);
	count(ctx, STEER_NO_SOCKET);
	return bypass(ctx, &view, now, room);
}

/* Everything but the plain case. Not inlined, so that the plain case saves no registers for it. */
static __noinline int steer_other(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	struct segment segment;
	int flags = parse_segment(data, end, &segment), answer;
	struct flow_key key;

	if (flags < 0) {
		count(ctx, -flags);
		return XDP_PASS;
	}
	if (flags & TCP_CONTROL) {
		answer = check_lengths(&segment);
		if (!answer)
			return steer_control(ctx, &segment, flags);
		count(ctx, -answer);
		return XDP_PASS;
	}
	count(ctx, STEER_PASSED);
	if (!watching_until_ns)
		return XDP_PASS;
	key_of(&segment, &key);
	answer = watched_as(&key);
	if (answer)
		return copy_frame(ctx, NULL, bpf_ktime_get_ns(), answer);
	return XDP_PASS;
}

SEC("xdp")
int steer(struct xdp_md *ctx)
{
	if (likely(is_plain((void *)(long)ctx->data, (void *)(long)ctx->data_end) &&
		   !watching_until_ns)) {
		count(ctx, STEER_PASSED);
		return XDP_PASS;
	}
	return steer_other(ctx);
}
