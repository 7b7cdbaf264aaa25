// The least that a SYN or FIN of IPv4 must do in user space: what benches/frame.rs measures, by hand. The same frames, the same
// lines of memory, the same words written; no bounds checked, no other frame understood, no flow displaced, no reset told of.
//
//   gcc -O2 -o floor floor.c && ./floor                     ns a frame beside bare reads, medians of 101 rounds in turns
//   gcc -O2 -DJOINED -o joined floor.c && ./joined          the tags in front of their set's flows: 508 bytes a set
//   gcc -O2 -DLINES -o lines floor.c && ./lines             each flow in a line of its own: more than 64 bytes a flow
//   valgrind --tool=callgrind --collect-atstart=no '--toggle-collect=take_in*' ./floor few        instructions, 261,440 frames
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

typedef uint64_t u64;
typedef uint32_t u32;
typedef uint16_t u16;
typedef uint8_t u8;

enum { BATCH = 64, BATCHES = 64, FRAMES = BATCH * BATCHES, SLOT = 192, META = 80, FLOW_WORDS = 12, ROUNDS_MAX = 101 };
enum { SYN = 2, FIN = 1, RST = 4, ACK = 16, FIN_ACK = FIN | ACK, ADDRESSES = 1 << 18, NETWORKS = 1 << 17 };
#define STALE 900000000000ull
#define KEEP __attribute__((noinline))

struct address { // one line: flow::path
	u32 address, is_used, flows;
	u16 mac_count, count;
	u64 mac, last;
	u8 hop_limit;
} __attribute__((aligned(64)));

struct network { // two lines, of which one is used: flow::prefix
	u64 network, last, mac;
	u32 flows, address, halved, mac_address, mac_second;
	u16 count;
	u8 hop_limit, rest[64];
} __attribute__((aligned(64)));

struct read { // what is kept of a frame between reading and telling: one line
	u64 hash, ends, time;
	u32 ports, source, address, network;
	const u8 *frame;
	u8 is_high, flags, len;
} __attribute__((aligned(64)));

static u32 live = 2000000, *flows, *tags;
static u64 sets;
#ifdef JOINED
enum { SET_WORDS = 127 };
#define TAGS(set) (flows + (set) * SET_WORDS)
#define FLOW(set, way) (flows + (set) * SET_WORDS + 3 + (way) * FLOW_WORDS)
#elif defined LINES
enum { SET_WORDS = 128 };
#define TAGS(set) (tags + (set) * 3)
#define FLOW(set, way) (flows + (set) * SET_WORDS + (way) * 16)
#else
enum { SET_WORDS = 124 };
#define TAGS(set) (tags + (set) * 3)
#define FLOW(set, way) (flows + (set) * SET_WORDS + (way) * FLOW_WORDS)
#endif
static struct address *addresses;
static struct network *networks;
static struct read batch[BATCH];
static u8 *slots[FRAMES];
static u32 ends[FRAMES], look[3], look_uses;
static u64 router, router_heard, link_mac, others;
static const u64 key[2] = { 0x123456789abcdef0ull, 0x0fedcba987654321ull };

static u64 get64(const void *at) { u64 v; memcpy(&v, at, 8); return v; }
static u32 get32(const void *at) { u32 v; memcpy(&v, at, 4); return v; }
static u32 net32(const void *at) { return __builtin_bswap32(get32(at)); }
static u16 net16(const void *at) { u16 v; memcpy(&v, at, 2); return __builtin_bswap16(v); }
static u64 zeroes(u64 word) { return (word - 0x0101010101010101ull) & ~word & 0x8080808080808080ull; }
static u64 tag_of(u64 hash) { u64 tag = hash >> 56; return tag + !tag; }
// Without this the compiler leaves out a function that does nothing but fetch.
static void fetch(const void *at) { __builtin_prefetch(at); __asm__ volatile("" ::: "memory"); }

static u64 fold(u64 a, u64 b)
{
	unsigned __int128 product = (unsigned __int128)(a ^ 0x9e3779b97f4a7c15ull) * (b ^ 0xd1b54a32d192ed03ull);
	return (u64)product ^ (u64)(product >> 64);
}

