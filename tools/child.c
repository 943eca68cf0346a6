#include "child.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { NOBODY = 65534, LOOK_MS = 20 };

/// Ends of the pipes that this process holds, −1 where closed.
typedef struct pipes {
    int input[2], output[2], errors[2];
} pipes;

static double now_ms(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e3 + (double)t.tv_nsec * 1e-6;
}

static void close_end(int *end) {
    if (*end >= 0) close(*end);
    *end = -1;
}

static void close_pipes(pipes *p) {
    for (int i = 0; i < 2; i++) {
        close_end(&p->input[i]);
        close_end(&p->output[i]);
        close_end(&p->errors[i]);
    }
}

static bool open_pipe(int ends[2]) {
    if (pipe(ends)) return false;
    return fcntl(ends[0], F_SETFD, FD_CLOEXEC) == 0 && fcntl(ends[1], F_SETFD, FD_CLOEXEC) == 0;
}

/// In the new process, where only what is safe in a signal handler may be called.
static void become(const child_params *params, const pipes *p, const sigset_t *mask) {
    setpgid(0, 0);
    bool ready = dup2(p->input[0], STDIN_FILENO) >= 0 && dup2(p->output[1], STDOUT_FILENO) >= 0 && dup2(p->errors[1], STDERR_FILENO) >= 0;
    if (ready && params->folder) ready = chdir(params->folder) == 0;
    if (ready && params->as_nobody && geteuid() == 0) ready = setgroups(0, NULL) == 0 && setgid(NOBODY) == 0 && setuid(NOBODY) == 0;
    pthread_sigmask(SIG_SETMASK, mask, NULL);
    if (ready) execvp(params->argv[0], (char *const *)(uintptr_t)params->argv);
    _exit(127);
}

/// Appends what a pipe holds to text[size]; what does not fit is dropped. Closes the end when nothing more will come.
static void take(int *end, char *text, size_t size) {
    char bytes[4096];
    ssize_t got = read(*end, bytes, sizeof bytes);
    if (got < 0 && (errno == EINTR || errno == EAGAIN)) return;
    if (got <= 0) {
        close_end(end);
        return;
    }
    size_t used = strlen(text), room = size - 1 - used, count = (size_t)got < room ? (size_t)got : room;
    for (size_t i = 0; i < count; i++) text[used + i] = bytes[i] ? bytes[i] : ' ';
    text[used + count] = 0;
}

static void give(int *end, const child_params *params, size_t *given) {
    ssize_t written = write(*end, params->input + *given, params->input_size - *given);
    if (written > 0) *given += (size_t)written;
    // A program need not read all that it is given (EPIPE).
    if ((written < 0 && errno != EINTR && errno != EAGAIN) || *given == params->input_size) close_end(end);
}

/// Feeds and reads the process until it ended or its time is up.
static void attend(const child_params *params, pid_t pid, pipes *p, child_result *result) {
    double start = now_ms();
    size_t given = 0;
    int status = 0;
    if (params->input_size == 0) close_end(&p->input[1]);
    for (bool ended = false; !ended;) {
        struct pollfd ends[] = {{p->input[1], POLLOUT, 0}, {p->output[0], POLLIN, 0}, {p->errors[0], POLLIN, 0}};
        poll(ends, 3, LOOK_MS); // also when all are closed: closing them is no end
        ended = waitpid(pid, &status, WNOHANG) == pid;
        if (ends[0].revents) give(&p->input[1], params, &given);
        if (ends[1].revents) take(&p->output[0], result->output, sizeof result->output);
        if (ends[2].revents) take(&p->errors[0], result->errors, sizeof result->errors);
        result->timed_out = !ended && now_ms() - start > params->timeout_ms;
        if (result->timed_out) {
            kill(-pid, SIGKILL);
            while (waitpid(pid, &status, 0) < 0 && errno == EINTR) continue;
            ended = true;
        }
    }
    kill(-pid, SIGKILL); // what it left behind
    // What it wrote last; a process that it left elsewhere may hold the pipes open, and is not waited for.
    for (int quiet = 0; !quiet && (p->output[0] >= 0 || p->errors[0] >= 0);) {
        struct pollfd ends[] = {{p->output[0], POLLIN, 0}, {p->errors[0], POLLIN, 0}};
        quiet = poll(ends, 2, 0) <= 0 || now_ms() - start > params->timeout_ms + 1e3;
        if (ends[0].revents) take(&p->output[0], result->output, sizeof result->output);
        if (ends[1].revents) take(&p->errors[0], result->errors, sizeof result->errors);
    }
    result->exit_status = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
    result->ms = now_ms() - start;
}

zs_status child_run(const child_params *params, child_result *result, zs_error *error) {
    memset(result, 0, sizeof *result);
    pipes p = {{-1, -1}, {-1, -1}, {-1, -1}};
    sigset_t pipe_signal, before;
    sigemptyset(&pipe_signal);
    sigaddset(&pipe_signal, SIGPIPE);
    pthread_sigmask(SIG_BLOCK, &pipe_signal, &before); // a program that does not read must not end this one
    pid_t pid = -1;
    if (open_pipe(p.input) && open_pipe(p.output) && open_pipe(p.errors) && fcntl(p.input[1], F_SETFL, O_NONBLOCK) == 0) pid = fork();
    if (pid == 0) become(params, &p, &before);
    zs_status status = ZS_OK;
    if (pid < 0) {
        status = zs_error_set(error, ZS_ERROR_IO, "cannot start %s: %s", params->argv[0], strerror(errno));
    } else {
        setpgid(pid, pid); // whoever is first
        close_end(&p.input[0]);
        close_end(&p.output[1]);
        close_end(&p.errors[1]);
        attend(params, pid, &p, result);
    }
    close_pipes(&p);
    sigtimedwait(&pipe_signal, NULL, &(struct timespec){0, 0});
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return status;
}
