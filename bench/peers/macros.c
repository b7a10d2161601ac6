/*
 * The ring alone in Xen's own words: the macros of xen/io/ring.h on the structures of xen/io/blkif.h,
 * with the checks that our back makes and none besides. A request goes down, is copied out once and
 * checked, and its response comes up, all on one thread; to be run under an instruction counter.
 *
 *   macros SEGMENTS BATCH MESSAGES
 *
 * It prints the sum of the ids that came back, and must never look at a clock.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Anything newer than the headers' first names for barriers, which are the kernel's. */
#define __XEN_INTERFACE_VERSION__ 0x00040e00
#define xen_mb() __atomic_thread_fence(__ATOMIC_SEQ_CST)
#define xen_rmb() __atomic_thread_fence(__ATOMIC_ACQUIRE)
#define xen_wmb() __atomic_thread_fence(__ATOMIC_RELEASE)

#include <xen/xen.h>
#include <xen/io/blkif.h>

#define PAGE 4096u

struct disk {
    uint64_t sectors;
    uint32_t sector_size;
    int read_only, flush, discard;
};

/* What our back answers, and whether the request may be done. */
static int16_t check(const blkif_request_t *request, const struct disk *disk)
{
    uint64_t sectors = 0, unit = disk->sector_size / 512;
    switch (request->operation) {
    case BLKIF_OP_READ:
    case BLKIF_OP_WRITE:
        break;
    case BLKIF_OP_FLUSH_DISKCACHE:
        if (!disk->flush)
            return BLKIF_RSP_EOPNOTSUPP;
        break;
    case BLKIF_OP_DISCARD:
        if (!disk->discard)
            return BLKIF_RSP_EOPNOTSUPP;
        sectors = ((const blkif_request_discard_t *)request)->nr_sectors;
        break;
    default:
        return BLKIF_RSP_EOPNOTSUPP;
    }
    if (request->operation != BLKIF_OP_DISCARD) {
        if (request->nr_segments > BLKIF_MAX_SEGMENTS_PER_REQUEST)
            return BLKIF_RSP_ERROR;
        for (unsigned at = 0; at < request->nr_segments; at++) {
            const struct blkif_request_segment *it = &request->seg[at];
            if (it->first_sect > it->last_sect || it->last_sect >= PAGE / 512)
                return BLKIF_RSP_ERROR;
            if ((it->first_sect | (it->last_sect + 1u)) & (unit - 1))
                return BLKIF_RSP_ERROR;
            sectors += it->last_sect - it->first_sect + 1u;
        }
    }
    if (sectors == 0)
        return request->operation == BLKIF_OP_FLUSH_DISKCACHE ? BLKIF_RSP_OKAY : BLKIF_RSP_ERROR;
    if (request->operation != BLKIF_OP_READ && disk->read_only)
        return BLKIF_RSP_ERROR;
    if ((request->sector_number | sectors) & (unit - 1))
        return BLKIF_RSP_ERROR;
    if (request->sector_number + sectors < sectors || request->sector_number + sectors > disk->sectors)
        return BLKIF_RSP_ERROR;
    return BLKIF_RSP_OKAY;
}

static void broken(const char *who)
{
    fprintf(stderr, "macros: the %s's index makes no sense\n", who);
    exit(1);
}

/* Takes all visible requests and answers them. */
static void serve(blkif_back_ring_t *back, const struct disk *disk)
{
    RING_IDX produced = back->sring->req_prod;
    if (RING_REQUEST_PROD_OVERFLOW(back, produced))
        broken("front");
    xen_rmb();
    while (back->req_cons != produced) {
        blkif_request_t request;
        RING_COPY_REQUEST(back, back->req_cons, &request);
        back->req_cons++;
        blkif_response_t answer;
        /* Padding is of ours: it must not tell the front what was here before. */
        memset(&answer, 0, sizeof answer);
        answer.id = request.id;
        answer.operation = request.operation;
        answer.status = check(&request, disk);
        /* What was checked goes on to the disk. */
        __asm__ volatile("" : : "r"(&request) : "memory");
        *RING_GET_RESPONSE(back, back->rsp_prod_pvt) = answer;
        back->rsp_prod_pvt++;
    }
}

int main(int count, char **words)
{
    if (count != 4) {
        fprintf(stderr, "usage: macros SEGMENTS BATCH MESSAGES\n");
        return 2;
    }
    unsigned segments = (unsigned)atoi(words[1]), batch = (unsigned)atoi(words[2]);
    uint64_t messages = strtoull(words[3], NULL, 10), number = 0, sum = 0;
    struct disk disk = { (uint64_t)1 << 40, 512, 0, 0, 0 };
    blkif_sring_t *shared = aligned_alloc(PAGE, PAGE);
    if (!shared)
        return 1;
    memset(shared, 0, PAGE);
    /* From here on somebody else might see it: nothing that is stored may be taken for known. */
    __asm__ volatile("" : "+r"(shared) : : "memory");
    SHARED_RING_INIT(shared);
    blkif_front_ring_t front;
    blkif_back_ring_t back;
    FRONT_RING_INIT(&front, shared, PAGE);
    BACK_RING_INIT(&back, shared, PAGE);
    while (number < messages) {
        int notify;
        for (unsigned at = 0; at < batch; at++) {
            if (RING_FULL(&front))
                broken("front");
            blkif_request_t *request = RING_GET_REQUEST(&front, front.req_prod_pvt);
            request->operation = BLKIF_OP_READ;
            request->nr_segments = (uint8_t)segments;
            request->handle = 0;
            request->id = number;
            request->sector_number = number * 8;
            for (unsigned it = 0; it < segments; it++)
                request->seg[it] = (struct blkif_request_segment){ 8 + it, 0, 7 };
            front.req_prod_pvt++;
            number++;
        }
        RING_PUSH_REQUESTS_AND_CHECK_NOTIFY(&front, notify);
        __asm__ volatile("" : : "r"(notify) : "memory");
        serve(&back, &disk);
        RING_PUSH_RESPONSES_AND_CHECK_NOTIFY(&back, notify);
        __asm__ volatile("" : : "r"(notify) : "memory");
        RING_IDX produced = shared->rsp_prod;
        if (RING_RESPONSE_PROD_OVERFLOW(&front, produced) || produced - front.rsp_cons > batch)
            broken("back");
        xen_rmb();
        while (front.rsp_cons != produced) {
            blkif_response_t response;
            RING_COPY_RESPONSE(&front, front.rsp_cons, &response);
            front.rsp_cons++;
            if (response.status != BLKIF_RSP_OKAY)
                return 1;
            sum += response.id;
        }
    }
    printf("%llu\n", (unsigned long long)sum);
    return 0;
}