KEEP static void read_batch(int base)
{
	for (int i = 0; i < BATCH; i++) {
		fetch(slots[base + i] + 64);
		fetch(slots[base + i] + META + 93);
	}
	for (int i = 0; i < BATCH; i++) {
		const u8 *meta = slots[base + i], *f = meta + META;
		struct read *r = &batch[i];
		u32 len = ends[base + i] - META, tcp = net16(f + 16) - 20, flags = f[47];
		r->flags = 0;
		r->time = get64(meta + 64);
		// Type, version and length; no fragment, TCP; lengths and bits of TCP; then one of three lists of options.
		if (len < 54 || get32(meta + 76) != 0x52535431 || (get64(f + 12) & 0xffffff) != 0x450008 ||
		    (get32(f + 20) & 0xff00ffbf) != 0x06000000 || tcp != (f[46] >> 4) * 4u || !(flags & 3) || flags & RST ||
		    len < 34 + tcp ||
		    !(tcp == 20 || (tcp == 32 && get32(f + 54) == 0x0a080101) ||
		      (tcp == 40 && (get64(f + 54) & 0xffffffff0000ffffull) == 0x0a08020400000402ull &&
		       (get32(f + 70) & 0xffffff) == 0x030301))) {
			others++;
			continue;
		}
		u32 source = net32(f + 26);
		u64 from = (u64)source << 16 | net16(f + 34), to = (u64)net32(f + 30) << 16 | net16(f + 36);
		u64 low = from < to ? from : to, high = from < to ? to : from;
		r->is_high = from > to;
		r->ends = high >> 16 << 32 | low >> 16;
		r->ports = (u32)(low << 48 >> 32 | (high & 0xffff));
		r->source = source, r->frame = f, r->flags = flags, r->len = tcp;
		r->hash = fold(fold(key[0] ^ r->ends, key[1] ^ r->ports), key[0] ^ (u64)r->ports << 32);
		r->address = fold(source, key[0]) & (ADDRESSES - 1);
		r->network = fold(source >> 8, key[0]) & (NETWORKS - 1);
		fetch(TAGS(r->hash & (sets - 1)));
		fetch((u8 *)TAGS(r->hash & (sets - 1)) + 11);
		fetch(&addresses[r->address]);
		fetch(&networks[r->network]);
	}
}

KEEP static void reach_batch(void)
{
	for (int i = 0; i < BATCH; i++) {
		u64 set = batch[i].hash & (sets - 1), word = get64(TAGS(set));
		u64 alike = zeroes(word ^ tag_of(batch[i].hash) * 0x0101010101010101ull), marked = alike ? alike : zeroes(word);
		u32 *flow = FLOW(set, marked ? __builtin_ctzll(marked) >> 3 : 0);
		fetch(flow);
		fetch(flow + FLOW_WORDS - 1);
	}
}

KEEP static void learn(const struct read *r, u64 mac)
{
	u8 hop_limit = r->frame[22];
	u32 opens = r->flags >> 1 & 1, second = r->time / 1000000000;
	struct network *n = &networks[r->network];
	if (n->network == r->source >> 8 && r->time - n->last < STALE && n->mac == mac && second - n->halved < 900 &&
	    n->hop_limit == hop_limit && n->count) {
		if (n->address != r->source) n->address = n->mac_address = 0;
		n->count += n->count != 0xffff, n->mac_second = second, n->flows += opens, n->last = r->time;
	} else {
		*n = (struct network){ r->source >> 8, r->time, mac, opens, r->source, second, r->source, second, 1, hop_limit, { 0 } };
	}
	router = mac, router_heard = r->time;
	struct address *a = &addresses[r->address];
	if (a->address == r->source && r->time - a->last < STALE && a->mac == mac && a->hop_limit == hop_limit) {
		a->count += a->count != 0xffff, a->mac_count += a->mac_count != 0xffff, a->flows += opens, a->last = r->time;
	} else if (a->address == r->source || a->flows < 2 || r->time - a->last >= STALE) {
		*a = (struct address){ r->source, 1, opens, 1, 1, mac, r->time, hop_limit };
	}
}

static void open_flow(u32 *p, const struct read *r, u32 marks, u32 end, u32 stamp, u32 above)
{
	const u8 *f = r->frame;
	u64 ticks = r->time >> 14;
	u32 window = net16(f + 48), state = (ticks >> 32 & 0x7f) | r->is_high << 15;
	memcpy(p, &r->ends, 8);
	p[2] = r->ports, p[3] = ticks, p[4] = r->time >> 20;
	if (r->flags & SYN) {
		u32 shape[3] = { 0, window, 0xff00 };
		if (r->len == 40) shape[0] = 0x24813, shape[1] |= (u32)net16(f + 56) << 16, shape[2] = 20 | f[73] << 8;
		if (!memcmp(shape, look, sizeof look)) look_uses++;
		else memcpy(look, shape, sizeof look);
		u32 stamped = marks & 1 << 22;
		marks |= stamped * 2 | stamped * 4 | (marks & 1 << 20) << 7 | 1 << 16 | 1 << 25 | 1 << 12 | 1;
		marks |= (r->flags & ACK ? 1 : 0) << 17;
		p[6] = net32(f + 38);
		state |= 1 << 13 | r->is_high << 14 | above;
	}
	p[7] = (r->flags & (SYN | ACK)) == (SYN | ACK) ? net32(f + 42) : end;
	p[8] = stamp, p[9] = above | window, p[10] = f[22] | 1 << 16 | 1 << 24, p[11] = marks, p[5] = state;
}

