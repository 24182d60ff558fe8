/* Messages to subscribers: as many as the server can with a number of them in flight, or so many a second. */
#include "load.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/timerfd.h>
#include <unistd.h>

#define RING 65536 /* the most messages of a channel in flight */

/* A message is in flight until all subscribers of its channel have read it, and its reply has come. */
struct channel {
    struct conn **publishers;
    unsigned publisher_count, next, subscribers;
    char **bytes; /* of a publisher: the message, `in_flight` times */
    size_t size;
    uint64_t sent, done, read_by_all, replies;
    unsigned *at;    /* how many subscribers have read so many messages, by count modulo ring */
    double *sent_at; /* by the message's number modulo ring */
    unsigned ring;
};

static struct channel *channels;
static unsigned channel_count, in_flight;
static int measuring, publishing, probing, by_reply, every_delivery;
static uint64_t deliveries, messages_done;
static struct histogram waits;
static double clock_now;

static void publish(struct channel *ch, unsigned count, double at) {
    for (unsigned i = 0; i < count; i++) ch->sent_at[(ch->sent + i) % ch->ring] = at;
    ch->sent += count;
    if (ch->publisher_count == 1) {
        push(ch->publishers[0], ch->bytes[0], ch->size * count);
        return;
    }
    while (count--) {
        push(ch->publishers[ch->next], ch->bytes[0], ch->size);
        ch->next = (ch->next + 1) % ch->publisher_count;
    }
}

static void advance(struct channel *ch) {
    while (ch->read_by_all < ch->sent && !ch->at[ch->read_by_all % ch->ring]) ch->read_by_all++;
    uint64_t done = by_reply && ch->replies < ch->read_by_all ? ch->replies : ch->read_by_all;
    if (done == ch->done) return;
    if (measuring) {
        messages_done += done - ch->done;
        if (!every_delivery)
            for (uint64_t i = ch->done; i < done; i++) record(&waits, clock_now - ch->sent_at[i % ch->ring], 1);
    }
    ch->done = done;
    if (publishing) publish(ch, (unsigned)(ch->done + in_flight - ch->sent), clock_now);
}

static void counted(struct conn *c, uint64_t messages, uint64_t replies) {
    if (probing) return;
    struct channel *ch = &channels[c->channel];
    ch->replies += replies;
    if (c->subscriber && messages) {
        uint64_t before = c->count - messages;
        if (c->count > ch->sent) fail("a subscriber read more messages than were sent");
        if (measuring) {
            deliveries += messages;
            if (every_delivery)
                for (uint64_t i = before; i < c->count; i++) record(&waits, clock_now - ch->sent_at[i % ch->ring], 1);
        }
        ch->at[before % ch->ring]--;
        ch->at[c->count % ch->ring]++;
    }
    advance(ch);
}

static void arrange(struct conn *subscribers, unsigned count, struct conn *others, unsigned publishers) {
    unsigned ring = every_delivery ? RING : 64;
    while (ring <= in_flight * 2) ring *= 2;
    channels = calloc(channel_count, sizeof *channels);
    for (unsigned i = 0; i < channel_count; i++) {
        struct channel *ch = &channels[i];
        ch->ring = ring;
        ch->at = calloc(ring, sizeof *ch->at);
        ch->sent_at = calloc(ring, sizeof *ch->sent_at);
        ch->publishers = calloc(publishers, sizeof *ch->publishers);
        ch->bytes = calloc(1, sizeof *ch->bytes);
    }
    for (unsigned i = 0; i < count; i++) {
        struct channel *ch = &channels[subscribers[i].channel];
        subscribers[i].subscriber = 1;
        ch->subscribers++;
        ch->at[0]++;
        if (!others && ch->publisher_count < publishers) ch->publishers[ch->publisher_count++] = &subscribers[i];
    }
    for (unsigned i = 0; others && i < publishers * channel_count; i++) {
        struct channel *ch = &channels[others[i].channel];
        ch->publishers[ch->publisher_count++] = &others[i];
    }
    for (unsigned i = 0; i < channel_count; i++) {
        struct channel *ch = &channels[i];
        const struct spec *s = ch->publishers[0]->spec;
        char *plain, *once;
        size_t length = expand(&plain, s->message, i);
        ch->size = encode(s, &once, plain, length);
        ch->bytes[0] = malloc(ch->size * in_flight);
        for (unsigned j = 0; j < in_flight; j++) memcpy(ch->bytes[0] + ch->size * j, once, ch->size);
        free(plain);
        free(once);
    }
}

