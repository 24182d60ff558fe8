/* The floor: a loop of send() over all connections, and nothing else. floor PORT

   What one read brought goes to every connection by one send: lines as they came, and frames unmasked. A path of a
   WebSocket's upgrade is not looked at. No limit, no queue, no check: what a kernel takes no more of is dropped. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <signal.h>
#include <unistd.h>

#define MOST 20000

/* The accept value is that of RFC 6455, section 1.3: the load generator always sends that section's key. */
static const char ACCEPT[] = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                             "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
static const char RESPONSE[] = "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello word";

struct peer {
    int fd, websocket, index;
    size_t kept; /* bytes of a frame that is not whole */
    unsigned char rest[2048];
};

static struct peer *peers[MOST];
static int count;
static unsigned char in[262144 + 2048], out[sizeof in];

static void gone(struct peer *p) {
    peers[p->index] = peers[--count];
    peers[p->index]->index = p->index;
    close(p->fd);
    free(p);
}

static void broadcast(int websocket, const void *data, size_t length) {
    for (int i = 0; i < count; i++)
        if (peers[i]->websocket == websocket) send(peers[i]->fd, data, length, MSG_NOSIGNAL | MSG_DONTWAIT);
}

/* Unmasks the whole text frames of `in`, frames them for a client, and keeps the rest. */
static void frames(struct peer *p, size_t length) {
    size_t at = 0, size = 0;
    while (length - at >= 8) {
        size_t payload = in[at + 1] & 127, head = 2;
        if (payload == 126) payload = in[at + 2] << 8 | in[at + 3], head = 4;
        if (length - at < head + 4 + payload) break;
        unsigned char *mask = in + at + head, *data = mask + 4;
        memcpy(out + size, in + at, head);
        out[size + 1] &= 127;
        for (size_t i = 0; i < payload; i++) out[size + head + i] = data[i] ^ mask[i % 4];
        size += head + payload;
        at += head + 4 + payload;
    }
    p->kept = length - at;
    memcpy(p->rest, in + at, p->kept);
    if (size) broadcast(1, out, size);
}

static void serve(struct peer *p) {
    memcpy(in, p->rest, p->kept);
    ssize_t n = recv(p->fd, in + p->kept, 262144, MSG_DONTWAIT);
    if (n <= 0) {
        gone(p);
    } else if (p->websocket) {
        frames(p, p->kept + (size_t)n);
    } else if (n > 4 && !memcmp(in, "GET ", 4)) {
        p->websocket = memmem(in, (size_t)n, "Upgrade", 7) != NULL;
        const char *answer = p->websocket ? ACCEPT : RESPONSE;
        send(p->fd, answer, strlen(answer), MSG_NOSIGNAL);
    } else if (n == 6 && !memcmp(in, "ping\r\n", 6)) {
        send(p->fd, "pong\r\n", 6, MSG_NOSIGNAL);
    } else {
        broadcast(0, in, (size_t)n);
    }
}

int main(int argc, char **argv) {
    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    alarm(600);
    struct sockaddr_in here = {.sin_family = AF_INET};
    here.sin_port = htons((unsigned short)atoi(argc > 1 ? argv[1] : "0"));
    here.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int on = 1, listening = socket(AF_INET, SOCK_STREAM, 0), epoll = epoll_create1(0);
    setsockopt(listening, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(listening, (void *)&here, sizeof here) || listen(listening, 4096)) return perror("floor"), 1;
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = NULL}, events[256];
    epoll_ctl(epoll, EPOLL_CTL_ADD, listening, &event);
    for (;;) {
        int got = epoll_wait(epoll, events, 256, -1);
        for (int i = 0; i < got; i++) {
            if (events[i].data.ptr) {
                serve(events[i].data.ptr);
                continue;
            }
            struct peer *p = calloc(1, sizeof *p);
            p->fd = accept(listening, NULL, NULL);
            setsockopt(p->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
            p->index = count;
            peers[count++] = p;
            struct epoll_event mine = {.events = EPOLLIN, .data.ptr = p};
            epoll_ctl(epoll, EPOLL_CTL_ADD, p->fd, &mine);
        }
    }
}
