#include "loader/piece_merge.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define SCORES_KEY "tokenizer.ggml.scores"
#define NONE VOCABULARY_NONE

// ---- ranks ---------------------------------------------------------------------------------------------------------

typedef struct scored {
    float score;
    uint32_t id;
} scored;

static int by_score(const void *a, const void *b) {
    const scored *x = a, *y = b;
    if (x->score != y->score) return x->score > y->score ? -1 : 1;
    return (x->id > y->id) - (x->id < y->id);
}

static zs_status out_of_memory(zs_error *error) { return zs_error_set(error, ZS_ERROR_MEMORY, "out of memory for a tokenizer"); }

static zs_status read_scores(const gguf_file *file, uint32_t count, scored *scores, zs_error *error) {
    const gguf_value *value = gguf_find_value(file, SCORES_KEY);
    if (!value || value->type != GGUF_ARRAY || value->count != count)
        return zs_error_set(error, ZS_ERROR_FORMAT, "%s is missing or not a list of %u numbers", SCORES_KEY, count);
    for (uint32_t id = 0; id < count; id++) {
        scores[id].id = id;
        if (!gguf_array_f32(value, id, &scores[id].score) || !isfinite(scores[id].score))
            return zs_error_set(error, ZS_ERROR_FORMAT, "%s: the score of token %u is no finite number", SCORES_KEY, id);
    }
    return ZS_OK;
}

zs_status piece_merge_create_by_score(const gguf_file *file, const vocabulary *vocab, piece_merge *table, zs_error *error) {
    *table = (piece_merge){.vocab = vocab, .ranks = malloc(vocab->count * sizeof *table->ranks)};
    scored *scores = malloc(vocab->count * sizeof *scores);
    zs_status status = table->ranks && scores ? read_scores(file, vocab->count, scores, error) : out_of_memory(error);
    if (status == ZS_OK) {
        qsort(scores, vocab->count, sizeof *scores, by_score);
        uint32_t rank = 0;
        for (uint32_t i = 0; i < vocab->count; i++) {
            token_kind kind = vocab->tokens[scores[i].id].kind;
            if (i > 0 && scores[i].score != scores[i - 1].score) rank++;
            table->ranks[scores[i].id] = kind == TOKEN_NORMAL || kind == TOKEN_USER || kind == TOKEN_UNUSED ? rank : NONE;
            table->has_unused |= kind == TOKEN_UNUSED;
        }
    }
    free(scores);
    if (status != ZS_OK) piece_merge_free(table);
    return status;
}

zs_status piece_merge_create_by_rank(const vocabulary *vocab, piece_merge *table, zs_error *error) {
    *table = (piece_merge){.vocab = vocab, .ranks = malloc(vocab->count * sizeof *table->ranks)};
    if (!table->ranks) return out_of_memory(error);
    for (uint32_t id = 0; id < vocab->count; id++) {
        token_kind kind = vocab->tokens[id].kind;
        table->ranks[id] = kind == TOKEN_NORMAL || kind == TOKEN_USER ? id : NONE;
    }
    return ZS_OK;
}

void piece_merge_free(piece_merge *table) {
    free(table->ranks);
    *table = (piece_merge){0};
}

// ---- merging -------------------------------------------------------------------------------------------------------

static bool grow(uint32_t **array, size_t count) {
    uint32_t *grown = realloc(*array, count * sizeof *grown);
    if (grown) *array = grown;
    return grown != NULL;
}

zs_status piece_workspace_reserve(const piece_merge *table, piece_workspace *ws, size_t count, zs_error *error) {
    if (count > PIECE_MAX_PARTS)
        return zs_error_set(error, ZS_ERROR_ARGUMENT, "a piece of %zu characters without a break is too long to tokenise: cut the text",
                            count);
    if (table->has_unused && !ws->seen) {
        ws->left_size = malloc(table->vocab->count * sizeof *ws->left_size);
        ws->seen = calloc(table->vocab->count, sizeof *ws->seen);
        if (!ws->left_size || !ws->seen) return out_of_memory(error);
    }
    if (count <= ws->capacity && ws->capacity) return ZS_OK;
    size_t capacity = count < 256 ? 256 : count + count / 2;
    if (!grow(&ws->starts, capacity + 1) || !grow(&ws->previous, capacity) || !grow(&ws->next, capacity) || !grow(&ws->pair, capacity) ||
        !merge_heap_reserve(&ws->heap, capacity))
        return zs_error_set(error, ZS_ERROR_MEMORY, "no memory to merge a piece of %zu characters", count);
    ws->capacity = (uint32_t)capacity;
    return ZS_OK;
}

