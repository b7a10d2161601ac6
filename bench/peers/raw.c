/*
 * What the disk gives without us: a loop of 4 KiB reads or writes at random places, in io_uring's own
 * words, as good as this kernel can be asked for it. File and buffers are registered, completions are
 * taken in the thread that asks for them, and one system call both submits a batch and waits for one.
 *
 *   raw FILE cached|direct read|write DEPTH BATCH SEED
 *
 * Each line on its standard input is a block: how many microseconds it shall take. The answer is a
 * line too: I/Os done, nanoseconds that passed, nanoseconds of the processor, io_uring_enter calls.
 * It must never judge, and must end at the first thing that goes wrong.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/io_uring.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#define BYTES 4096u

static int ring, ring_flags;
static unsigned *sq_tail, *sq_mask, *cq_head, *cq_tail, *cq_mask;
static struct io_uring_sqe *sqes;
static struct io_uring_cqe *cqes;
static unsigned char *buffers;
static unsigned depth, batch, tail, head;
static uint8_t opcode;
static uint64_t places, chance, enters;

static void fail(const char *what)
{
    fprintf(stderr, "raw: %s: %s\n", what, strerror(errno));
    exit(1);
}

static uint64_t now(clockid_t clock)
{
    struct timespec time;
    clock_gettime(clock, &time);
    return (uint64_t)time.tv_sec * 1000000000u + (uint64_t)time.tv_nsec;
}

static long enlist(unsigned what, void *with, unsigned count)
{
    return syscall(SYS_io_uring_register, ring, what, with, count);
}

static void *map(size_t bytes, off_t where)
{
    int flags = MAP_SHARED | MAP_POPULATE;
    void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, flags, ring, where);
    if (memory == MAP_FAILED)
        fail("mmap");
    return memory;
}

static void open_ring(void)
{
    struct io_uring_params with = { .flags = IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN };
    ring = (int)syscall(SYS_io_uring_setup, depth, &with);
    if (ring < 0) {
        memset(&with, 0, sizeof with);
        ring = (int)syscall(SYS_io_uring_setup, depth, &with);
    }
    if (ring < 0)
        fail("io_uring_setup");
    unsigned char *sq = map(with.sq_off.array + with.sq_entries * sizeof(unsigned), IORING_OFF_SQ_RING);
    unsigned char *cq = map(with.cq_off.cqes + with.cq_entries * sizeof *cqes, IORING_OFF_CQ_RING);
    sqes = map(with.sq_entries * sizeof *sqes, IORING_OFF_SQES);
    unsigned *array = (unsigned *)(sq + with.sq_off.array);
    for (unsigned at = 0; at < with.sq_entries; at++)
        array[at] = at;
    sq_tail = (unsigned *)(sq + with.sq_off.tail);
    sq_mask = (unsigned *)(sq + with.sq_off.ring_mask);
    cq_head = (unsigned *)(cq + with.cq_off.head);
    cq_tail = (unsigned *)(cq + with.cq_off.tail);
    cq_mask = (unsigned *)(cq + with.cq_off.ring_mask);
    cqes = (struct io_uring_cqe *)(cq + with.cq_off.cqes);
}

static void register_all(int file)
{
    if (posix_memalign((void **)&buffers, BYTES, (size_t)depth * BYTES))
        fail("memory");
    memset(buffers, 0x5a, (size_t)depth * BYTES);
    struct iovec all = { buffers, (size_t)depth * BYTES };
    if (enlist(IORING_REGISTER_BUFFERS, &all, 1) || enlist(IORING_REGISTER_FILES, &file, 1))
        fail("io_uring_register");
    /* The ring too, where the kernel knows how: its descriptor need not be looked up then. */
    struct io_uring_rsrc_update own = { .offset = -1u, .data = (uint64_t)ring };
    if (enlist(IORING_REGISTER_RING_FDS, &own, 1) == 1) {
        ring = (int)own.offset;
        ring_flags = IORING_ENTER_REGISTERED_RING;
    }
}

/* SplitMix64, as in the program that this one is beside. */
static uint64_t place(void)
{
    uint64_t z = chance += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return (uint64_t)((unsigned __int128)(z ^ (z >> 31)) * places >> 64);
}

