/* The load generator: one process, one epoll loop, many connections. See ../README.md for its options. */
#ifndef LOAD_H
#define LOAD_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <stddef.h>
#include <stdint.h>
#include <sys/epoll.h>

#define MARK '~'          /* stands once in every message, and in nothing else that a server sends */
#define READ_SIZE 262144  /* bytes of one read */
#define MOST_EVENTS 1024

/* -- how a kind of connection is opened, and how it publishes: text from the command line, '@' is the channel's number */
struct spec {
    int websocket;       /* frames, after an upgrade of `path`; otherwise bare bytes */
    int tls;             /* through TLS */
    int binary;          /* frames are binary */
    const char *path;    /* of the upgrade */
    const char *hello;   /* sent first; "" for nothing */
    const char *expect;  /* the connection is open once this was read; "" for at once */
    const char *message; /* one publication */
    const char *reply;   /* stands once in the reply to each publication; "" for no replies */
};

enum state { CONNECTING, UPGRADING, GREETING, OPEN, DEAD };

struct conn {
    int fd;
    enum state state;
    const struct spec *spec;
    unsigned channel;
    int subscriber;        /* its messages count */
    uint64_t count;        /* messages read */
    uint64_t replies;      /* replies read */
    uint64_t left;         /* bytes of the present frame that are still to come */
    unsigned char head[14];
    unsigned head_length, matched;
    char *seen;            /* what came before it was open, its end */
    unsigned seen_length;
    char *out;             /* what the kernel has not taken yet */
    size_t out_length, out_room;
    void *ssl;
    double started;
    uint64_t want;         /* see request.c: what is left of a body */
    int stage;
    struct conn *next;     /* see opening.c */
};

/* -- options.c */
void options(int argc, char **argv);
const char *text(const char *name, const char *otherwise);
double number(const char *name, double otherwise);
struct spec spec(const char *prefix);
size_t expand(char **into, const char *pattern, unsigned channel); /* with its '@' replaced */
_Noreturn void fail(const char *format, ...);
double now(void);
double cpu_of(const char *pids); /* seconds of CPU of processes, by comma; "" for 0 */
double own_cpu(void);

/* -- a histogram of seconds, to 1.6 % */
#define BUCKETS (64 * 64)
struct histogram {
    uint64_t count[BUCKETS], total;
    double most;
};
void record(struct histogram *h, double seconds, uint64_t times);
double quantile(const struct histogram *h, double share);

/* -- net.c */
extern int epoll;
extern unsigned char buffer[READ_SIZE];
void start_connect(struct conn *c, const struct spec *s, unsigned channel);
void drop(struct conn *c);                                    /* closes at once */
int step(struct conn *c, uint32_t events);                    /* serves one event: 0 when the server closed it */
void push(struct conn *c, const void *data, size_t length);   /* sends, or keeps what the kernel does not take */
size_t encode(const struct spec *s, char **into, const char *data, size_t length); /* data, or a frame of it */
extern void (*on_payload)(struct conn *, unsigned char *, size_t); /* in place of counting marks, if set */
void become_ready(struct conn *c);
extern void (*on_open)(struct conn *);
extern void (*on_count)(struct conn *, uint64_t messages, uint64_t replies);

/* -- opening.c */
int pump(int milliseconds); /* serves what there is, waits at most so long for it; how many events */
void settle(double quiet, double patience); /* until nothing came for `quiet` seconds */
void close_all(struct conn *conns, unsigned count);
void open_others(struct conn *conns, const struct spec *s, unsigned count, unsigned channels);
void open_all(struct conn *conns, unsigned count, unsigned at_once, double patience);

/* -- the modes: each writes one line of JSON */
void stream(void);   /* stream.c */
void request(void);  /* request.c */
void openings(void); /* opening.c */
void hold(void);
void storm(void);
#endif
