/* Copyright: the podnet.ipam contributors
 * SPDX-License-Identifier: Apache-2.0
 *
 * The CNI executable. It knows nothing about addresses: it hands its environment and its standard input to the agent
 * and prints what comes back. Only VERSION, which needs no agent, and "the agent cannot be reached" are answered here:
 * ADD fails and is tried again; DEL, which a runtime may try only once, is left in a spool folder as a tombstone, which is
 * the request itself, for the agent to carry out later.
 *
 * Request:  'P' '1', then each CNI_* variable as KEY=VALUE with a NUL behind it, one more NUL, then standard input as it is;
 *           the end of the request is the end of the stream (half-close).
 * Answer:   one byte, the exit status, then what belongs on standard output; again up to the end of the stream.
 *
 * No buffered output, no allocation, no parser: a program that starts for every pod should cost what starting it costs.
 *
 * shim.py does the same where nothing can be compiled; tests/unit/agent/test_shim.py tests both.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define DEFAULT_SOCKET "/run/podnet-ipam/agent.sock"
#define SOCKET_VARIABLE "PODNET_IPAM_SOCKET"
#define DEFAULT_SPOOL "/var/lib/podnet-ipam/spool"
#define SPOOL_VARIABLE "PODNET_IPAM_SPOOL"
#define PREFIX "CNI_"
/* The specification knows seven such variables. */
#define MOST_PARTS 64

/* Below the two minutes after which a kubelet gives up on a pod sandbox. */
#define ANSWER_TIMEOUT_SECONDS 100
/* A DEL need not wait: a tombstone does as well. */
#define DEL_TIMEOUT_SECONDS 20
/* Socket activation keeps the socket open over an agent's restart; without it a restart takes this long at most. */
#define CONNECT_ATTEMPTS 20
#define CONNECT_PAUSE_NS 100000000L

/* Standard input is kept, as it may be needed a second time. The agent refuses what is longer. */
#define LARGEST_INPUT (4 << 20)

extern char **environ;
static char buffer[65536];
static char input[LARGEST_INPUT];
static size_t input_size;

static const char version_answer[] =
    "{\"cniVersion\":\"1.1.0\",\"supportedVersions\":[\"0.3.1\",\"0.4.0\",\"1.0.0\",\"1.1.0\"]}\n";

/* CNI error 11: try again later, which the runtime does by itself; 50 is what STATUS says when ADD cannot be served. */
static const char error_head[] = "{\"cniVersion\":\"1.0.0\",\"code\":";
static const char error_middle[] = ",\"msg\":\"podnet-ipam: ";
static const char error_tail[] = "\",\"details\":\"see: systemctl status podnet-ipam.socket podnet-ipam.service\"}\n";

static int write_all(int fd, const char *data, size_t size)
{
    while (size > 0) {
        ssize_t n = write(fd, data, size);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return -1;
        data += n;
        size -= (size_t)n;
    }
    return 0;
}

static ssize_t read_some(int fd, char *data, size_t size)
{
    ssize_t n;
    do
        n = read(fd, data, size);
    while (n < 0 && errno == EINTR);
    return n;
}

static int read_input(void)
{
    ssize_t n;
    while ((n = read_some(STDIN_FILENO, input + input_size, sizeof input - input_size)) > 0)
        input_size += (size_t)n;
    return (int)n;
}

static int fail(const char *what, const char *code)
{
    const char *reason = strerror(errno);
    write_all(STDOUT_FILENO, error_head, sizeof error_head - 1);
    write_all(STDOUT_FILENO, code, strlen(code));
    write_all(STDOUT_FILENO, error_middle, sizeof error_middle - 1);
    write_all(STDOUT_FILENO, what, strlen(what));
    write_all(STDOUT_FILENO, ": ", 2);
    write_all(STDOUT_FILENO, reason, strlen(reason));
    write_all(STDOUT_FILENO, error_tail, sizeof error_tail - 1);
    return 1;
}

static const char *variable(const char *name)
{
    size_t length = strlen(name);
    for (char **entry = environ; *entry; entry++)
        if (strncmp(*entry, name, length) == 0 && (*entry)[length] == '=')
            return *entry + length + 1;
    return NULL;
}

static int connect_agent(const char *path, int seconds)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    struct timeval timeout = {.tv_sec = seconds};
    struct timespec pause = {.tv_nsec = CONNECT_PAUSE_NS};

    if (strlen(path) >= sizeof address.sun_path) {
        errno = ENAMETOOLONG;
        return -1;
    }
    memcpy(address.sun_path, path, strlen(path));
    for (int attempt = 0; attempt < CONNECT_ATTEMPTS; attempt++) {
        int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (fd < 0)
            return -1;
        setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof timeout);
        setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &timeout, sizeof timeout);
        if (connect(fd, (struct sockaddr *)&address, sizeof address) == 0)
            return fd;
        int error = errno;
        close(fd);
        errno = error;
        /* EAGAIN: the agent's queue has been full for all of `seconds`. */
        if (error != ECONNREFUSED && error != ENOENT)
            return -1;
        nanosleep(&pause, NULL);
        errno = error;
    }
    return -1;
}

