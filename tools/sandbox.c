#include "sandbox.h"

#include "child.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { TIMEOUT_MS = 10000, START_MS = 5000 };

/// Reads the limits, a word and then the program from standard input. The word is written to what was standard output only after the
/// program's last line, so that a program that ends itself early has not passed. Limits cannot be raised again.
static const char bootstrap[] =
    "import os, resource as r, sys\n"
    "seconds, memory, word = sys.stdin.readline().split()\n"
    "source = sys.stdin.read()\n"
    "for what, most in ((r.RLIMIT_CPU, int(seconds)), (r.RLIMIT_AS, int(memory)), (r.RLIMIT_FSIZE, 1 << 26), (r.RLIMIT_CORE, 0),\n"
    "                   (r.RLIMIT_NOFILE, 256), (r.RLIMIT_NPROC, 64)):\n"
    "    r.setrlimit(what, (most, most))\n"
    "told = os.dup(1)\n"
    "null = os.open(os.devnull, os.O_RDWR)\n"
    "os.dup2(null, 0)\n"
    "os.dup2(null, 1)\n"
    "def run():\n"
    "    exec(compile(source, 'answer.py', 'exec'), {'__name__': '__main__'})\n"
    "run()\n"
    "os.write(told, word.encode())\n"
    "os._exit(0)\n";

/// What the self-test runs: all of it has to hold.
static const char self_test[] = "import os, socket\n"
                                "with open('/tmp/here', 'w') as f: f.write('x')\n"
                                "for path in ('/zsigma-test', '/usr/zsigma-test', '/etc/zsigma-test', '/root/zsigma-test', "
                                "'/home/zsigma-test', '/var/tmp/zsigma-test'):\n"
                                "    try: open(path, 'w').close()\n"
                                "    except OSError: continue\n"
                                "    raise SystemExit('writes to ' + path)\n"
                                "try:\n"
                                "    socket.create_connection(('1.1.1.1', 53), 1)\n"
                                "    raise SystemExit('reaches the network')\n"
                                "except OSError: pass\n"
                                "assert len(socket.if_nameindex()) <= 1, 'sees network interfaces'\n";

/// bubblewrap's arguments up to the program.
static const char *const walls[] = {
    "bwrap",
    "--unshare-all",
    "--unshare-user",
    "--die-with-parent",
    "--new-session",
    "--cap-drop",
    "ALL",
    "--uid",
    "65534",
    "--gid",
    "65534",
    "--clearenv",
    "--setenv",
    "PATH",
    "/usr/bin",
    "--setenv",
    "LANG",
    "C.UTF-8",
    "--ro-bind",
    "/usr",
    "/usr",
    "--symlink",
    "usr/bin",
    "/bin",
    "--symlink",
    "usr/lib",
    "/lib",
    "--symlink",
    "usr/lib64",
    "/lib64",
    "--ro-bind-try",
    "/etc/alternatives",
    "/etc/alternatives",
    "--ro-bind-try",
    "/etc/ld.so.cache",
    "/etc/ld.so.cache",
    "--dev",
    "/dev",
    "--size",
    "67108864",
    "--tmpfs",
    "/tmp",
    "--remount-ro",
    "/",
    "--chdir",
    "/tmp",
};
enum { WALLS = sizeof walls / sizeof *walls };

static bool make_word(char *word, size_t size) {
    unsigned char bytes[16] = {0};
    FILE *random = fopen("/dev/urandom", "rb");
    bool good = random && fread(bytes, sizeof bytes, 1, random) == 1 && size > 2 * sizeof bytes;
    if (random) fclose(random);
    for (size_t i = 0; i < sizeof bytes && good; i++) snprintf(word + 2 * i, 3, "%02x", bytes[i]);
    return good;
}

static char *make_input(const sandbox *box, const char *word, const char *program) {
    size_t size = strlen(program) + strlen(word) + 64;
    char *input = malloc(size);
    if (input) snprintf(input, size, "%u %llu %s\n%s", box->timeout_ms / 1000 + 1, (unsigned long long)box->memory, word, program);
    return input;
}

/// The last line that says something.
static void last_line(char *text, char *line, size_t size) {
    size_t length = strlen(text);
    while (length > 0 && strchr("\n\r ", text[length - 1])) text[--length] = 0;
    const char *begin = strrchr(text, '\n');
    snprintf(line, size, "%s", begin ? begin + 1 : text);
}

