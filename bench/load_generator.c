/*
 * Calls a gRPC server over a Unix socket, as fast as the server answers, and prints the durations.
 *
 *     load_generator SOCKET
 *
 * HTTP/2 by hand (RFC 9113, RFC 7541), so that the caller costs next to nothing beside the server.
 * Reads commands, a line each, and answers each with a line of JSON:
 *
 *     kept METHOD N     N calls, one after the other, over one connection that stays open
 *     fresh METHOD N    N times: connect, one call, close
 *     hold METHOD N     N times: connect, one call, and the connection stays open
 *     watch METHOD N    N times: connect, begin a stream, and keep it after its first message
 *
 * A fourth word, `own-pid`, puts this process's pid into each request (field 1, a string), as the
 * sidecar's clients do; without it requests are empty.
 *
 * Every call must bring a message; a refusal brings none, and ends the program.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

enum { DATA = 0, HEADERS = 1, RST_STREAM = 3, SETTINGS = 4, PING = 6, GOAWAY = 7, WINDOW_UPDATE = 8 };
enum { END_STREAM = 1, ACK = 1, END_HEADERS = 4, FRAME_HEADER = 9, MESSAGE_PREFIX = 5 };
enum { MOST_CALLS = 1 << 20, REFILL = 1 << 28, LARGEST_WINDOW = 0x7fffffff, FIRST_WINDOW = 65535 };

struct connection {
    int fd, stream;
    size_t start, end, since_refill;
    unsigned char bytes[1 << 17];
};

static const char *socket_path;
static unsigned char message[32]; /* with its prefix */
static size_t message_size = MESSAGE_PREFIX;
static unsigned took[MOST_CALLS];

static void die(const char *what) {
    fprintf(stderr, "load_generator: %s: %s: %s\n", socket_path, what, strerror(errno));
    exit(1);
}

static long long now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * 1000000000LL + time.tv_nsec;
}

static void put(int fd, const unsigned char *bytes, size_t size) {
    while (size) {
        ssize_t done = write(fd, bytes, size);
        if (done <= 0) die("write");
        bytes += done, size -= (size_t)done;
    }
}

static unsigned char *number(unsigned char *at, unsigned value) {
    *at++ = (unsigned char)(value >> 24), *at++ = (unsigned char)(value >> 16);
    *at++ = (unsigned char)(value >> 8), *at++ = (unsigned char)value;
    return at;
}

static unsigned char *head(unsigned char *at, size_t size, int type, int flags, int stream) {
    *at++ = (unsigned char)(size >> 16), *at++ = (unsigned char)(size >> 8);
    *at++ = (unsigned char)size, *at++ = (unsigned char)type, *at++ = (unsigned char)flags;
    return number(at, (unsigned)stream);
}

static unsigned char *literal(unsigned char *at, const char *text) {
    size_t size = strlen(text);
    *at++ = (unsigned char)size;
    memcpy(at, text, size);
    return at + size;
}

static struct connection *dial(void) {
    struct connection *made = malloc(sizeof *made);
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (!made) die("malloc");
    strncpy(address.sun_path, socket_path, sizeof address.sun_path - 1);
    made->fd = socket(AF_UNIX, SOCK_STREAM, 0);
    made->stream = 1;
    made->start = made->end = made->since_refill = 0;
    if (connect(made->fd, (struct sockaddr *)&address, sizeof address)) die("connect");
    return made;
}

static void hang_up(struct connection *one) {
    close(one->fd);
    free(one);
}

/* The first request of a connection carries its preface, in the same write. */
static void request(struct connection *one, const char *method) {
    unsigned char bytes[512], *at = bytes, *block;
    if (one->stream == 1) {
        memcpy(at, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 24);
        at = head(at + 24, 6, SETTINGS, 0, 0);
        *at++ = 0, *at++ = 4; /* SETTINGS_INITIAL_WINDOW_SIZE */
        at = number(at, LARGEST_WINDOW);
        at = number(head(at, 4, WINDOW_UPDATE, 0, 0), LARGEST_WINDOW - FIRST_WINDOW);
    }
    block = at + FRAME_HEADER;
    unsigned char *end = block;
    *end++ = 0x83, *end++ = 0x86, *end++ = 0x04; /* POST, http, :path = */
    end = literal(end, method);
    *end++ = 0x01; /* :authority */
    end = literal(end, "localhost");
    *end++ = 0x0f, *end++ = 0x10; /* content-type */
    end = literal(end, "application/grpc");
    *end++ = 0x00;
    end = literal(end, "te");
    end = literal(end, "trailers");
    head(at, (size_t)(end - block), HEADERS, END_HEADERS, one->stream);
    end = head(end, message_size, DATA, END_STREAM, one->stream);
    memcpy(end, message, message_size);
    put(one->fd, bytes, (size_t)(end + message_size - bytes));
}

