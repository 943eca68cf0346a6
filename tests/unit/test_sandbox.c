// Generated Python: what passes, what does not, and that neither harms anything. Skipped where bubblewrap cannot work.
#include "tools/sandbox.h"
#include "tools/score.h"
#include "tools/scorer.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static sandbox box = {.timeout_ms = 60000}; // enough on a machine with other work, too
static bool open_box;

static int set_up(void **state) {
    (void)state;
    zs_error error;
    open_box = sandbox_open(&box, &error) == ZS_OK;
    if (!open_box) fprintf(stderr, "%s\n", error.message);
    return 0;
}

/// Runs a program for at most ms; its reason not to pass, "" when it passed.
static const char *run_for(uint32_t ms, const char *program) {
    static char reason[200];
    sandbox short_box = box;
    short_box.timeout_ms = ms;
    bool passed;
    zs_error error;
    if (!open_box) skip();
    if (sandbox_run(&short_box, program, &passed, reason, sizeof reason, &error)) fail_msg("%s", error.message);
    assert_int_equal(passed, *reason == 0);
    return reason;
}

static const char *run(const char *program) { return run_for(box.timeout_ms, program); }

static void test_pass_and_fail(void **state) {
    (void)state;
    assert_string_equal(run("assert 1 + 1 == 2\n"), "");
    assert_string_equal(run("import math, re, collections\nprint('x' * 1000000)\nassert math.gcd(4, 6) == 2\n"), "");
    assert_string_equal(run(""), "");
    assert_string_equal(run("assert 1 + 1 == 3\n"), "exit status 1: AssertionError");
    assert_non_null(strstr(run("def f(:\n"), "SyntaxError"));
    assert_non_null(strstr(run("f()\n"), "NameError"));
}

/// Ending early is no pass, whatever the exit status and whatever is printed.
static void test_ending_early(void **state) {
    (void)state;
    assert_string_not_equal(run("import sys\nsys.exit(0)\n"), "");
    assert_string_not_equal(run("raise SystemExit\n"), "");
    assert_string_equal(run("import os\nos._exit(0)\n"), "ended before its last line");
    assert_string_not_equal(run("import os\nos.kill(os.getpid(), 9)\n"), "");
    assert_string_equal(run("import os\nos.write(1, b'0123456789abcdef0123456789abcdef')\nos._exit(0)\n"), "ended before its last line");
}

static void test_time(void **state) {
    (void)state;
    assert_non_null(strstr(run_for(400, "import time\ntime.sleep(60)\n"), "timed out"));
    assert_non_null(strstr(run_for(400, "while True: pass\n"), "timed out"));
    assert_non_null(
        strstr(run_for(400, "import signal\nsignal.pthread_sigmask(signal.SIG_BLOCK, range(1, 65))\nwhile True: pass\n"), "timed out"));
}

static void test_memory(void **state) {
    (void)state;
    assert_non_null(strstr(run("x = bytearray(4 << 30)\n"), "MemoryError"));
    assert_non_null(strstr(run("x = []\nwhile True: x.append(bytearray(1 << 24))\n"), "MemoryError"));
    assert_non_null(strstr(run("import resource as r\nr.setrlimit(r.RLIMIT_AS, (1 << 40, 1 << 40))\n"), "Error"));
}

/// Whether the mark is on any process's command line.
static bool is_running(const char *mark) {
    static char all[1 << 20];
    FILE *list = popen("cat /proc/[0-9]*/cmdline 2>/dev/null | tr '\\0' ' '", "r");
    assert_non_null(list);
    size_t size = fread(all, 1, sizeof all - 1, list);
    pclose(list);
    all[size] = 0;
    return strstr(all, mark) != NULL;
}

/// A fork bomb ends with its sandbox, and not even a process that detached itself is left.
static void test_forks(void **state) {
    (void)state;
    char mark[64], program[400];
    snprintf(mark, sizeof mark, "zsigma_bomb_%ld", (long)getpid());
    snprintf(program, sizeof program,
             "import os, sys, time\ntry:\n  while True:\n    if os.fork() == 0:\n      os.setsid()\n      os.execv('/usr/bin/python3', "
             "['%s', '-c', "
             "'import time; time.sleep(60)'])\nexcept OSError: pass\ntime.sleep(60)\n",
             mark);
    assert_non_null(strstr(run_for(1500, program), "timed out"));
    // The kernel ends them a moment after their namespace's first process.
    bool left = true;
    for (int attempt = 0; attempt < 100 && left; attempt++) {
        usleep(50000);
        left = is_running(mark);
    }
    assert_false(left);
    assert_string_not_equal(run("import os, time\nfor i in range(1000):\n  if os.fork() == 0:\n    time.sleep(30)\n    os._exit(0)\n"), "");
}

static void test_files(void **state) {
    (void)state;
    static const char victim[] = TEST_OUTPUT "/sandbox-victim";
    char program[600];
    FILE *file = fopen(victim, "w");
    assert_non_null(file);
    fclose(file);
    snprintf(program, sizeof program, "import os\nos.remove('%s')\n", victim);
    assert_string_not_equal(run(program), "");
    snprintf(program, sizeof program, "import shutil\nshutil.rmtree('/', ignore_errors=True)\nshutil.rmtree('%s', ignore_errors=True)\n",
             TEST_OUTPUT);
    run(program);
    assert_int_equal(access(victim, F_OK), 0);
    assert_int_equal(access("/usr/bin/python3", X_OK), 0);
    snprintf(program, sizeof program, "open('%s', 'w')\n", victim);
    assert_string_not_equal(run(program), "");
    assert_string_not_equal(run("open('/etc/x', 'w')\n"), "");
    assert_string_not_equal(run("open('/x', 'w')\n"), "");
    assert_string_equal(run("with open('/tmp/x', 'w') as f: f.write('a')\nassert open('x').read() == 'a'\n"), "");
    assert_string_equal(run("import os\nassert os.listdir('/tmp') == []\n"), ""); // another run's file is gone
    assert_string_not_equal(run("with open('/tmp/x', 'wb') as f:\n  while True: f.write(bytes(1 << 20))\n"), ""); // a disk's worth
}

