/* HTTP requests on kept connections: each connection sends its next request when it has read the whole response. */
#include "load.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

static char *bytes;
static size_t size;
static int sending, measuring;
static uint64_t responses;
static struct histogram waits;
static double clock_now;
static struct conn listener;

static void ask(struct conn *c) {
    c->started = clock_now;
    push(c, bytes, size);
}

static void answered(struct conn *c) {
    c->stage = 0, c->seen_length = 0;
    if (measuring) {
        responses++;
        record(&waits, clock_now - c->started, 1);
    }
    if (sending) ask(c);
    else c->stage = -1;
}

/* Reads the head of a response: its status, and what bounds its body. Stage 1 has a length, stage 2 has chunks. */
static void head(struct conn *c) {
    if (c->seen_length < 12 || c->seen[9] != '2') fail("no response with a status of 200: %.300s", c->seen);
    c->stage = 2, c->want = 0;
    for (char *line = strstr(c->seen, "\r\n"); line; line = strstr(line + 2, "\r\n"))
        if (!strncasecmp(line + 2, "content-length:", 15)) c->stage = 1, c->want = strtoul(line + 17, NULL, 10);
    c->seen_length = 0;
    if (c->stage == 1 && !c->want) answered(c);
}

static void body(struct conn *c, unsigned char **data, size_t *length) {
    if (c->stage == 1) {
        size_t take = c->want < *length ? (size_t)c->want : *length;
        *data += take, *length -= take, c->want -= take;
        if (!c->want) answered(c);
        return;
    }
    /* Chunks are looked at for their end only: the responses measured here hold no "0\r\n\r\n" elsewhere. */
    static const char last[] = "0\r\n\r\n";
    while (*length) {
        c->want = **data == (unsigned char)last[c->want] ? c->want + 1 : **data == '0';
        ++*data, --*length;
        if (c->want == 5) {
            answered(c);
            return;
        }
    }
}

static void response(struct conn *c, unsigned char *data, size_t length) {
    if (c == &listener) return;
    while (length) {
        if (c->stage < 0) return;
        if (c->stage) {
            body(c, &data, &length);
            continue;
        }
        if (c->seen_length >= 4000) fail("the head of a response is too long: %.200s", c->seen);
        c->seen[c->seen_length++] = (char)*data++;
        length--;
        c->seen[c->seen_length] = 0;
        if (c->seen_length > 3 && !memcmp(c->seen + c->seen_length - 4, "\r\n\r\n", 4)) head(c);
    }
}

void request(void) {
    unsigned count = (unsigned)number("connections", 1);
    double seconds = number("seconds", 2), factor = number("factor", 1), warm_up = number("warm_up", 0.5);
    const char *pids = text("pids", "");
    struct conn *conns = calloc(count, sizeof *conns);
    char *once;
    open_all(conns, count, (unsigned)number("at_once", 50), 60);
    static struct spec other;
    if (*text("listener.carrier", "")) {
        other = spec("listener.");
        open_others(&listener, &other, 1, 1);
        settle(0.5, 5);
    }
    size = expand(&once, text("request", ""), 0);
    const char *unit = text("body", "");
    unsigned repeat = (unsigned)number("repeat", 1);
    size_t unit_length = strlen(unit);
    bytes = malloc(size + unit_length * repeat + 1);
    memcpy(bytes, once, size);
    for (unsigned i = 0; i < repeat; i++, size += unit_length) memcpy(bytes + size, unit, unit_length);
    on_payload = response;
    sending = 1;
    double start = clock_now = now(), began = 0, own = 0, cpu = 0;
    for (unsigned i = 0; i < count; i++) ask(&conns[i]);
    for (;;) {
        static struct epoll_event events[MOST_EVENTS];
        int got = epoll_wait(epoll, events, MOST_EVENTS, 200);
        clock_now = now();
        for (int i = 0; i < got; i++) {
            struct conn *c = events[i].data.ptr;
            if (!step(c, events[i].events)) fail("the server closed a connection");
        }
        if (!measuring && clock_now >= start + warm_up)
            measuring = 1, began = clock_now, own = own_cpu(), cpu = cpu_of(pids);
        else if (measuring && clock_now >= began + seconds) break;
    }
    double took = clock_now - began;
    printf("{\"rate\": %.1f, \"p50\": %.9f, \"p99\": %.9f, \"max\": %.9f, \"load_cpu\": %.3f, \"server_cpu\": %.3f,"
           " \"seconds\": %.3f}\n",
           (double)responses * factor / took, quantile(&waits, 0.5), quantile(&waits, 0.99), waits.most,
           (own_cpu() - own) / took, cpu_of(pids) - cpu, took);
}
