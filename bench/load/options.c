/* Options, clocks, the CPU time of processes, the histogram. */
#include "load.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

static int count;
static char **given;

void options(int argc, char **argv) {
    count = argc;
    given = argv;
}

const char *text(const char *name, const char *otherwise) {
    size_t length = strlen(name);
    for (int i = 0; i < count; i++)
        if (!strncmp(given[i], name, length) && given[i][length] == '=') return given[i] + length + 1;
    return otherwise;
}

double number(const char *name, double otherwise) {
    const char *value = text(name, NULL);
    return value ? atof(value) : otherwise;
}

static const char *prefixed(const char *prefix, const char *name) {
    char key[64];
    snprintf(key, sizeof key, "%s%s", prefix, name);
    return text(key, "");
}

struct spec spec(const char *prefix) {
    const char *carrier = prefixed(prefix, "carrier");
    struct spec s = {
        .websocket = strstr(carrier, "ws") != NULL,
        .tls = strstr(carrier, "tls") != NULL,
        .binary = strstr(carrier, "binary") != NULL,
        .path = prefixed(prefix, "path"),
        .hello = prefixed(prefix, "hello"),
        .expect = prefixed(prefix, "expect"),
        .message = prefixed(prefix, "message"),
        .reply = prefixed(prefix, "reply"),
    };
    return s;
}

size_t expand(char **into, const char *pattern, unsigned channel) {
    size_t room = strlen(pattern) + 1;
    for (const char *p = pattern; *p; p++) room += *p == '@' ? 10 : 0;
    char *out = *into = malloc(room), *end = out;
    for (const char *p = pattern; *p; p++) {
        if (*p == '@') end += sprintf(end, "%u", channel);
        else *end++ = *p;
    }
    *end = 0;
    return (size_t)(end - out);
}

void fail(const char *format, ...) {
    va_list args;
    va_start(args, format);
    fputs("load: ", stderr);
    vfprintf(stderr, format, args);
    fputc('\n', stderr);
    va_end(args);
    exit(1);
}

double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

double own_cpu(void) {
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

double cpu_of(const char *pids) {
    double seconds = 0;
    while (*pids) {
        char name[64], line[1024];
        snprintf(name, sizeof name, "/proc/%ld/stat", strtol(pids, (char **)&pids, 10));
        if (*pids == ',') pids++;
        FILE *file = fopen(name, "r");
        if (!file) continue;
        char *end = fgets(line, sizeof line, file) ? strrchr(line, ')') : NULL;
        unsigned long user, system;
        if (end && sscanf(end + 1, " %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu", &user, &system) == 2)
            seconds += (double)(user + system) / (double)sysconf(_SC_CLK_TCK);
        fclose(file);
    }
    return seconds;
}

/* A bucket has 1/64 of its power of two, in nanoseconds. */
void record(struct histogram *h, double seconds, uint64_t times) {
    uint64_t ns = seconds < 0 ? 0 : (uint64_t)(seconds * 1e9);
    unsigned power = ns < 64 ? 0 : 58u - (unsigned)__builtin_clzll(ns);
    h->count[power * 64 + (ns >> power)] += times;
    h->total += times;
    if (seconds > h->most) h->most = seconds;
}

double quantile(const struct histogram *h, double share) {
    uint64_t seen = 0, wanted = (uint64_t)ceil((double)h->total * share);
    for (unsigned i = 0; i < BUCKETS; i++) {
        seen += h->count[i];
        if (!seen || seen < wanted) continue;
        unsigned power = i < 128 ? 0 : i / 64 - 1;
        return (double)((uint64_t)(i - power * 64) << power) * 1e-9;
    }
    return 0;
}
