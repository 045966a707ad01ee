/* SPDX-License-Identifier: Apache-2.0
 *
 * Run a CNI plugin many times and print how long each run took, in nanoseconds, one per line.
 *
 *     spawn COMMAND FIRST COUNT PARALLEL PAUSE CONFIG PROGRAM
 *
 * COMMAND is ADD or DEL, for the containers bench-FIRST .. ; CONFIG is the file on standard input; PARALLEL runs go on
 * at once, each followed by PAUSE milliseconds. A program of its own, since starting a process from Python costs more than what is measured.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define MOST_PARALLEL 256

extern char **environ;

struct run {
    pid_t pid;
    long long started;
};

static long long now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static void start(struct run *run, const char *command, int number, const char *config, char *program)
{
    char command_entry[32], id_entry[64], arguments_entry[128];
    char *environment[16];
    int size = 0;
    posix_spawn_file_actions_t actions;

    snprintf(command_entry, sizeof command_entry, "CNI_COMMAND=%s", command);
    snprintf(id_entry, sizeof id_entry, "CNI_CONTAINERID=bench-%d", number);
    snprintf(arguments_entry, sizeof arguments_entry,
             "CNI_ARGS=IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=bench-%d", number);
    environment[size++] = command_entry;
    environment[size++] = id_entry;
    environment[size++] = arguments_entry;
    environment[size++] = "CNI_NETNS=/run/netns/none";
    environment[size++] = "CNI_IFNAME=eth0";
    environment[size++] = "CNI_PATH=/opt/cni/bin";
    for (char **entry = environ; *entry; entry++)
        if (strncmp(*entry, "PODNET_", 7) == 0 && size < 15)
            environment[size++] = *entry;
    environment[size] = NULL;

    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_addopen(&actions, 0, config, O_RDONLY, 0);
    posix_spawn_file_actions_addopen(&actions, 1, "/dev/null", O_WRONLY, 0);
    char *argv[] = {program, NULL};
    run->started = now();
    if (posix_spawn(&run->pid, program, &actions, NULL, argv, environment) != 0) {
        perror(program);
        exit(1);
    }
    posix_spawn_file_actions_destroy(&actions);
}

int main(int argc, char **argv)
{
    if (argc != 8 || atoi(argv[4]) > MOST_PARALLEL) {
        fprintf(stderr, "usage: spawn COMMAND FIRST COUNT PARALLEL PAUSE CONFIG PROGRAM (PARALLEL <= %d)\n",
                MOST_PARALLEL);
        return 2;
    }
    int first = atoi(argv[2]), count = atoi(argv[3]), parallel = atoi(argv[4]);
    struct run runs[MOST_PARALLEL];
    int started = 0, running = 0;
    for (int slot = 0; slot < parallel && started < count; slot++, running++)
        start(&runs[slot], argv[1], first + started++, argv[6], argv[7]);
    while (running > 0) {
        int status, slot = 0;
        pid_t pid = waitpid(-1, &status, 0);
        long long ended = now();
        while (runs[slot].pid != pid)
            slot++;
        if (status != 0) {
            fprintf(stderr, "%s: %s failed with status %d\n", argv[7], argv[1], status);
            return 1;
        }
        printf("%lld\n", ended - runs[slot].started);
        usleep(1000 * atoi(argv[5]));
        if (started < count)
            start(&runs[slot], argv[1], first + started++, argv[6], argv[7]);
        else {
            runs[slot].pid = 0;
            running--;
        }
    }
    return 0;
}
