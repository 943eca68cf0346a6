#include "loader/bpe.h"

#include <stdlib.h>
#include <string.h>

#define MERGES_KEY "tokenizer.ggml.merges"
#define NONE UINT32_MAX

static uint32_t hash_pair(uint32_t left, uint32_t right) {
    uint64_t hash = ((uint64_t)left << 32 | right) * 0x9E3779B97F4A7C15u;
    return (uint32_t)(hash >> 32 ^ hash >> 15);
}

// The slot that holds the pair, or the empty one where it belongs.
static uint32_t hash_slot(const bpe *table, uint32_t left, uint32_t right) {
    uint32_t slot = hash_pair(left, right) & table->hash_mask;
    while (table->hash[slot] != NONE) {
        const bpe_merge *merge = &table->merges[table->hash[slot]];
        if (merge->left == left && merge->right == right) break;
        slot = (slot + 1) & table->hash_mask;
    }
    return slot;
}

// ---- reading -------------------------------------------------------------------------------------------------------

// "left right" → ids; joined is scratch for the result's spelling.
static zs_status read_merge(const vocabulary *vocab, uint32_t rank, gguf_string text, char *joined, bpe_merge *merge, zs_error *error) {
    const char *space = text.size == 0 ? NULL : memchr(text.data, ' ', text.size);
    if (space == NULL || text.size > 2 * (size_t)vocab->longest + 1) {
        return zs_error_set(error, ZS_ERROR_FORMAT, "%s: merge %u is not two tokens of the vocabulary", MERGES_KEY, rank);
    }
    size_t left = (size_t)(space - text.data), right = text.size - left - 1;
    memcpy(joined, text.data, left);
    memcpy(joined + left, space + 1, right);
    merge->left = vocabulary_find(vocab, text.data, left);
    merge->right = vocabulary_find(vocab, space + 1, right);
    merge->result = vocabulary_find(vocab, joined, left + right);
    if (merge->left == VOCABULARY_NONE || merge->right == VOCABULARY_NONE || merge->result == VOCABULARY_NONE) {
        return zs_error_set(error, ZS_ERROR_FORMAT, "%s: merge %u names tokens that the vocabulary lacks", MERGES_KEY, rank);
    }
    return ZS_OK;
}

static zs_status read_merges(const gguf_value *value, const vocabulary *vocab, char *joined, bpe *table, zs_error *error) {
    size_t cursor = 0;
    gguf_string text;
    uint32_t rank = 0;
    for (; rank < table->count && gguf_array_next_string(value, &cursor, &text); rank++) {
        bpe_merge *merge = &table->merges[rank];
        zs_status status = read_merge(vocab, rank, text, joined, merge, error);
        if (status != ZS_OK) return status;
        uint32_t slot = hash_slot(table, merge->left, merge->right);
        if (table->hash[slot] != NONE) {
            return zs_error_set(error, ZS_ERROR_FORMAT, "%s: merges %u and %u are the same", MERGES_KEY, table->hash[slot], rank);
        }
        if (vocab->tokens[merge->result].kind != TOKEN_CONTROL) table->hash[slot] = rank;
    }
    if (rank != table->count) return zs_error_set(error, ZS_ERROR_FORMAT, "%s: the list ends at merge %u", MERGES_KEY, rank);
    return ZS_OK;
}