static void test_network(void **state) {
    (void)state;
    assert_string_not_equal(run("import socket\nsocket.create_connection(('1.1.1.1', 53), 1)\n"), "");
    assert_string_not_equal(run("import socket\nsocket.create_connection(('127.0.0.1', 22), 1)\n"), "");
    assert_string_equal(run("import os\nassert 'HOME' not in os.environ\n"), "");
}

// ---- programs out of answers ---------------------------------------------------------------------------------------

static void test_program(void **state) {
    (void)state;
    static const struct {
        const char *answer, *program;
    } cases[] = {
        {"    return 1\n", "import re\ndef f(x):\n    return 1\n\n\nT\n"},
        {"```python\ndef f(x):\n    return 1\n```\nThis works.", "import re\ndef f(x):\n    return 1\n\n\nT\n"},
        {"Like this:\n```\n    return 2\n```", "import re\ndef f(x):\n    return 2\n\n\nT\n"},
        {"```python\na\n```\nor better\n```python\nb", "import re\ndef f(x):\nb\n\nT\n"},
        {"def fine(x): pass", "import re\ndef f(x):\ndef fine(x): pass\n\nT\n"},
        {"", "import re\ndef f(x):\n\n\nT\n"},
    };
    data_item item = {.answer = "a", .tests = "T", .code_prefix = "import re\ndef f(x):\n", .entry_point = "f"};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char *program = score_program(&item, cases[i].answer);
        assert_string_equal(program, cases[i].program);
        free(program);
    }
    item.code_prefix = item.entry_point = NULL;
    char *program = score_program(&item, "x = 1");
    assert_string_equal(program, "x = 1\n\nT\n");
    free(program);
}

static void test_score(void **state) {
    (void)state;
    if (!open_box) skip();
    static const char line[] = "{\"prompt\": \"p\", \"answer\": \"a\", \"tests\": \"assert f(2) == 4\"}";
    data_item item = {0};
    char reason[100];
    scorer *s = NULL;
    zs_error error;
    double score = -1;
    assert_true(data_item_parse(line, strlen(line), &item, reason, sizeof reason));
    assert_int_equal(scorer_create("code", NULL, &s, &error), ZS_OK);
    assert_int_equal(scorer_score(s, &item, "```python\ndef f(x):\n    return 2 * x\n```", &score, &error), ZS_OK);
    assert_true(score == 1);
    assert_int_equal(scorer_score(s, &item, "```python\ndef f(x):\n    return 3 * x\n```", &score, &error), ZS_OK);
    assert_true(score == 0);
    assert_int_equal(scorer_score(s, &item, "I cannot.", &score, &error), ZS_OK);
    assert_true(score == 0);
    scorer_destroy(&s);
    data_item_free(&item);
}

// ---- without walls -------------------------------------------------------------------------------------------------

static void test_unsafe(void **state) {
    (void)state;
    sandbox bare = {.unsafe_code = true, .timeout_ms = 60000};
    zs_error error;
    bool passed;
    char reason[200];
    assert_int_equal(sandbox_open(&bare, &error), ZS_OK);
    assert_int_equal(sandbox_run(&bare, "assert True\nopen('left', 'w')\n", &passed, reason, sizeof reason, &error), ZS_OK);
    assert_true(passed);
    assert_int_equal(sandbox_run(&bare, "assert False\n", &passed, reason, sizeof reason, &error), ZS_OK);
    assert_false(passed);
}

static void test_refused(void **state) {
    (void)state;
    sandbox none = {.python = "/usr/bin/no-python-here"};
    zs_error error;
    assert_int_equal(sandbox_open(&none, &error), ZS_ERROR_UNSUPPORTED);
    assert_non_null(strstr(error.message, "no /usr/bin/no-python-here"));
    const char *before = getenv("PATH");
    char *path = strdup(before ? before : "");
    setenv("PATH", TEST_OUTPUT, 1); // no bwrap there
    sandbox plain = {0};
    zs_status status = sandbox_open(&plain, &error);
    setenv("PATH", path, 1);
    free(path);
    assert_int_equal(status, ZS_ERROR_UNSUPPORTED);
    assert_non_null(strstr(error.message, "bubblewrap says \"command not found\""));
    assert_non_null(strstr(error.message, "--unsafe-code"));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_pass_and_fail), cmocka_unit_test(test_ending_early), cmocka_unit_test(test_time),
        cmocka_unit_test(test_memory),        cmocka_unit_test(test_forks),        cmocka_unit_test(test_files),
        cmocka_unit_test(test_network),       cmocka_unit_test(test_program),      cmocka_unit_test(test_score),
        cmocka_unit_test(test_unsafe),        cmocka_unit_test(test_refused),
    };
    return cmocka_run_group_tests(tests, set_up, NULL);
}