/* Protobuf: the key of field 1 as a string, its length, its bytes; before it the gRPC prefix. */
static void set_message(int with_own_pid) {
    memset(message, 0, sizeof message);
    message_size = MESSAGE_PREFIX;
    if (!with_own_pid) return;
    int digits = sprintf((char *)message + MESSAGE_PREFIX + 2, "%d", (int)getpid());
    message[MESSAGE_PREFIX - 1] = (unsigned char)(digits + 2);
    message[MESSAGE_PREFIX] = 0x0a;
    message[MESSAGE_PREFIX + 1] = (unsigned char)digits;
    message_size += (size_t)(digits + 2);
}

static unsigned char *take(struct connection *one, size_t size) {
    if (sizeof one->bytes - one->start < size) {
        memmove(one->bytes, one->bytes + one->start, one->end - one->start);
        one->end -= one->start, one->start = 0;
    }
    while (one->end - one->start < size) {
        ssize_t more = read(one->fd, one->bytes + one->end, sizeof one->bytes - one->end);
        if (more <= 0) die("the server closed the connection");
        one->end += (size_t)more;
    }
    one->start += size;
    return one->bytes + one->start - size;
}

/* Returns the bytes of the answer's message; of a stream that goes on, those of its first. */
static size_t answer(struct connection *one, int goes_on) {
    size_t found = 0;
    for (;;) {
        unsigned char *top = take(one, FRAME_HEADER), reply[FRAME_HEADER + 8];
        size_t size = (size_t)(top[0] << 16 | top[1] << 8 | top[2]);
        int type = top[3], flags = top[4];
        unsigned char *body = take(one, size);
        if ((type == SETTINGS || type == PING) && !(flags & ACK)) {
            size_t back = type == PING ? 8 : 0;
            memcpy(head(reply, back, type, ACK, 0), body, back);
            put(one->fd, reply, FRAME_HEADER + back);
        }
        if (type == DATA) found += size;
        if (goes_on && found > MESSAGE_PREFIX) break;
        if (type == RST_STREAM || type == GOAWAY) die("the server gave the call up");
        if ((type == DATA || type == HEADERS) && flags & END_STREAM) break;
    }
    if (found <= MESSAGE_PREFIX) die("a call was refused");
    one->since_refill += found;
    if (one->since_refill > REFILL) {
        unsigned char more[FRAME_HEADER + 4];
        number(head(more, 4, WINDOW_UPDATE, 0, 0), (unsigned)one->since_refill);
        put(one->fd, more, sizeof more);
        one->since_refill = 0;
    }
    one->stream += 2;
    return found - MESSAGE_PREFIX;
}

static size_t call(struct connection *one, const char *method) {
    request(one, method);
    return answer(one, 0);
}

static int compare(const void *one, const void *other) {
    unsigned a = *(const unsigned *)one, b = *(const unsigned *)other;
    return (a > b) - (a < b);
}

static void report(size_t calls, long long whole, size_t bytes) {
    qsort(took, calls, sizeof *took, compare);
    printf("{\"calls\": %zu, \"seconds\": %.6f, \"p50\": %.9f, \"p99\": %.9f, \"max\": %.9f, "
           "\"bytes\": %zu}\n",
           calls, (double)whole / 1e9, took[calls / 2] / 1e9, took[calls * 99 / 100] / 1e9,
           took[calls - 1] / 1e9, bytes);
    fflush(stdout);
}

int main(int count, char **words) {
    static struct connection *kept;
    char line[256], what[16], method[128], pid[16];
    size_t calls, bytes = 0;
    if (count != 2) return 2;
    socket_path = words[1];
    signal(SIGPIPE, SIG_IGN); /* a connection that the server closed is named, as all else */
    while (fgets(line, sizeof line, stdin)) {
        int found = sscanf(line, "%15s %127s %zu %15s", what, method, &calls, pid);
        if (found < 3 || !calls || calls > MOST_CALLS) return 2;
        if (found == 4 && strcmp(pid, "own-pid")) return 2;
        set_message(found == 4);
        /* Not for the other commands: the agent would hold a connection that brings no request. */
        if (!kept && !strcmp(what, "kept")) kept = dial();
        long long begun = now(), last = begun;
        for (size_t i = 0; i < calls; i++) {
            if (!strcmp(what, "kept")) {
                bytes = call(kept, method);
            } else {
                struct connection *one = dial();
                request(one, method);
                bytes = answer(one, !strcmp(what, "watch"));
                if (!strcmp(what, "fresh")) hang_up(one);
            }
            long long next = now();
            took[i] = (unsigned)(next - last);
            last = next;
        }
        report(calls, last - begun, bytes);
    }
    return 0;
}