zs_status bpe_create(const gguf_file *file, const vocabulary *vocab, bpe *table, zs_error *error) {
    const gguf_value *value = gguf_find_value(file, MERGES_KEY);
    memset(table, 0, sizeof *table);
    if (value == NULL || value->type != GGUF_ARRAY || (value->element_type != GGUF_STRING && value->count > 0)) {
        return zs_error_set(error, ZS_ERROR_FORMAT, "%s is missing or not a list of strings", MERGES_KEY);
    }
    if (value->count > VOCABULARY_MAX_TOKENS) {
        return zs_error_set(error, ZS_ERROR_FORMAT, "%s has %llu entries; at most %d are allowed", MERGES_KEY,
                            (unsigned long long)value->count, VOCABULARY_MAX_TOKENS);
    }
    table->count = (uint32_t)value->count;
    uint32_t slots = 2;
    while (slots < 2 * table->count) slots *= 2;
    table->hash_mask = slots - 1;
    table->merges = malloc((table->count + 1u) * sizeof *table->merges);
    table->hash = malloc(slots * sizeof *table->hash);
    char *joined = malloc(2 * (size_t)vocab->longest + 1);
    zs_status status;
    if (table->merges == NULL || table->hash == NULL || joined == NULL) {
        status = zs_error_set(error, ZS_ERROR_MEMORY, "no memory for %u merges", table->count);
    } else {
        memset(table->hash, 0xFF, slots * sizeof *table->hash);
        status = read_merges(value, vocab, joined, table, error);
    }
    free(joined);
    if (status != ZS_OK) bpe_free(table);
    return status;
}

void bpe_free(bpe *table) {
    free(table->merges);
    free(table->hash);
    memset(table, 0, sizeof *table);
}

// ---- merging -------------------------------------------------------------------------------------------------------

static zs_status workspace_reserve(bpe_workspace *workspace, uint32_t count, zs_error *error) {
    if (count <= workspace->capacity) return ZS_OK;
    uint32_t capacity = count < 256 ? 256 : count;
    uint32_t *links = realloc(workspace->links, 2 * (size_t)capacity * sizeof *links);
    if (links != NULL) workspace->links = links;
    if (links == NULL || !merge_heap_reserve(&workspace->heap, capacity)) {
        return zs_error_set(error, ZS_ERROR_MEMORY, "no memory to merge a piece of %u bytes", count);
    }
    workspace->capacity = capacity;
    return ZS_OK;
}

// Queues the merge of the tokens at left and right, if there is one.
static void queue_pair(const bpe *table, bpe_workspace *workspace, const uint32_t *ids, uint32_t left, uint32_t right) {
    uint32_t rank = table->hash[hash_slot(table, ids[left], ids[right])];
    if (rank != NONE) merge_heap_push(&workspace->heap, rank, left);
}

zs_status bpe_apply(const bpe *table, bpe_workspace *workspace, uint32_t *ids, size_t *count, zs_error *error) {
    if (*count < 2) return ZS_OK;
    if (*count > BPE_MAX_IDS)
        return zs_error_set(error, ZS_ERROR_ARGUMENT, "a piece of %zu bytes without a break is too long to tokenise: cut the text", *count);
    uint32_t n = (uint32_t)*count;
    zs_status status = workspace_reserve(workspace, n, error);
    if (status != ZS_OK) return status;
    uint32_t *previous = workspace->links, *next = workspace->links + n;
    workspace->heap.count = 0;
    for (uint32_t i = 0; i < n; i++) {
        previous[i] = i == 0 ? NONE : i - 1;
        next[i] = i + 1 == n ? NONE : i + 1;
        if (i + 1 < n) queue_pair(table, workspace, ids, i, i + 1);
    }
    while (workspace->heap.count > 0) {
        uint64_t key = merge_heap_pop(&workspace->heap);
        const bpe_merge *merge = &table->merges[key >> 32];
        uint32_t left = (uint32_t)key, right = next[left];
        // Stale when a neighbour has been merged since it was queued; a token merged away is marked NONE.
        if (right == NONE || ids[left] != merge->left || ids[right] != merge->right) continue;
        ids[left] = merge->result;
        ids[right] = NONE;
        next[left] = next[right];
        if (next[left] != NONE) {
            previous[next[left]] = left;
            queue_pair(table, workspace, ids, left, next[left]);
        }
        if (previous[left] != NONE) queue_pair(table, workspace, ids, previous[left], left);
    }
    size_t left_over = 0;
    for (uint32_t i = 0; i != NONE; i = next[i]) ids[left_over++] = ids[i]; // position 0 is never merged away
    *count = left_over;
    return ZS_OK;
}

void bpe_workspace_free(bpe_workspace *workspace) {
    free(workspace->links);
    merge_heap_free(&workspace->heap);
    memset(workspace, 0, sizeof *workspace);
}
