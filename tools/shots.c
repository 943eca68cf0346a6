#include "shots.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/// A question with the instruction behind it; NULL without memory.
static const char *with_instruction(const shots *s, const char *text, shot_question *made) {
    if (!s->instruction) return text;
    size_t size = strlen(text) + strlen(s->instruction) + 2;
    char *longer = malloc(size);
    if (!longer) return NULL;
    snprintf(longer, size, "%s\n%s", text, s->instruction);
    made->texts[made->text_count++] = longer;
    return longer;
}

static bool is_system(const zs_message *message) { return strcmp(message->role, "system") == 0; }

/// An item's messages behind those made so far; the last one gets the instruction.
static bool add_messages(const shots *s, const data_item *item, bool no_system, shot_question *made) {
    size_t before = made->count;
    for (size_t i = 0; i < item->message_count; i++) {
        if (no_system && is_system(&item->messages[i])) continue;
        zs_message *to = &made->messages[made->count];
        *to = item->messages[i];
        if (i + 1 == item->message_count) to->content = with_instruction(s, to->content, made);
        if (!to->content) return false;
        made->count++;
    }
    if (s->images && item->image && made->count > before) {
        made->image_paths[made->question.image_count++] = item->image;
        made->history_images[made->count - 1] = 1;
    }
    return true;
}

zs_status shots_apply(const shots *s, const data_item *item, bool no_system, shot_question *made, zs_error *error) {
    size_t room = item->message_count;
    for (size_t i = 0; i < s->count; i++) room += s->items[i].message_count + 1;
    *made = (shot_question){.messages = calloc(room, sizeof *made->messages),
                            .texts = calloc(s->count + 1, sizeof *made->texts),
                            .image_paths = calloc(s->count + 1, sizeof *made->image_paths),
                            .history_images = calloc(room, sizeof *made->history_images)};
    bool good = made->messages && made->texts && made->image_paths && made->history_images;
    // The question's system message comes first; the examples' are left out.
    bool system = item->message_count > 1 && is_system(&item->messages[0]);
    if (good && system && !no_system && s->count) made->messages[made->count++] = item->messages[0];
    for (size_t i = 0; i < s->count && good; i++) {
        good = add_messages(s, &s->items[i], true, made);
        made->messages[made->count++] = (zs_message){"assistant", s->items[i].answer};
    }
    good = good && add_messages(s, item, no_system || s->count > 0, made);
    if (!good || made->count == 0) {
        shots_free(made);
        return zs_error_set(error, good ? ZS_ERROR_FORMAT : ZS_ERROR_MEMORY, good ? "line %u asks nothing" : "line %u: out of memory",
                            item->line);
    }
    made->question = (zs_question){.text = made->messages[made->count - 1].content,
                                   .history = made->messages,
                                   .history_count = made->count - 1,
                                   .image_count = made->question.image_count,
                                   .history_images = made->history_images};
    return ZS_OK;
}

void shots_free(shot_question *made) {
    for (size_t i = 0; made->texts && i < made->text_count; i++) free(made->texts[i]);
    free(made->texts);
    free(made->messages);
    free(made->image_paths);
    free(made->history_images);
    *made = (shot_question){0};
}

// ---- overlap -------------------------------------------------------------------------------------------------------

static const char *question_of(const data_item *item) { return item->messages[item->message_count - 1].content; }

static int next_word(const char **text) {
    bool space = false;
    while (isspace((unsigned char)**text)) (*text)++, space = true;
    if (!**text) return 0;
    return space ? ' ' : (unsigned char)*(*text)++;
}

/// Order of texts whose runs of white space are one space.
static int compare_texts(const char *a, const char *b) {
    a += strspn(a, " \t\r\n");
    b += strspn(b, " \t\r\n");
    for (;;) {
        int x = next_word(&a), y = next_word(&b);
        if (x != y || !x) return (x > y) - (x < y);
    }
}

static int compare_questions(const void *a, const void *b) { return compare_texts(*(const char *const *)a, *(const char *const *)b); }

size_t shots_overlap(const data_file *data, const data_file *other) {
    const char **sorted = malloc((other->count + 1) * sizeof *sorted);
    size_t both = 0;
    if (!sorted) return 0;
    for (size_t i = 0; i < other->count; i++) sorted[i] = question_of(&other->items[i]);
    qsort(sorted, other->count, sizeof *sorted, compare_questions);
    for (size_t i = 0; i < data->count; i++) {
        const char *question = question_of(&data->items[i]);
        both += bsearch(&question, sorted, other->count, sizeof *sorted, compare_questions) != NULL;
    }
    free(sorted);
    return both;
}
