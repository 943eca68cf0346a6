/// Generated Python as a program with its tests.
#include "score.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct part {
    const char *text;
    size_t length;
} part;

/// Behind a fence's first line.
static const char *block_begin(const char *fence) {
    const char *line = strchr(fence, '\n');
    return line ? line + 1 : NULL;
}

/// The last fenced block that holds something; one that is not closed goes to the end. Without fences: the answer up to where the
/// model went on talking as if asked again.
static part find_code(const char *answer) {
    part code = {answer, strlen(answer)};
    for (const char *at = answer; (at = strstr(at, "```"));) {
        const char *begin = block_begin(at);
        if (!begin) break;
        const char *end = strstr(begin, "```");
        size_t length = end ? (size_t)(end - begin) : strlen(begin);
        if (length > 0) code = (part){begin, length};
        if (!end) break;
        at = end + 3;
    }
    return code;
}

static bool defines(part code, const char *name) {
    char definition[256];
    int length = snprintf(definition, sizeof definition, "def %s", name);
    if (length < 0 || (size_t)length >= sizeof definition) return false;
    for (size_t i = 0; i + (size_t)length < code.length; i++) {
        const char *at = code.text + i;
        bool line_start = i == 0 || at[-1] == '\n';
        if (line_start && memcmp(at, definition, (size_t)length) == 0 && strchr("( :", at[length])) return true;
    }
    return false;
}

char *score_program(const data_item *item, const char *answer) {
    part code = find_code(answer);
    // HumanEval's prompts are an unfinished function; models repeat it or only go on. Its imports and helpers are needed either way.
    const char *prefix = item->code_prefix ? item->code_prefix : "";
    bool whole = item->entry_point && defines(code, item->entry_point);
    size_t prefix_length = strlen(prefix);
    if (whole) { // without the unfinished function: what stands before it
        char definition[256];
        snprintf(definition, sizeof definition, "def %.240s", item->entry_point);
        const char *at = strstr(prefix, definition);
        if (at) prefix_length = (size_t)(at - prefix);
    }
    size_t size = prefix_length + code.length + strlen(item->tests ? item->tests : "") + 16;
    char *program = malloc(size);
    if (program)
        snprintf(program, size, "%.*s%.*s\n\n%s\n", (int)prefix_length, prefix, (int)code.length, code.text,
                 item->tests ? item->tests : "");
    return program;
}
