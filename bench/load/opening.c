/* Opening connections: all of them, as many a second as the server can, idle ones, and a storm of them coming back. */
#include "load.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static unsigned opened;

static void count_open(struct conn *c) {
    (void)c;
    opened++;
}

int pump(int milliseconds) {
    static struct epoll_event events[MOST_EVENTS];
    int got = epoll_wait(epoll, events, MOST_EVENTS, milliseconds);
    for (int i = 0; i < got; i++) {
        struct conn *c = events[i].data.ptr;
        if (c && c->state != DEAD && !step(c, events[i].events))
            fail("the server closed a connection that was %s: %.200s", c->state == OPEN ? "open" : "being opened",
                 c->seen_length ? c->seen : "nothing was read");
    }
    return got;
}

void settle(double quiet, double patience) {
    double end = now() + patience;
    while (pump((int)(quiet * 1000)) > 0 && now() < end) {}
}

/* At most `at_once` are being opened at a time. */
static void open_from(struct conn *conns, const struct spec *s, unsigned count, unsigned channels, unsigned at_once,
                      double patience) {
    double end = now() + patience;
    unsigned started = 0;
    void (*before)(struct conn *) = on_open;
    on_open = count_open;
    opened = 0;
    while (opened < count) {
        while (started < count && started - opened < at_once) {
            start_connect(&conns[started], s, started % channels);
            started++;
        }
        pump(100);
        if (now() > end) fail("%u of %u connections are open after %.0f seconds", opened, count, patience);
    }
    on_open = before;
}

void open_all(struct conn *conns, unsigned count, unsigned at_once, double patience) {
    static struct spec s;
    s = spec("");
    open_from(conns, &s, count, (unsigned)number("channels", 1), at_once, patience);
}

void open_others(struct conn *conns, const struct spec *s, unsigned count, unsigned channels) {
    open_from(conns, s, count, channels, 50, 60);
}

void close_all(struct conn *conns, unsigned count) {
    for (unsigned i = 0; i < count; i++) drop(&conns[i]);
}

/* Opens rounds of connections, and closes each round at once. Only the time of opening counts. */
void openings(void) {
    unsigned count = (unsigned)number("connections", 500), at_once = (unsigned)number("at_once", 50);
    double most = number("seconds", 2), took = 0, own = own_cpu(), cpu = cpu_of(text("pids", ""));
    struct conn *conns = calloc(count, sizeof *conns);
    uint64_t total = 0;
    while (took < most) {
        double start = now();
        open_all(conns, count, at_once, 60);
        took += now() - start;
        total += count;
        close_all(conns, count);
        usleep(200000); /* for the server to notice */
    }
    printf("{\"rate\": %.1f, \"openings\": %lu, \"load_cpu\": %.3f, \"server_cpu\": %.3f}\n", (double)total / took,
           (unsigned long)total, (own_cpu() - own) / took, cpu_of(text("pids", "")) - cpu);
}

/* Opens connections and keeps them, until its standard input ends. Says so after opening. */
void hold(void) {
    unsigned count = (unsigned)number("connections", 1000);
    struct conn *conns = calloc(count, sizeof *conns);
    open_all(conns, count, (unsigned)number("at_once", 50), 240);
    settle(0.5, 10);
    printf("{\"open\": %u}\n", count);
    fflush(stdout);
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = calloc(1, sizeof(struct conn))};
    ((struct conn *)event.data.ptr)->state = DEAD;
    epoll_ctl(epoll, EPOLL_CTL_ADD, STDIN_FILENO, &event);
    char byte;
    double end = now() + number("patience", 300);
    while (now() < end) {
        struct epoll_event got[64];
        int n = epoll_wait(epoll, got, 64, 1000);
        for (int i = 0; i < n; i++) {
            struct conn *c = got[i].data.ptr;
            if (c == event.data.ptr) {
                if (read(STDIN_FILENO, &byte, 1) <= 0) {
                    close_all(conns, count);
                    return;
                }
            } else if (c->state != DEAD && !step(c, got[i].events)) {
                fail("the server closed an idle connection");
            }
        }
    }
}

/* Clients subscribe, are cut off, miss messages and come back at once with their position: the seconds until each has
   all that it missed. `back.hello` has '%' for the position, which is the text before `position.end` that follows
   `position.begin` in what a subscriber reads first. */
static char *position(const struct conn *c) {
    const char *begin = text("position.begin", ""), *end = text("position.end", "");
    char *from = strstr(c->seen, begin);
    char *until = from ? strstr(from + strlen(begin), end) : NULL;
    if (!until) fail("no position in %.300s", c->seen);
    return strndup(from + strlen(begin), (size_t)(until - from) - strlen(begin));
}

static char *with_position(const char *pattern, const char *value) {
    const char *at = strchr(pattern, '%');
    if (!at) fail("no %% in back.hello");
    char *out = malloc(strlen(pattern) + strlen(value) + 1);
    sprintf(out, "%.*s%s%s", (int)(at - pattern), pattern, value, at + 1);
    return out;
}

static unsigned missed, whole;

static void count_whole(struct conn *c, uint64_t messages, uint64_t replies) {
    (void)replies;
    if (c->count >= missed && c->count - messages < missed) whole++;
    if (c->count > missed) fail("a client read more than it missed");
}

static void publish_missed(const struct spec *publisher) {
    static struct conn c;
    open_from(&c, publisher, 1, 1, 1, 10);
    char *plain, *bytes;
    size_t size = expand(&plain, publisher->message, 0);
    size = encode(publisher, &bytes, plain, size);
    for (unsigned i = 0; i < missed; i++) push(&c, bytes, size);
    settle(0.5, 5);
    drop(&c);
}

void storm(void) {
    unsigned count = (unsigned)number("connections", 5000), at_once = (unsigned)number("at_once", 50);
    missed = (unsigned)number("missed", 10);
    struct conn *conns = calloc(count, sizeof *conns);
    struct spec first = spec(""), publisher = spec("publisher."), back = spec("back.");
    open_from(conns, &first, count, 1, at_once, 120);
    settle(0.5, 10);
    char *hello = with_position(back.hello, position(&conns[0]));
    close_all(conns, count);
    sleep(1);
    publish_missed(&publisher);
    back.hello = hello;
    on_count = count_whole;
    double start = now(), own = own_cpu(), cpu = cpu_of(text("pids", ""));
    open_from(conns, &back, count, 1, (unsigned)number("back_at_once", count), 60);
    double opened_after = now() - start;
    while (whole < count) {
        pump(100);
        if (now() - start > 60) fail("%u of %u clients are whole after 60 seconds", whole, count);
    }
    double took = now() - start;
    printf("{\"seconds\": %.3f, \"open_after\": %.3f, \"rate\": %.1f, \"load_cpu\": %.3f, \"server_cpu\": %.3f}\n", took,
           opened_after, count / took, (own_cpu() - own) / took, cpu_of(text("pids", "")) - cpu);
}