static void follow_flow(u32 *p, const struct read *r, u32 marks, u32 end, u32 stamp, u32 id, u64 mac)
{
	u32 before = p[11], known = p[9] >> 16, window = net16(r->frame + 48), is_stamped = marks >> 22 & 1;
	if ((before & (3 << 17 | 1 << 19 | 1 << 25)) == (1 << 17 | 1 << 25)) p[7] = p[6] + 1;
	int is_copy = id && id == known && p[7] == end && r->time - ((u64)p[4] << 20) < 1000000;
	u32 of_syn = p[8] - (before & 1 << 24 ? 0 : 0x7fffffff), now = is_stamped ? stamp : p[8];
	u32 after = (before & ~(1u << 25 | 1u << 24)) | marks | (u32)is_copy << 26;
	after |= (u32)((before & 5u << 21) == 5u << 21 && now == of_syn) << 24;
	p[8] = now;
	if (is_stamped || !(before & 1 << 22)) p[4] = r->time >> 20;
	if (id) {
		u32 by = (id - known) & 0xffff, shift = by <= 64 ? 28 : 30;
		if (known && by && (after >> shift & 3) < 3) after += 1u << shift;
	}
	p[9] = (id ? id << 16 : p[9] & 0xffff0000) | window, p[11] = after;
	if ((int)(end - p[7]) > 0) p[7] = end;
	if ((p[10] & 0xff) == r->frame[22] && (p[10] >> 16 & 15) < 15 && link_mac == mac) p[10] += 1 << 16;
}

KEEP static void tell_batch(void)
{
	for (int i = 0; i < BATCH; i++) {
		const struct read *r = &batch[i];
		const u8 *f = r->frame;
		if (!r->flags) continue;
		u64 set = r->hash & (sets - 1), tag = tag_of(r->hash), word = get64(TAGS(set));
		u64 alike = zeroes(word ^ tag * 0x0101010101010101ull), mac = (get64(f + 6) & 0xffffffffffffull) | 1ull << 61;
		u32 *p, *marked = TAGS(set), way, is_new = 0;
		for (;; alike &= alike - 1) {
			u64 from = alike ? alike : zeroes(word);
			if (!from) break;
			way = __builtin_ctzll(from) >> 3, p = FLOW(set, way), is_new = !alike;
			if (is_new || (get64(p) == r->ends && p[2] == r->ports)) break;
		}
		if (!alike && !is_new) {
			others++; // A set that is full: 3 % of all here.
			continue;
		}
		u32 id = net16(f + 18), stamp = r->len == 20 ? 0 : net32(f + (r->len == 32 ? 58 : 62)), flags = r->flags;
		u32 marks = 0x200000u >> (f[20] >> 6 & 1) | (flags & FIN) << 18 | (r->len != 20) << 22;
		u32 end = net32(f + 38) + (flags & 1) + (flags >> 1 & 1);
		if (is_new) {
			((u8 *)marked)[way] = tag;
			open_flow(p, r, marks, end, stamp, id << 16);
			link_mac = mac;
		} else if (!(flags & SYN) && (p[5] & (1 << 7 | 1 << 15 | 3 << 11)) == (u32)r->is_high << 15) {
			follow_flow(p, r, marks, end, stamp, id, mac);
		} else {
			others++;
			continue;
		}
		if (p[11] & 3 << 18 || p[5] & 1 << 8) marked[2] = (marked[2] & ~(3u << way * 2)) | 2u << way * 2;
		learn(r, mac);
	}
}

static double cpu_ns(void)
{
	struct timespec t;
	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
	return t.tv_sec * 1e9 + t.tv_nsec;
}

KEEP static void take_in(int batches)
{
	for (int b = 0; b < batches; b++) {
		read_batch(b * BATCH);
		reach_batch();
		tell_batch();
	}
}

static u64 state = 7;
static u32 below(u32 bound)
{
	state ^= state >> 12, state ^= state << 25, state ^= state >> 27;
	return (state * 0x2545f4914f6cdd1dull >> 32) * bound >> 32;
}

