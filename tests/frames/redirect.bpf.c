/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * The least that tests of the rings need of `steer`: SYN, FIN and RST of plain IPv4 (or every
 * frame) go to the AF_XDP socket while there is credit, with metadata; all else passes.
 */
#include <linux/bpf.h>
#include "shared.h"

#define SEC(name) __attribute__((section(name), used))
#define __uint(name, val) int(*name)[val]
#define __type(name, val) typeof(val) *name

static void *(*map_lookup)(void *map, const void *key) = (void *)1;
static __u64 (*ktime_get_ns)(void) = (void *)5;
static long (*redirect_map)(void *map, __u64 key, __u64 flags) = (void *)51;
static long (*adjust_meta)(struct xdp_md *ctx, int delta) = (void *)54;

/* As `steer` does it before Linux 6.8. */
#ifdef SHORT_METADATA
typedef struct frame_meta_short meta_t;
#define MAGIC FRAME_META_SHORT_MAGIC
#define kind_of(meta) (meta)->kind
#else
typedef struct frame_meta meta_t;
#define MAGIC FRAME_META_MAGIC
#define kind_of(meta) (meta)->socket.kind
#endif

struct {
	__uint(type, BPF_MAP_TYPE_XSKMAP);
	__uint(max_entries, 4);
	__uint(key_size, 4);
	__uint(value_size, 4);
} xsks SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 4);
	__type(key, __u32);
	__type(value, struct gate);
} gates SEC(".maps");

/* Frames that should have been redirected but passed. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} passed SEC(".maps");

static __attribute__((always_inline)) int is_wanted(void *data, void *end, int all)
{
	__u8 *bytes = data;

	if (all)
		return data + 14 <= end;
	if (data + 54 > end)
		return 0;
	return bytes[12] == 8 && bytes[13] == 0 && bytes[14] == 0x45 && bytes[23] == 6 &&
	       bytes[47] & 0x07;
}

static __attribute__((always_inline)) int redirect(struct xdp_md *ctx, int all)
{
	__u32 queue = ctx->rx_queue_index, zero = 0;
	meta_t *meta;
	struct gate *gate;
	__u64 *count;

	if (!is_wanted((void *)(long)ctx->data, (void *)(long)ctx->data_end, all))
		return XDP_PASS;
	gate = map_lookup(&gates, &queue);
	count = map_lookup(&passed, &zero);
	if (!gate || !count)
		return XDP_PASS;
	if (gate->produced - *(volatile __u64 *)&gate->consumed >= *(volatile __u64 *)&gate->limit)
		goto pass;
	if (adjust_meta(ctx, -(int)sizeof(*meta)))
		goto pass;
	meta = (void *)(long)ctx->data_meta;
	if ((void *)(meta + 1) > (void *)(long)ctx->data)
		goto pass;
	__builtin_memset(meta, 0, sizeof(*meta));
	kind_of(meta) = SOCKET_ABSENT;
	meta->time_ns = ktime_get_ns();
	meta->magic = MAGIC;
	if (redirect_map(&xsks, queue, XDP_PASS) == XDP_REDIRECT) {
		gate->produced++;
		return XDP_REDIRECT;
	}
pass:
	__sync_fetch_and_add(count, 1);
	return XDP_PASS;
}

SEC("xdp")
int all_frames(struct xdp_md *ctx)
{
	return redirect(ctx, 1);
}

SEC("xdp")
int control_frames(struct xdp_md *ctx)
{
	return redirect(ctx, 0);
}

char _license[] SEC("license") = "GPL";
