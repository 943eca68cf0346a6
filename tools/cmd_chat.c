#include "asking.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef struct conversation {
    zs_message *messages; // [count]; contents are owned
    size_t *images_of;    // [count]: how many images each has
    size_t count;
    zs_image **images; // [image_count]: the messages', then those for the next question
    size_t image_count, new_images;
    char expert[64]; // of the last turn
} conversation;

static void forget(conversation *c) {
    for (size_t i = 0; i < c->count; i++) free((void *)(uintptr_t)c->messages[i].content);
    for (size_t i = 0; i < c->image_count; i++) zs_image_destroy(&c->images[i]);
    free(c->messages);
    free(c->images_of);
    free(c->images);
    *c = (conversation){0};
}

static bool remember(conversation *c, const char *role, const char *content, size_t images) {
    zs_message *grown = realloc(c->messages, (c->count + 1) * sizeof *grown);
    if (grown) c->messages = grown;
    size_t *counts = grown ? realloc(c->images_of, (c->count + 1) * sizeof *counts) : NULL;
    if (counts) c->images_of = counts;
    size_t size = strlen(content) + 1;
    char *copy = counts ? malloc(size) : NULL;
    if (!copy) return false;
    memcpy(copy, content, size);
    counts[c->count] = images;
    c->messages[c->count++] = (zs_message){role, copy};
    return true;
}

/// Whether the model can look at the image at all.
static zs_status check_image(const asking *a, const zs_image *image, uint32_t *tokens, zs_error *error) {
    uint32_t width, height, context = zs_engine_get_info(a->stack.engine)->context;
    zs_image_get_size(image, &width, &height);
    zs_status status = zs_model_count_image_tokens(a->stack.model, width, height, tokens, error);
    if (status || *tokens < context) return status;
    return zs_error_set(error, ZS_ERROR_CONTEXT, "the image takes %u tokens, and the context holds %u: raise --ctx", *tokens, context);
}

/// /image FILE: for the next question. One that cannot be used is told, and everything else stays.
static void add_image(const asking *a, const cli_common *common, conversation *c, const char *path) {
    zs_error error;
    zs_image *image = NULL;
    uint32_t tokens = 0;
    zs_status status = zs_image_load(path, &image, &error);
    if (!status) status = check_image(a, image, &tokens, &error);
    zs_image **grown = status ? NULL : realloc(c->images, (c->image_count + 1) * sizeof *grown);
    if (!status && !grown) status = zs_error_set(&error, ZS_ERROR_MEMORY, "out of memory for an image");
    if (status) {
        cli_error("%s", error.message);
        zs_image_destroy(&image);
        return;
    }
    c->images = grown;
    c->images[c->image_count++] = image;
    c->new_images++;
    cli_note(common, "%s (%u tokens) goes with the next question", path, tokens);
}

/// One question and its answer; a cancelled answer is dropped and the chat goes on.
static int turn(asking *a, const cli_common *common, conversation *c, const char *question) {
    zs_error error;
    zs_answer answer;
    a->params.history = c->messages;
    a->params.history_count = c->count;
    a->params.history_images = c->images_of;
    a->params.images = (const zs_image *const *)c->images;
    a->params.image_count = c->image_count;
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
    asking_summary(&answer, summary, sizeof summary);
    cli_note(common, cli_colour(STDERR_FILENO) ? "\033[2m%s\033[0m" : "%s", summary);
    snprintf(c->expert, sizeof c->expert, "%s", answer.expert);
    bool kept = remember(c, "user", question, c->new_images) && remember(c, "assistant", answer.text, 0);
    c->new_images = 0;
    zs_answer_free(&answer);
    if (!kept) cli_error("out of memory");
    return kept ? CLI_DONE : CLI_FAILED;
}

static bool is_blank(char c) { return c == ' ' || c == '\t'; }

/// What follows the command's name on its line, without blanks around it; NULL: it is another command.
static char *argument_of(char *line, const char *name) {
    size_t length = strlen(name), end = strlen(line);
    if (strncmp(line, name, length) != 0 || (line[length] && !is_blank(line[length]))) return NULL;
    while (end > length && is_blank(line[end - 1])) line[--end] = 0;
    return line + length + strspn(line + length, " \t");
}

static void obey(asking *a, const cli_common *common, conversation *c, char *line) {
    const char *path = argument_of(line, "/image");
    if (strcmp(line, "/reset") == 0)
        forget(c);
    else if (path && *path)
        add_image(a, common, c, path);
    else if (path)
        cli_note(common, "which image? /image FILE");
    else
        cli_note(common, "%s is not known; there are /image FILE, /reset and /quit", line);
}

static int chat(asking *a, const cli_common *common) {
    conversation c = {0};
    char *line = NULL;
    size_t capacity = 0;
    bool prompt = isatty(STDIN_FILENO);
    int result = CLI_DONE;
    asking_stream(a);
    if (prompt) cli_note(common, "/image FILE shows a picture, /reset starts anew, /quit or Ctrl-D ends, Ctrl-C stops an answer");
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
        if (line[0] == '/')
            obey(a, common, &c, line);
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
    asking_options(&a, &common, options);
    const cli_command command = {"chat",
                                 "-m MODEL [--experts DIR]",
                                 "a conversation; the expert stays while the topic does; /image FILE shows a picture",
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