static void write_frame(int at, u32 number, u8 flags, u64 time)
{
	static const u8 syn[20] = { 2, 4, 5, 0xb4, 4, 2, 8, 10, 0, 0, 0, 7, 0, 0, 0, 0, 1, 3, 3, 7 };
	static const u8 stamps[12] = { 1, 1, 8, 10, 0, 0, 1, 7, 0, 0, 0, 9 };
	u8 *meta = slots[at], b = number >> 16, c = number >> 8, d = number, options = flags == SYN ? 20 : 12, tcp = 20 + options;
	u32 magic = 0x52535431;
	u8 frame[54] = { 2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0, 0x45, 0, 0, 20 + tcp, c, d, 0x40, 0, 57, 6, 0, 0, 100, b,
			 c, d, 10, 0, 0, 1, c | 0x80, d, 1, 0xbb, b, c, d, flags, 0, 0, 0, 9, tcp << 2, flags, 0xfa, 0xf0 };
	memset(meta, 0, META);
	memcpy(meta + 64, &time, 8);
	memcpy(meta + 76, &magic, 4);
	memcpy(meta + META, frame, sizeof frame);
	memcpy(meta + META + 54, flags == SYN ? syn : stamps, options);
	ends[at] = META + 54 + options;
}

static void *pages(size_t bytes, int fill)
{
	size_t huge = 2 << 20;
	u8 *at = mmap(0, bytes + huge, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	at = (u8 *)(((u64)at + huge - 1) & ~(huge - 1));
	madvise(at, bytes, MADV_HUGEPAGE);
	if (fill) memset(at, fill, bytes);
	return at;
}

static volatile u64 sink;
KEEP static double bare_read(const u8 *memory, u32 lines)
{
	u32 places[BATCH];
	u64 sum = 0;
	double started = cpu_ns();
	for (int b = 0; b < BATCHES; b++) {
		for (int i = 0; i < BATCH; i++) fetch(memory + (u64)(places[i] = below(lines)) * 64);
		for (int i = 0; i < BATCH; i++)
			for (int k = 0; k < 8; k++) sum ^= get64(memory + (u64)places[i] * 64 + k * 8);
	}
	sink = sum;
	return (cpu_ns() - started) / FRAMES;
}

static int by_value(const void *a, const void *b) { return (*(double *)a > *(double *)b) - (*(double *)a < *(double *)b); }
static double median(double *values, int count)
{
	qsort(values, count, sizeof *values, by_value);
	return values[count / 2];
}

int main(int argc, char **argv)
{
	static double frame[ROUNDS_MAX], bare[ROUNDS_MAX], again[ROUNDS_MAX], near[ROUNDS_MAX];
	int rounds = argc > 1 ? 5 : ROUNDS_MAX;
	u64 time = 1ull << 40, capacity = 1 << 22;
	if (argc > 1) live = 200000, capacity = 1 << 19;
	sets = capacity / 8;
	flows = pages(sets * SET_WORDS * 4 + 64, 0), tags = pages(sets * 12, 0);
	addresses = pages(sizeof *addresses * ADDRESSES, 0), networks = pages(sizeof *networks * NETWORKS, 0);
	u8 *store = calloc(FRAMES, SLOT), *memory = pages(sets * SET_WORDS * 4, 1);
	for (int i = 0; i < FRAMES; i++) slots[i] = store + i * (size_t)SLOT;
	for (u32 start = 0; start < live; start += BATCH) {
		for (int i = 0; i < BATCH; i++) write_frame(i, start + i, SYN, time);
		take_in(1);
	}
	u32 fresh = live, lines = sets * SET_WORDS / 16;
	for (int round = 0; round < rounds; round++) {
		for (int i = 0; i < FRAMES; i++, time += 1000)
			if (i & 1) write_frame(i, below(live), FIN_ACK, time);
			else write_frame(i, fresh++, SYN, time);
		double started = cpu_ns();
		take_in(BATCHES);
		frame[round] = (cpu_ns() - started) / FRAMES;
		bare[round] = bare_read(memory, lines);
		for (int i = 0; i < 5; i++) again[round] = bare_read(memory, lines);
		for (int i = 0; i < FRAMES; i++) write_frame(i, below(1000), FIN_ACK, time);
		take_in(BATCHES);
		started = cpu_ns();
		take_in(BATCHES);
		near[round] = (cpu_ns() - started) / FRAMES;
	}
	double of_frame = median(frame, rounds), of_read = median(bare, rounds);
	printf("frame %.1f ns, bare read %.1f (%.2f of them), the sixth round of bare reads %.1f, everything near %.1f; %.1f %% left out\n",
	       of_frame, of_read, of_frame / of_read, median(again, rounds), median(near, rounds),
	       100.0 * others / (live + 3.0 * FRAMES * rounds));
	(void)argv;
	return 0;
}