/* Every publisher sends one message, until each subscriber reads them all: then all are subscribed. */
static void probe(struct conn *subscribers, unsigned count) {
    double end = now() + 30;
    for (probing = 1;;) {
        settle(0.35, 20);
        unsigned ready = 0;
        for (unsigned i = 0; i < count; i++) subscribers[i].count = 0;
        for (unsigned i = 0; i < channel_count; i++)
            for (unsigned j = 0; j < channels[i].publisher_count; j++)
                push(channels[i].publishers[j], channels[i].bytes[0], channels[i].size);
        settle(0.35, 20);
        for (unsigned i = 0; i < count; i++) {
            struct channel *ch = &channels[subscribers[i].channel];
            ready += subscribers[i].count == ch->publisher_count;
            subscribers[i].matched = 0;
        }
        if (ready == count) break;
        if (now() > end) fail("only %u of %u subscribers read a message of each publisher", ready, count);
    }
    for (unsigned i = 0; i < count; i++) subscribers[i].count = 0;
    probing = 0;
}

static int ticks(double rate) {
    int timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    long ns = (long)(1e9 / rate);
    struct itimerspec every = {.it_interval = {ns / 1000000000, ns % 1000000000}, .it_value = {0, ns % 1000000000 + 1}};
    timerfd_settime(timer, 0, &every, NULL);
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = NULL};
    epoll_ctl(epoll, EPOLL_CTL_ADD, timer, &event);
    return timer;
}

/* A message is late from when it should have been sent, even if the generator was late, too. */
static void tick(int timer, double rate, double start) {
    static uint64_t due;
    uint64_t times;
    if (read(timer, &times, sizeof times) != sizeof times) return;
    while (publishing && times--) {
        if (channels->sent - channels->done >= RING - 1) fail("65,535 messages wait: the server is too slow");
        publish(channels, 1, start + (double)++due / rate);
    }
}

static void turn(int timer, double rate, double start) {
    static struct epoll_event events[MOST_EVENTS];
    int got = epoll_wait(epoll, events, MOST_EVENTS, 200), ticked = 0;
    clock_now = now();
    for (int i = 0; i < got; i++) {
        struct conn *c = events[i].data.ptr;
        if (!c) ticked = 1;
        else if (!step(c, events[i].events)) fail("the server closed a connection");
        if (every_delivery) clock_now = now();
    }
    if (ticked) tick(timer, rate, start);
}

static void report(unsigned subscribers, double took, double own, double cpu) {
    printf("{\"deliveries_rate\": %.1f, \"messages_rate\": %.1f, \"deliveries\": %lu, \"subscribers\": %u, \"p50\": %.9f,"
           " \"p99\": %.9f, \"max\": %.9f, \"load_cpu\": %.3f, \"server_cpu\": %.3f, \"seconds\": %.3f}\n",
           (double)deliveries / took, (double)messages_done / took, (unsigned long)deliveries, subscribers,
           quantile(&waits, 0.5), quantile(&waits, 0.99), waits.most, own / took, cpu, took);
}

static void measure(double seconds, double warm_up, double rate) {
    const char *pids = text("pids", "");
    int timer = rate > 0 ? ticks(rate) : -1;
    double start = clock_now = now(), began = 0, own = 0, cpu = 0, end = 0;
    publishing = 1;
    for (unsigned i = 0; rate <= 0 && i < channel_count; i++) publish(&channels[i], in_flight, start);
    for (;;) {
        turn(timer, rate, start);
        if (!measuring && !end && clock_now >= start + warm_up) {
            measuring = 1, began = clock_now, own = own_cpu(), cpu = cpu_of(pids);
        } else if (measuring && clock_now >= began + seconds) {
            measuring = publishing = 0, end = clock_now, own = own_cpu() - own, cpu = cpu_of(pids) - cpu;
        } else if (end) {
            unsigned open = 0;
            for (unsigned i = 0; i < channel_count; i++) open += channels[i].done < channels[i].sent;
            if (!open) break;
            if (clock_now > end + 20) fail("messages were lost: %u channels lack some after 20 seconds", open);
        } else if (clock_now > start + seconds + warm_up + 20) {
            fail("no end");
        }
    }
    unsigned subscribers = 0;
    for (unsigned i = 0; i < channel_count; i++) subscribers += channels[i].subscribers;
    report(subscribers, end - began, own, cpu);
}

void stream(void) {
    double rate = number("rate", 0);
    unsigned count = (unsigned)number("connections", 1), publishers = (unsigned)number("publishers", 1);
    in_flight = (unsigned)number("in_flight", 1);
    channel_count = (unsigned)number("channels", 1);
    every_delivery = rate > 0;
    struct conn *subscribers = calloc(count, sizeof *subscribers), *others = NULL;
    static struct spec separate;
    if (*text("publisher.carrier", "")) separate = spec("publisher.");
    open_all(subscribers, count, (unsigned)number("at_once", 50), 120);
    if (separate.message) {
        others = calloc(publishers * channel_count, sizeof *others);
        open_others(others, &separate, publishers * channel_count, channel_count);
    }
    by_reply = *(others ? separate.reply : subscribers[0].spec->reply) != 0;
    arrange(subscribers, count, others, publishers);
    probe(subscribers, count);
    on_count = counted;
    measure(number("seconds", 2), number("warm_up", 0.5), rate);
}
