#include "asking.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef struct conversation {
    zs_message *messages; // contents are owned
    size_t count;
    char expert[64]; // of the last turn
} conversation;

static void forget(conversation *c) {
    for (size_t i = 0; i < c->count; i++) free((void *)(uintptr_t)c->messages[i].content);
    free(c->messages);
    *c = (conversation){0};
}

static bool remember(conversation *c, const char *role, const char *content) {
    zs_message *grown = realloc(c->messages, (c->count + 1) * sizeof *grown);
    if (grown) c->messages = grown;
    size_t size = strlen(content) + 1;
    char *copy = grown ? malloc(size) : NULL;
    if (!copy) return false;
    memcpy(copy, content, size);
    c->messages[c->count++] = (zs_message){role, copy};
    return true;
}

/// One question and its answer; a cancelled answer is dropped and the chat goes on.
static int turn(asking *a, const cli_common *common, conversation *c, const char *question) {
    zs_error error;
    zs_answer answer;
    a->params.history = c->messages;
    a->params.history_count = c->count;
    a->params.current = c->expert;
    zs_status status = zs_ask(a->stack.engine, question, &a->params, &answer, &error);
    asking_end_line(a);
    if (status == ZS_ERROR_CANCELLED) {
        if (cli_terminated()) return CLI_FAILED;
        cli_note(common, "stopped; this question and its answer are forgotten");
        return CLI_DONE;
    }
    if (status) {
        cli_error("%s", error.message);
        if (status == ZS_ERROR_CONTEXT) cli_note(common, "/reset starts a new conversation");
        return status == ZS_ERROR_CONTEXT || status == ZS_ERROR_ARGUMENT ? CLI_DONE : CLI_FAILED;
    }
    char summary[1024];
    asking_summary(a, &answer, summary, sizeof summary);
    cli_note(common, cli_colour(STDERR_FILENO) ? "\033[2m%s\033[0m" : "%s", summary);
    snprintf(c->expert, sizeof c->expert, "%s", answer.expert);
    bool kept = remember(c, "user", question) && remember(c, "assistant", answer.text);
    zs_answer_free(&answer);
    if (!kept) cli_error("out of memory");
    return kept ? CLI_DONE : CLI_FAILED;
}

static int chat(asking *a, const cli_common *common) {
    conversation c = {0};
    char *line = NULL;
    size_t capacity = 0;
    bool prompt = isatty(STDIN_FILENO);
    int result = CLI_DONE;
    asking_stream(a);
    if (prompt) cli_note(common, "/reset starts anew, /quit or Ctrl-D ends, Ctrl-C stops an answer");
    while (!result) {
        if (prompt) fputs(cli_colour(STDERR_FILENO) ? "\033[1m> \033[0m" : "> ", stderr);
        ssize_t length = getline(&line, &capacity, stdin);
        if (length < 0) break;
        if (memchr(line, 0, (size_t)length)) {
            cli_error("the line holds a zero byte");
            continue;
        }
        line[strcspn(line, "\r\n")] = 0;
        if (strcmp(line, "/quit") == 0) break;
        if (strcmp(line, "/reset") == 0)
            forget(&c);
        else if (line[0] == '/')
            cli_note(common, "%s is not known; there are /reset and /quit", line);
        else if (line[strspn(line, " \t")])
            result = turn(a, common, &c, line);
        cli_forget_interrupt(); // one that came too late to stop the answer counts no more
    }
    if (prompt) fputc('\n', stderr);
    free(line);
    forget(&c);
    return result;
}

int cmd_chat(int argc, char **argv) {
    cli_common common = {0};
    asking a = {0};
    cli_option options[ASKING_OPTIONS];
    asking_options(&a, options);
    const cli_command command = {"chat",
                                 "-m MODEL [--experts DIR]",
                                 "a conversation; the expert stays while the topic does",
                                 "zsigma chat -m smollm2.gguf --experts assets/experts",
                                 options,
                                 &common};
    int positional;
    bool stop;
    int result = cli_parse(&command, argc, argv, &positional, &stop);
    if (result || stop) return result;
    if (positional) return cli_usage(&command, "chat takes its questions from standard input");
    if (a.plan) return asking_plan(&a, &command);
    if (common.json) return cli_usage(&command, "chat has no --json; ask has");
    result = asking_open(&a, &command);
    if (!result) result = chat(&a, &common);
    asking_close(&a);
    return result;
}
