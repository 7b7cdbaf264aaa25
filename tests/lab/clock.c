/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A time of day for one process, to be preloaded: CLOCK_REALTIME is the kernel's plus the nanoseconds in
 * the file that LAB_CLOCK names, which may change at any time. Rust asks the vDSO past libc, so it is the
 * vDSO's own function that is replaced, in this process's private copy of it. x86-64 only.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define SECOND 1000000000LL

static volatile int64_t *offset;

/* No libc: it runs in place of the vDSO's. */
static long told(clockid_t clock, struct timespec *time)
{
	long result;

	__asm__ volatile("syscall"
			 : "=a"(result)
			 : "a"(SYS_clock_gettime), "D"(clock), "S"(time)
			 : "rcx", "r11", "memory");
	if (!result && clock == CLOCK_REALTIME) {
		int64_t nanos = time->tv_nsec + *offset % SECOND;

		time->tv_sec += *offset / SECOND + (nanos >= SECOND) - (nanos < 0);
		time->tv_nsec = nanos - SECOND * (nanos >= SECOND) + SECOND * (nanos < 0);
	}
	return result;
}

__attribute__((constructor)) static void replace(void)
{
	unsigned char jump[12] = { 0x48, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xe0 };
	const char *path = getenv("LAB_CLOCK");
	void *vdso = dlopen("linux-vdso.so.1", RTLD_NOLOAD | RTLD_NOW), *place, *target = told;
	int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
	uintptr_t page;

	if (file < 0)
		return;
	offset = mmap(NULL, sizeof(*offset), PROT_READ, MAP_SHARED, file, 0);
	close(file);
	place = vdso ? dlsym(vdso, "__vdso_clock_gettime") : NULL;
	if (offset == MAP_FAILED || !place)
		abort();
	memcpy(jump + 2, &target, sizeof(target));
	page = (uintptr_t)place & ~4095UL;
	if (mprotect((void *)page, 8192, PROT_READ | PROT_WRITE | PROT_EXEC) &&
	    mprotect((void *)page, 4096, PROT_READ | PROT_WRITE | PROT_EXEC))
		abort();
	memcpy(place, jump, sizeof(jump));
	mprotect((void *)page, 4096, PROT_READ | PROT_EXEC);
}
