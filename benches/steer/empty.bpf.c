// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/* The least that an XDP program can do: what everything else is measured against. */
__attribute__((section("license"), used)) static char terms[] = "Dual BSD/GPL";

__attribute__((section("xdp"), used)) int empty(void *ctx)
{
	(void)ctx;
	return 2; /* XDP_PASS */
}
