/* Copyright: the podnet.ipam contributors
 * SPDX-License-Identifier: Apache-2.0
 *
 * The CNI executable. It knows nothing about addresses: it hands its environment and its standard input to the agent
 * and prints what comes back. Only VERSION, which needs no agent, and "the agent cannot be reached" are answered here.
 *
 * Request:  'P' '1', then each CNI_* variable as KEY=VALUE with a NUL behind it, one more NUL, then standard input as it is;
 *           the end of the request is the end of the stream (half-close).
 * Answer:   one byte, the exit status, then what belongs on standard output; again up to the end of the stream.
 *
 * No stdio, no allocation, no parser: a program that starts for every pod should cost what starting it costs.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define DEFAULT_SOCKET "/run/podnet-ipam/agent.sock"
#define SOCKET_VARIABLE "PODNET_IPAM_SOCKET"
#define PREFIX "CNI_"

/* Below the two minutes after which a kubelet gives up on a pod sandbox. */
#define ANSWER_TIMEOUT_SECONDS 100
/* Socket activation keeps the socket open over an agent's restart; without it a restart takes this long at most. */
#define CONNECT_ATTEMPTS 20
#define CONNECT_PAUSE_NS 100000000L

extern char **environ;
static char buffer[65536];

static const char version_answer[] =
    "{\"cniVersion\":\"1.0.0\",\"supportedVersions\":[\"0.3.1\",\"0.4.0\",\"1.0.0\"]}\n";

/* CNI error 11: try again later. The runtime does so by itself. */
static const char error_head[] = "{\"cniVersion\":\"1.0.0\",\"code\":11,\"msg\":\"podnet-ipam: ";
static const char error_tail[] = "\",\"details\":\"see: systemctl status podnet-ipam.socket podnet-ipam.service\"}\n";

static int write_all(int fd, const char *data, size_t size)
{
    while (size > 0) {
        ssize_t n = fd == STDOUT_FILENO ? write(fd, data, size) : send(fd, data, size, MSG_NOSIGNAL);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return -1;
        data += n;
        size -= (size_t)n;
    }
    return 0;
}

static ssize_t read_some(int fd)
{
    ssize_t n;
    do
        n = read(fd, buffer, sizeof buffer);
    while (n < 0 && errno == EINTR);
    return n;
}

static int fail(const char *what)
{
    const char *reason = strerror(errno);
    write_all(STDOUT_FILENO, error_head, sizeof error_head - 1);
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

static int connect_agent(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    struct timeval timeout = {.tv_sec = ANSWER_TIMEOUT_SECONDS};
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
        if (error != ECONNREFUSED && error != ENOENT && error != EAGAIN)
            return -1;
        nanosleep(&pause, NULL);
        errno = error;
    }
    return -1;
}

static int send_request(int fd)
{
    if (write_all(fd, "P1", 2) < 0)
        return -1;
    for (char **entry = environ; *entry; entry++)
        if (strncmp(*entry, PREFIX, sizeof PREFIX - 1) == 0 && write_all(fd, *entry, strlen(*entry) + 1) < 0)
            return -1;
    if (write_all(fd, "", 1) < 0)
        return -1;
    for (;;) {
        ssize_t n = read_some(STDIN_FILENO);
        if (n < 0)
            return -1;
        if (n == 0)
            return shutdown(fd, SHUT_WR);
        if (write_all(fd, buffer, (size_t)n) < 0)
            return -1;
    }
}

/* Print the answer; return its exit status, or -1 when the stream ended before it began. */
static int print_answer(int fd)
{
    int status = -1;
    for (;;) {
        ssize_t n = read_some(fd);
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

int main(void)
{
    const char *command = variable("CNI_COMMAND");
    const char *path = variable(SOCKET_VARIABLE);

    if (command && strcmp(command, "VERSION") == 0)
        return write_all(STDOUT_FILENO, version_answer, sizeof version_answer - 1) < 0;

    int fd = connect_agent(path ? path : DEFAULT_SOCKET);
    if (fd < 0)
        return fail("cannot reach the agent on its socket");
    if (send_request(fd) < 0)
        return fail("cannot send the request to the agent");
    errno = ECONNRESET;
    int status = print_answer(fd);
    if (status < 0)
        return fail(errno == EAGAIN ? "the agent did not answer in time" : "the agent ended before it answered");
    return status;
}