static uint32_t end_of(const piece_workspace *ws, uint32_t part, uint32_t count) {
    return ws->starts[ws->next[part] == NONE ? count : ws->next[part]];
}

/// Queues what a part and its next one make, if that is a token.
static void queue_pair(const piece_merge *table, piece_workspace *ws, const char *text, uint32_t left, uint32_t count) {
    uint32_t right = ws->next[left], start = ws->starts[left];
    ws->pair[left] = NONE;
    if (right == NONE) return;
    uint32_t id = vocabulary_find(table->vocab, text + start, end_of(ws, right, count) - start);
    if (id == NONE || table->ranks[id] == NONE) return;
    ws->pair[left] = id;
    merge_heap_push(&ws->heap, table->ranks[id], left);
    if (table->vocab->tokens[id].kind != TOKEN_UNUSED || !table->has_unused) return;
    ws->left_size[id] = ws->starts[right] - start;
    ws->seen[id] = ws->call;
}

/// The part that begins at a place in the text; parts merged away keep their starts.
static uint32_t part_at(const piece_workspace *ws, uint32_t place, uint32_t count) {
    uint32_t low = 0, high = count;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (ws->starts[middle] < place)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

/// Takes unused tokens apart, the way they were last put together.
static void split_unused(const piece_merge *table, piece_workspace *ws, const char *text, uint32_t count) {
    for (uint32_t part = 0; part != NONE;) {
        uint32_t start = ws->starts[part], id = vocabulary_find(table->vocab, text + start, end_of(ws, part, count) - start);
        if (id == NONE || table->vocab->tokens[id].kind != TOKEN_UNUSED || ws->seen[id] != ws->call) {
            part = ws->next[part];
            continue;
        }
        uint32_t right = part_at(ws, start + ws->left_size[id], count);
        ws->next[right] = ws->next[part];
        ws->next[part] = right;
    }
}

size_t piece_merge_apply(const piece_merge *table, piece_workspace *ws, const char *text, size_t parts) {
    uint32_t count = (uint32_t)parts;
    if (count == 0) return 0;
    ws->heap.count = 0;
    ws->call++;
    for (uint32_t i = 0; i < count; i++) {
        ws->previous[i] = i == 0 ? NONE : i - 1;
        ws->next[i] = i + 1 == count ? NONE : i + 1;
    }
    for (uint32_t i = 0; i < count; i++) queue_pair(table, ws, text, i, count);
    while (ws->heap.count > 0) {
        uint64_t key = merge_heap_pop(&ws->heap);
        uint32_t left = (uint32_t)key;
        // Stale when the part or its next one has been merged since; whatever they make now is queued under its own rank.
        if (ws->pair[left] == NONE || table->ranks[ws->pair[left]] != key >> 32) continue;
        uint32_t right = ws->next[left];
        ws->pair[right] = NONE;
        ws->next[left] = ws->next[right];
        if (ws->next[left] != NONE) ws->previous[ws->next[left]] = left;
        queue_pair(table, ws, text, left, count);
        if (ws->previous[left] != NONE) queue_pair(table, ws, text, ws->previous[left], count);
    }
    if (table->has_unused) split_unused(table, ws, text, count);
    uint32_t left_over = 0, end = ws->starts[count];
    for (uint32_t i = 0; i != NONE; i = ws->next[i]) ws->starts[left_over++] = ws->starts[i];
    ws->starts[left_over] = end;
    return left_over;
}

void piece_workspace_free(piece_workspace *ws) {
    free(ws->starts);
    free(ws->previous);
    free(ws->next);
    free(ws->pair);
    free(ws->left_size);
    free(ws->seen);
    merge_heap_free(&ws->heap);
    *ws = (piece_workspace){0};
}
