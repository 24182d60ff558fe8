/* Connections: TCP or TLS, bare bytes or WebSocket frames (RFC 6455). */
#include "load.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#ifdef WITH_TLS
#include <openssl/ssl.h>
#endif

int epoll = -1;
unsigned char buffer[READ_SIZE];
void (*on_payload)(struct conn *, unsigned char *, size_t);
void (*on_open)(struct conn *);
void (*on_count)(struct conn *, uint64_t, uint64_t);

#define SEEN 4096 /* bytes kept of what comes before a connection is open */
#define PER_SOURCE 8000 /* connections from one loopback address, which has about 28,000 ports */

static void watch(struct conn *c, int change) {
    struct epoll_event event = {.events = EPOLLIN | (c->out_length || c->state == CONNECTING ? EPOLLOUT : 0)};
    event.data.ptr = c;
    epoll_ctl(epoll, change, c->fd, &event);
}

#ifdef WITH_TLS
static void start_tls(struct conn *c) {
    static SSL_CTX *context;
    if (!context) {
        context = SSL_CTX_new(TLS_client_method());
        SSL_CTX_set_mode(context, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    }
    c->ssl = SSL_new(context);
    SSL_set_fd(c->ssl, c->fd);
    SSL_set_connect_state(c->ssl);
}
#endif

void start_connect(struct conn *c, const struct spec *s, unsigned channel) {
    static unsigned opened;
    char *seen = c->seen ? c->seen : malloc(SEEN + 1), *out = c->out;
    size_t room = c->out_room;
    memset(c, 0, sizeof *c);
    c->seen = seen, c->out = out, c->out_room = room;
    c->spec = s, c->channel = channel, c->state = CONNECTING, c->started = now();
    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (c->fd < 0) fail("socket: %s", strerror(errno));
    int on = 1;
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    setsockopt(c->fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &on, sizeof on);
    struct sockaddr_in here = {.sin_family = AF_INET}, there = here;
    here.sin_addr.s_addr = htonl(0x7f000001u + opened++ / PER_SOURCE % 250);
    if (bind(c->fd, (struct sockaddr *)&here, sizeof here)) fail("bind: %s", strerror(errno));
    there.sin_port = htons((uint16_t)number("port", 0));
    there.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (connect(c->fd, (struct sockaddr *)&there, sizeof there) && errno != EINPROGRESS)
        fail("connect: %s", strerror(errno));
#ifdef WITH_TLS
    if (s->tls) start_tls(c);
#else
    if (s->tls) fail("built without TLS: the headers of OpenSSL (libssl-dev) are missing");
#endif
    watch(c, EPOLL_CTL_ADD);
}

void drop(struct conn *c) {
    if (c->state == DEAD) return;
#ifdef WITH_TLS
    if (c->ssl) SSL_free(c->ssl);
#endif
    c->ssl = NULL;
    close(c->fd);
    c->state = DEAD;
    c->out_length = 0;
}

/* Returns bytes read or written, 0 for "not now", -1 for the end. */
static ssize_t raw_read(struct conn *c) {
    ssize_t n;
#ifdef WITH_TLS
    if (c->ssl) {
        n = SSL_read(c->ssl, buffer, sizeof buffer);
        if (n > 0) return n;
        int error = SSL_get_error(c->ssl, (int)n);
        return error == SSL_ERROR_WANT_READ || error == SSL_ERROR_WANT_WRITE ? 0 : -1;
    }
#endif
    n = recv(c->fd, buffer, sizeof buffer, 0);
    if (n > 0) return n;
    return n < 0 && errno == EAGAIN ? 0 : -1;
}

static ssize_t raw_write(struct conn *c, const void *data, size_t length) {
    ssize_t n;
#ifdef WITH_TLS
    if (c->ssl) {
        n = SSL_write(c->ssl, data, (int)length);
        if (n > 0) return n;
        int error = SSL_get_error(c->ssl, (int)n);
        return error == SSL_ERROR_WANT_READ || error == SSL_ERROR_WANT_WRITE ? 0 : -1;
    }
#endif
    n = send(c->fd, data, length, MSG_NOSIGNAL);
    return n < 0 ? (errno == EAGAIN ? 0 : -1) : n;
}

void push(struct conn *c, const void *data, size_t length) {
    if (c->state == DEAD) return;
    if (!c->out_length && c->state != CONNECTING) {
        ssize_t n = raw_write(c, data, length);
        if (n < 0) return; /* the next read says why */
        data = (const char *)data + n;
        length -= (size_t)n;
    }
    if (!length) return;
    if (c->out_length + length > c->out_room) {
        c->out_room = (c->out_length + length) * 2;
        c->out = realloc(c->out, c->out_room);
    }
    memcpy(c->out + c->out_length, data, length);
    c->out_length += length;
    watch(c, EPOLL_CTL_MOD);
}

static int flush(struct conn *c) {
    ssize_t n = raw_write(c, c->out, c->out_length);
    if (n < 0) return 0;
    memmove(c->out, c->out + n, c->out_length - (size_t)n);
    c->out_length -= (size_t)n;
    if (!c->out_length) watch(c, EPOLL_CTL_MOD);
    return 1;
}

/* A client's frame, masked as section 5.3 demands. The mask is the same each time. */
static size_t frame(char **into, unsigned char opcode, const char *data, size_t length) {
    static const unsigned char mask[4] = {0x5a, 0xc3, 0x17, 0x9e};
    unsigned char *out = malloc(length + 14), *p = out;
    *p++ = 0x80 | opcode;
    if (length < 126) {
        *p++ = 0x80 | (unsigned char)length;
    } else if (length < 65536) {
        *p++ = 0x80 | 126;
        *p++ = (unsigned char)(length >> 8);
        *p++ = (unsigned char)length;
    } else {
        *p++ = 0x80 | 127;
        for (int shift = 56; shift >= 0; shift -= 8) *p++ = (unsigned char)((uint64_t)length >> shift);
    }
    memcpy(p, mask, 4);
    p += 4;
    for (size_t i = 0; i < length; i++) *p++ = (unsigned char)data[i] ^ mask[i % 4];
    *into = (char *)out;
    return (size_t)(p - out);
}

size_t encode(const struct spec *s, char **into, const char *data, size_t length) {
    if (s->websocket) return frame(into, s->binary ? 2 : 1, data, length);
    *into = memcpy(malloc(length + 1), data, length);
    return length;
}

static void greet(struct conn *c) {
    char *hello, *bytes;
    size_t length = expand(&hello, c->spec->hello, c->channel);
    c->state = GREETING;
    if (length) {
        length = encode(c->spec, &bytes, hello, length);
        push(c, bytes, length);
        free(bytes);
    }
    free(hello);
    if (!*c->spec->expect) become_ready(c);
}

static void begin(struct conn *c) {
    if (!c->spec->websocket) {
        greet(c);
        return;
    }
    char *path, head[2048];
    c->state = UPGRADING;
    expand(&path, c->spec->path, c->channel);
    int length = snprintf(head, sizeof head,
                          "GET %s HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                          "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n",
                          path, (int)number("port", 0));
    free(path);
    push(c, head, (size_t)length);
}

void become_ready(struct conn *c) {
    c->state = OPEN;
    c->seen_length = 0;
    if (on_open) on_open(c);
}

static void remember(struct conn *c, const unsigned char *data, size_t length) {
    if (length > SEEN / 2) data += length - SEEN / 2, length = SEEN / 2;
    if (c->seen_length + length > SEEN) {
        memmove(c->seen, c->seen + c->seen_length - SEEN / 2, SEEN / 2);
        c->seen_length = SEEN / 2;
    }
    memcpy(c->seen + c->seen_length, data, length);
    c->seen_length += (unsigned)length;
    c->seen[c->seen_length] = 0;
}

/* What a server sent as its application's bytes: counts the messages and the replies in it. */
static void payload(struct conn *c, unsigned char *data, size_t length) {
    if (on_payload) {
        on_payload(c, data, length);
        return;
    }
    uint64_t messages = 0, replies = 0;
    unsigned char *p = data, *end = data + length;
    while ((p = memchr(p, MARK, (size_t)(end - p)))) messages++, p++;
    const char *reply = c->spec->reply;
    if (*reply) {
        for (p = data; p < end; p++) {
            if (*p == (unsigned char)reply[c->matched]) c->matched++;
            else c->matched = *p == (unsigned char)reply[0];
            if (!reply[c->matched]) replies++, c->matched = 0;
        }
    }
    c->count += messages;
    c->replies += replies;
    if (c->state == GREETING) {
        remember(c, data, length);
        if (memmem(c->seen, c->seen_length, c->spec->expect, strlen(c->spec->expect))) become_ready(c);
    }
    if ((messages || replies) && on_count) on_count(c, messages, replies);
}

static void control(struct conn *c, unsigned char *data, size_t length) {
    unsigned opcode = c->head[0] & 15;
    if (opcode == 8) fail("a server closed a WebSocket: %u %.*s", length > 1 ? data[0] * 256u + data[1] : 0u,
                          length > 2 ? (int)length - 2 : 0, data + 2);
    if (opcode != 9) return;
    char *bytes;
    size_t size = frame(&bytes, 10, (char *)data, length);
    push(c, bytes, size);
    free(bytes);
}

/* The frames of a server: the header may come in pieces, and so may the payload. */
static void frames(struct conn *c, unsigned char *data, size_t length) {
    while (length) {
        if (c->left) {
            size_t take = c->left < length ? (size_t)c->left : length;
            c->left -= take;
            if (c->head[0] & 8) { /* a control frame has at most 125 bytes: it is taken as whole, which it is on loopback */
                control(c, data, take);
            } else {
                payload(c, data, take);
            }
            data += take, length -= take;
            if (!c->left) c->head_length = 0;
            continue;
        }
        c->head[c->head_length++] = *data++;
        length--;
        if (c->head_length < 2) continue;
        unsigned size = c->head[1] & 127, whole = size < 126 ? 2 : size == 126 ? 4 : 10;
        if (c->head_length < whole) continue;
        c->left = size;
        if (whole > 2) {
            c->left = 0;
            for (unsigned i = 2; i < whole; i++) c->left = c->left << 8 | c->head[i];
        }
        if (!c->left) {
            if (c->head[0] & 8) control(c, data, 0);
            c->head_length = 0;
        }
    }
}

static void upgraded(struct conn *c, unsigned char *data, size_t length) {
    size_t before = c->seen_length;
    remember(c, data, length);
    char *end = strstr(c->seen, "\r\n\r\n");
    if (!end) return;
    if (strncmp(c->seen, "HTTP/1.1 101", 12)) fail("no upgrade: %.200s", c->seen);
    size_t head = (size_t)(end + 4 - c->seen) - before;
    c->seen_length = 0;
    greet(c);
    frames(c, data + head, length - head);
}

int step(struct conn *c, uint32_t events) {
    if (c->state == CONNECTING) {
        int error = 0;
        socklen_t size = sizeof error;
        getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &error, &size);
        if (error) return 0;
        if (!(events & EPOLLOUT)) return !(events & (EPOLLERR | EPOLLHUP));
        c->state = GREETING;
        begin(c);
        watch(c, EPOLL_CTL_MOD);
        return 1;
    }
    if (events & EPOLLOUT && c->out_length && !flush(c)) return 0;
    if (!(events & ~(uint32_t)EPOLLOUT)) return 1;
    for (;;) {
        ssize_t n = raw_read(c);
        if (n < 0) return 0;
        if (!n) break;
        if (c->state == UPGRADING) upgraded(c, buffer, (size_t)n);
        else if (c->spec->websocket) frames(c, buffer, (size_t)n);
        else payload(c, buffer, (size_t)n);
        if (!c->ssl || c->state == DEAD) break; /* what is left is the next event's; TLS has a buffer of its own */
    }
    return 1;
}