static void prepare(uint64_t slot)
{
    struct io_uring_sqe *sqe = &sqes[tail++ & *sq_mask];
    memset(sqe, 0, sizeof *sqe);
    sqe->opcode = opcode;
    sqe->flags = IOSQE_FIXED_FILE;
    sqe->off = place() * BYTES;
    sqe->addr = (uint64_t)(uintptr_t)(buffers + slot * BYTES);
    sqe->len = BYTES;
    sqe->user_data = slot;
}

static void enter(unsigned submit, unsigned want)
{
    int flags = IORING_ENTER_GETEVENTS | ring_flags;
    __atomic_store_n(sq_tail, tail, __ATOMIC_RELEASE);
    enters++;
    long taken;
    do
        taken = syscall(SYS_io_uring_enter, ring, submit, want, flags, NULL, 0);
    while (taken < 0 && errno == EINTR);
    if (taken != (long)submit)
        fail("io_uring_enter");
}

/* The next completion's slot, if there is one. */
static int reap(uint64_t *slot)
{
    if (head == __atomic_load_n(cq_tail, __ATOMIC_ACQUIRE))
        return 0;
    struct io_uring_cqe *cqe = &cqes[head & *cq_mask];
    errno = cqe->res < 0 ? -cqe->res : EIO;
    if (cqe->res != (int)BYTES)
        fail("an I/O");
    *slot = cqe->user_data;
    __atomic_store_n(cq_head, ++head, __ATOMIC_RELEASE);
    return 1;
}

/* Keeps `depth` in flight for so long, hands them down `batch` at a time, and lets them end. */
static void block(uint64_t length_ns)
{
    uint64_t start = now(CLOCK_MONOTONIC), cpu = now(CLOCK_PROCESS_CPUTIME_ID), done = 0, slot;
    unsigned unsent = 0, in_flight = 0;
    int over = 0;
    enters = 0;
    for (slot = 0; slot < depth; slot++) {
        prepare(slot);
        if (++unsent == batch) {
            enter(unsent, 0);
            in_flight += unsent;
            unsent = 0;
        }
    }
    while (in_flight > 0) {
        while (unsent < batch && reap(&slot)) {
            done++;
            in_flight--;
            if (!over) {
                prepare(slot);
                unsent++;
            }
        }
        if (unsent == batch) {
            /* As many are in flight as ever: wait for the next batch with the same call. */
            unsigned ready = __atomic_load_n(cq_tail, __ATOMIC_ACQUIRE) - head;
            enter(unsent, ready ? 0 : batch);
            in_flight += unsent;
            unsent = 0;
            over = now(CLOCK_MONOTONIC) - start >= length_ns;
        } else if (in_flight > 0) {
            enter(0, over ? in_flight : batch - unsent);
        }
    }
    printf("%llu %llu %llu %llu\n", (unsigned long long)done,
           (unsigned long long)(now(CLOCK_MONOTONIC) - start),
           (unsigned long long)(now(CLOCK_PROCESS_CPUTIME_ID) - cpu), (unsigned long long)enters);
    fflush(stdout);
}

int main(int count, char **words)
{
    if (count != 7) {
        fprintf(stderr, "usage: raw FILE cached|direct read|write DEPTH BATCH SEED\n");
        return 2;
    }
    int direct = strcmp(words[2], "direct") == 0, writes = strcmp(words[3], "write") == 0;
    int file = open(words[1], (writes ? O_RDWR : O_RDONLY) | (direct ? O_DIRECT : 0));
    struct stat about;
    if (file < 0 || fstat(file, &about) < 0)
        fail(words[1]);
    depth = (unsigned)atoi(words[4]);
    batch = (unsigned)atoi(words[5]);
    chance = strtoull(words[6], NULL, 10);
    places = (uint64_t)about.st_size / BYTES;
    opcode = writes ? IORING_OP_WRITE_FIXED : IORING_OP_READ_FIXED;
    if (batch == 0 || depth % batch || places == 0) {
        fprintf(stderr, "raw: whole batches, at least one, on a file of at least 4 KiB\n");
        return 2;
    }
    open_ring();
    register_all(file);
    unsigned long long microseconds;
    while (scanf("%llu", &microseconds) == 1)
        block(microseconds * 1000);
    return 0;
}
