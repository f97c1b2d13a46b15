/*
 * One member of a closed process group: sends when it is told to, and counts what is delivered.
 *
 *   cpg SIZE one|many
 *
 * Prints `view COUNT` at each configuration change. Told `cast`, it sends for ever: one message at a time (`one`), or as many as the
 * library takes (`many`). Told `mark`, it prints `mark DELIVERED NANOS VIEWS P50_NANOS P99_NANOS` of the time since the last mark. It ends
 * with its standard input.
 */
#include <errno.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <corosync/cpg.h>

enum { SIZE_MAX_BYTES = 1 << 16, SAMPLES_MAX = 1 << 20, BURST = 16, WAIT_MS = 1 };

static struct {
    uint32_t node;
    uint32_t pid;
    int one;
    int casting;
    int on_the_way;
    uint64_t begun;
    uint64_t marked;
    uint64_t delivered;
    uint64_t views;
    size_t count;
    uint64_t samples[SAMPLES_MAX];
} me;

static uint64_t now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (uint64_t)time.tv_sec * 1000000000u + (uint64_t)time.tv_nsec;
}

static void fail(const char *what, int error)
{
    fprintf(stderr, "%s: error %d\n", what, error);
    exit(1);
}

static void on_deliver(cpg_handle_t handle, const struct cpg_name *group, uint32_t node, uint32_t pid,
                       void *message, size_t size)
{
    (void)handle, (void)group, (void)message, (void)size;
    me.delivered++;
    if (me.one && node == me.node && pid == me.pid) {
        me.on_the_way = 0;
        if (me.count < SAMPLES_MAX)
            me.samples[me.count++] = now() - me.begun;
    }
}

static void on_view(cpg_handle_t handle, const struct cpg_name *group, const struct cpg_address *members,
                    size_t count, const struct cpg_address *left, size_t left_count,
                    const struct cpg_address *joined, size_t joined_count)
{
    (void)handle, (void)group, (void)members, (void)left, (void)left_count, (void)joined, (void)joined_count;
    me.views++;
    printf("view %zu\n", count);
}

static int ascending(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

static uint64_t percentile(unsigned percent)
{
    size_t rank = (me.count * percent + 99) / 100;
    return rank == 0 ? 0 : me.samples[rank - 1];
}

static void mark(void)
{
    uint64_t at = now();
    qsort(me.samples, me.count, sizeof *me.samples, ascending);
    printf("mark %llu %llu %llu %llu %llu\n", (unsigned long long)me.delivered,
           (unsigned long long)(at - me.marked), (unsigned long long)me.views,
           (unsigned long long)percentile(50), (unsigned long long)percentile(99));
    me.delivered = me.views = me.count = 0;
    me.marked = now();
}

/* Obeys what has come on the standard input; zero at its end. */
static int obey(void)
{
    static char line[64];
    static size_t used;
    ssize_t got = read(STDIN_FILENO, line + used, sizeof line - used);
    char *end;
    if (got <= 0)
        return 0;
    used += (size_t)got;
    while ((end = memchr(line, '\n', used)) != NULL) {
        size_t length = (size_t)(end - line);
        if (length == 4 && memcmp(line, "cast", 4) == 0)
            me.casting = 1;
        else if (length == 4 && memcmp(line, "mark", 4) == 0)
            mark();
        used -= length + 1;
        memmove(line, end + 1, used);
    }
    return used < sizeof line;
}

/* Sends what may be sent now; whether the library took all of it. */
static int cast(cpg_handle_t handle, const struct iovec *payload)
{
    for (int left = me.one ? !me.on_the_way : BURST; left > 0; left--) {
        me.begun = now();
        cs_error_t error = cpg_mcast_joined(handle, CPG_TYPE_AGREED, payload, 1);
        if (error == CS_ERR_TRY_AGAIN)
            return 0;
        if (error != CS_OK)
            fail("cpg_mcast_joined", error);
        me.on_the_way = me.one;
    }
    return 1;
}

int main(int argc, char **argv)
{
    static char bytes[SIZE_MAX_BYTES];
    cpg_model_v1_data_t model = {.cpg_deliver_fn = on_deliver, .cpg_confchg_fn = on_view};
    struct cpg_name group = {.length = 5, .value = "bench"};
    cpg_handle_t handle;
    cs_error_t error;
    int fd;
    if (argc != 3 || strtoul(argv[1], NULL, 10) > SIZE_MAX_BYTES) {
        fprintf(stderr, "usage: cpg SIZE one|many\n");
        return 2;
    }
    struct iovec payload = {.iov_base = bytes, .iov_len = strtoul(argv[1], NULL, 10)};
    me.one = strcmp(argv[2], "one") == 0;
    me.pid = (uint32_t)getpid();
    setvbuf(stdout, NULL, _IOLBF, 0);
    if ((error = cpg_model_initialize(&handle, CPG_MODEL_V1, (cpg_model_data_t *)&model, NULL)) != CS_OK)
        fail("cpg_model_initialize", error);
    if ((error = cpg_local_get(handle, &me.node)) != CS_OK)
        fail("cpg_local_get", error);
    if ((error = cpg_fd_get(handle, &fd)) != CS_OK)
        fail("cpg_fd_get", error);
    if ((error = cpg_join(handle, &group)) != CS_OK)
        fail("cpg_join", error);
    me.marked = now();
    for (;;) {
        int ready = me.casting && !(me.one && me.on_the_way) && cast(handle, &payload);
        struct pollfd polled[] = {{.fd = fd, .events = POLLIN}, {.fd = STDIN_FILENO, .events = POLLIN}};
        /* What the library refused is tried again soon; the answer to the one on the way wakes us. */
        int wait = !me.casting || (me.one && me.on_the_way) ? -1 : ready ? 0 : WAIT_MS;
        if (poll(polled, 2, wait) < 0 && errno != EINTR)
            fail("poll", errno);
        if (polled[0].revents != 0 && (error = cpg_dispatch(handle, CS_DISPATCH_ALL)) != CS_OK)
            fail("cpg_dispatch", error);
        if (polled[1].revents != 0 && !obey())
            return 0;
    }
}