/* In one call if it can be: the agent then finds all of it at once. */
static int write_request(int fd)
{
    struct iovec parts[MOST_PARTS] = {{"P1", 2}};
    int count = 1;

    for (char **entry = environ; *entry; entry++) {
        if (strncmp(*entry, PREFIX, sizeof PREFIX - 1) != 0)
            continue;
        if (count == MOST_PARTS - 2) {
            errno = E2BIG;
            return -1;
        }
        parts[count++] = (struct iovec){*entry, strlen(*entry) + 1};
    }
    parts[count++] = (struct iovec){"", 1};
    parts[count++] = (struct iovec){input, input_size};

    ssize_t written;
    do
        written = writev(fd, parts, count);
    while (written < 0 && errno == EINTR);
    if (written < 0)
        return -1;
    for (int i = 0; i < count; i++) {
        size_t skip = (size_t)written < parts[i].iov_len ? (size_t)written : parts[i].iov_len;
        if (write_all(fd, (char *)parts[i].iov_base + skip, parts[i].iov_len - skip) < 0)
            return -1;
        written -= (ssize_t)skip;
    }
    return 0;
}

/* Print the answer; return its exit status, or -1 when the stream ended before it began. */
static int print_answer(int fd)
{
    int status = -1;
    for (;;) {
        ssize_t n = read_some(fd, buffer, sizeof buffer);
        if (n < 0)
            return -1;
        if (n == 0)
            return status;
        size_t skip = 0;
        if (status < 0) {
            status = (unsigned char)buffer[0];
            skip = 1;
        }
        if (write_all(STDOUT_FILENO, buffer + skip, (size_t)n - skip) < 0)
            return -1;
    }
}

/* Ask the agent. Its exit status, or -1 with errno and `what` said. */
static int ask(const char *path, int seconds, const char **what)
{
    *what = "cannot reach the agent on its socket";
    int fd = connect_agent(path, seconds);
    if (fd < 0)
        return -1;
    *what = "cannot send the request to the agent";
    if (write_request(fd) < 0 || shutdown(fd, SHUT_WR) < 0)
        return -1;
    errno = ECONNRESET;
    int status = print_answer(fd);
    *what = errno == EAGAIN ? "the agent did not answer in time" : "the agent ended before it answered";
    return status;
}

/* Leave the request in the spool folder: written aside, synced and renamed, so that it is there whole or not at all. */
static int leave_tombstone(const char *spool)
{
    struct timespec now;
    char name[64], aside[66];
    int folder = open(spool, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (folder < 0)
        return -1;
    clock_gettime(CLOCK_REALTIME, &now);
    snprintf(name, sizeof name, "%lld-%09ld-%ld", (long long)now.tv_sec, now.tv_nsec, (long)getpid());
    snprintf(aside, sizeof aside, ".%s", name);
    int fd = openat(folder, aside, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0)
        return -1;
    if (write_request(fd) < 0 || fsync(fd) < 0 || renameat(folder, aside, folder, name) < 0) {
        int error = errno;
        unlinkat(folder, aside, 0);
        errno = error;
        return -1;
    }
    return fsync(folder);
}

int main(int argc, char **argv)
{
    const char *command = variable("CNI_COMMAND");
    const char *path = variable(SOCKET_VARIABLE);
    const char *spool = variable(SPOOL_VARIABLE);
    const char *what;

    /* Calico's installer has its calico-ipam carry over what host-local gave out, once; there is nothing of that here. */
    if (argc > 1 && strcmp(argv[1], "-upgrade") == 0)
        return 0;
    if (command && strcmp(command, "VERSION") == 0)
        return write_all(STDOUT_FILENO, version_answer, sizeof version_answer - 1) < 0;

    /* An agent that ends while the request is sent must not end this program. */
    signal(SIGPIPE, SIG_IGN);
    if (read_input() < 0)
        return fail("cannot read standard input", "5");
    int deleting = command && strcmp(command, "DEL") == 0;
    int status = ask(path ? path : DEFAULT_SOCKET, deleting ? DEL_TIMEOUT_SECONDS : ANSWER_TIMEOUT_SECONDS, &what);
    if (status >= 0)
        return status;
    if (deleting && leave_tombstone(spool ? spool : DEFAULT_SPOOL) == 0)
        return 0;
    return fail(what, command && strcmp(command, "STATUS") == 0 ? "50" : "11");
}
