/* Makes one call to the agent, from its first instruction on, and prints the duration.
 *
 *     caller METHOD FILE
 *
 * One unary call of v1alpha.NetUtil with an empty request, over HTTP/2 by hand (RFC 9113): what
 * a container can do at the earliest, with no runtime to load first and no second try. Writes one
 * line to FILE: nanoseconds from its start to the answer, the answer's bytes in hexadecimal, those
 * of its header blocks. Then it sleeps, holding the connection, until a signal ends it.
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

enum { DATA = 0, HEADERS = 1, SETTINGS = 4, PING = 6, CONTINUATION = 9 };
enum { END_STREAM = 1, ACK = 1, END_HEADERS = 4 };

static unsigned char body[1 << 20], blocks[1 << 16];
static size_t body_size, blocks_size;

static void die(const char *what) {
    perror(what);
    exit(1);
}

static void end(int number) { _exit(number == SIGTERM ? 0 : 1); }

static long long now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * 1000000000LL + time.tv_nsec;
}

static void put(int fd, const void *bytes, size_t size) {
    if (write(fd, bytes, size) != (ssize_t)size) die("write");
}

static void take(int fd, void *bytes, size_t size) {
    for (size_t got = 0; got < size;) {
        ssize_t more = read(fd, (char *)bytes + got, size - got);
        if (more <= 0) die("the agent closed the connection");
        got += (size_t)more;
    }
}

static void frame(int fd, int type, int flags, int stream, const void *bytes, size_t size) {
    unsigned char head[9] = {(unsigned char)(size >> 16), (unsigned char)(size >> 8),
                             (unsigned char)size, (unsigned char)type, (unsigned char)flags,
                             0, 0, 0, (unsigned char)stream};
    put(fd, head, sizeof head);
    if (size) put(fd, bytes, size);
}

static size_t literal(unsigned char *at, const char *text) {
    at[0] = (unsigned char)strlen(text);
    memcpy(at + 1, text, at[0]);
    return at[0] + 1u;
}

/* RFC 7541: fields of the static table, and literals without indexing or Huffman code. */
static void request(int fd, const char *method) {
    unsigned char block[256] = {0x83, 0x86, 0x04}; /* POST, http, :path = */
    char path[128];
    size_t size = 3;
    snprintf(path, sizeof path, "/v1alpha.NetUtil/%s", method);
    size += literal(block + size, path);
    block[size++] = 0x01; /* :authority */
    size += literal(block + size, "localhost");
    block[size++] = 0x0f, block[size++] = 0x10; /* content-type */
    size += literal(block + size, "application/grpc");
    block[size++] = 0x00;
    size += literal(block + size, "te");
    size += literal(block + size, "trailers");
    put(fd, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 24);
    frame(fd, SETTINGS, 0, 0, NULL, 0);
    frame(fd, HEADERS, END_HEADERS, 1, block, size);
    frame(fd, DATA, END_STREAM, 1, "\0\0\0\0\0", 5); /* a message of no bytes */
}

static void keep(unsigned char *all, size_t most, size_t *size, const void *bytes, size_t more) {
    if (*size + more > most) die("the answer is too large");
    memcpy(all + *size, bytes, more);
    *size += more;
}

static void answer(int fd) {
    static unsigned char bytes[1 << 24];
    for (;;) {
        unsigned char head[9];
        take(fd, head, sizeof head);
        size_t size = (size_t)(head[0] << 16 | head[1] << 8 | head[2]);
        take(fd, bytes, size);
        if (head[3] == SETTINGS && !(head[4] & ACK)) frame(fd, SETTINGS, ACK, 0, NULL, 0);
        if (head[3] == PING && !(head[4] & ACK)) frame(fd, PING, ACK, 0, bytes, size);
        if (head[3] == DATA) keep(body, sizeof body, &body_size, bytes, size);
        if (head[3] == HEADERS || head[3] == CONTINUATION)
            keep(blocks, sizeof blocks, &blocks_size, bytes, size);
        if ((head[3] == DATA || head[3] == HEADERS) && head[4] & END_STREAM) return;
    }
}

static void hexadecimal(FILE *file, const unsigned char *bytes, size_t size) {
    fputc(' ', file);
    for (size_t i = 0; i < size; i++) fprintf(file, "%02x", bytes[i]);
    if (!size) fputc('-', file);
}

int main(int count, char **words) {
    long long start = now();
    if (count != 3) return 2;
    signal(SIGTERM, end);
    struct sockaddr_un address = {AF_UNIX, "/etc/netutil/net.sock"};
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    if (connect(fd, (struct sockaddr *)&address, sizeof address)) die("connect");
    request(fd, words[1]);
    answer(fd);
    long long took = now() - start;
    FILE *file = fopen(words[2], "w");
    if (!file) die(words[2]);
    fprintf(file, "%lld", took);
    hexadecimal(file, body, body_size);
    hexadecimal(file, blocks, blocks_size);
    fputc('\n', file);
    fclose(file);
    for (;;) pause();
}