static void tell(child_result *r, char *reason, size_t size) {
    char line[256];
    last_line(r->errors, line, sizeof line);
    if (r->timed_out)
        snprintf(reason, size, "timed out after %.0f ms", r->ms);
    else if (r->exit_status < 0)
        snprintf(reason, size, "killed by a signal");
    else if (r->exit_status == 0)
        snprintf(reason, size, "ended before its last line");
    else
        snprintf(reason, size, "exit status %d%s%s", r->exit_status, *line ? ": " : "", line);
}

zs_status sandbox_run(const sandbox *box, const char *program, bool *passed, char *reason, size_t size, zs_error *error) {
    const char *argv[WALLS + 8];
    size_t n = 0;
    for (size_t i = 0; i < WALLS && !box->unsafe_code; i++) argv[n++] = walls[i];
    argv[n++] = box->python;
    argv[n++] = "-I";
    argv[n++] = "-c";
    argv[n++] = bootstrap;
    argv[n] = NULL;
    char word[64], folder[] = "/tmp/zsigma-XXXXXX";
    if (!make_word(word, sizeof word)) return zs_error_set(error, ZS_ERROR_IO, "cannot read /dev/urandom");
    char *input = make_input(box, word, program);
    if (!input) return zs_error_set(error, ZS_ERROR_MEMORY, "out of memory for a program");
    if (box->unsafe_code && !mkdtemp(folder)) {
        free(input);
        return zs_error_set(error, ZS_ERROR_IO, "cannot make a folder in /tmp: %s", strerror(errno));
    }
    child_result result;
    zs_status status = child_run(&(child_params){.argv = argv,
                                                 .input = input,
                                                 .input_size = strlen(input),
                                                 .folder = box->unsafe_code ? folder : "/",
                                                 .timeout_ms = box->timeout_ms,
                                                 .as_nobody = box->as_nobody},
                                 &result, error);
    free(input);
    if (box->unsafe_code) { // what the program left there
        const char *const remove[] = {"rm", "-rf", "--", folder, NULL};
        child_result removed;
        child_run(&(child_params){.argv = remove, .timeout_ms = START_MS}, &removed, NULL);
    }
    if (status) return status;
    *passed = result.exit_status == 0 && strcmp(result.output, word) == 0;
    *reason = 0;
    if (!*passed) tell(&result, reason, size);
    return ZS_OK;
}

static zs_status refuse(const char *reason, zs_error *error) {
    return zs_error_set(
        error, ZS_ERROR_UNSUPPORTED,
        "generated code cannot be run safely here: bubblewrap says \"%s\"; install it (apt-get install bubblewrap), and where the "
        "system forbids user namespaces (Ubuntu: sysctl kernel.apparmor_restrict_unprivileged_userns=0) allow them, or give "
        "--unsafe-code to run it without protection",
        reason);
}

zs_status sandbox_open(sandbox *box, zs_error *error) {
    char reason[256] = "";
    bool passed = false;
    if (!box->python) box->python = "/usr/bin/python3";
    if (!box->timeout_ms) box->timeout_ms = TIMEOUT_MS;
    if (!box->memory) box->memory = (uint64_t)1 << 30;
    if (access(box->python, X_OK))
        return zs_error_set(error, ZS_ERROR_UNSUPPORTED, "generated code needs Python: there is no %s (apt-get install python3)",
                            box->python);
    sandbox test = *box;
    if (test.timeout_ms < START_MS) test.timeout_ms = START_MS;
    if (box->unsafe_code) {
        zs_status status = sandbox_run(&test, "x = 1\n", &passed, reason, sizeof reason, error);
        if (status || passed) return status;
        return zs_error_set(error, ZS_ERROR_UNSUPPORTED, "generated code cannot be run: %s", reason);
    }
    // Not as root where that works: the number of root's processes has no limit.
    for (int attempt = geteuid() == 0 ? 0 : 1; attempt < 2 && !passed; attempt++) {
        box->as_nobody = test.as_nobody = attempt == 0;
        zs_status status = sandbox_run(&test, self_test, &passed, reason, sizeof reason, error);
        if (status) return status;
    }
    if (passed) return ZS_OK;
    return refuse(strcmp(reason, "exit status 127") == 0 ? "command not found" : reason, error);
}
