#include "vision/image_prompt.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/// A prompt that grows.
typedef struct builder {
    image_prompt *prompt;
    size_t capacity;
    bool failed; // for want of memory, or of room in 32 bits
} builder;

static void put(builder *b, uint32_t id, uint32_t slot) {
    image_prompt *p = b->prompt;
    if (b->failed) return;
    if (p->count == b->capacity) {
        size_t capacity = b->capacity ? 2 * b->capacity : 256;
        uint32_t *ids = capacity <= UINT32_MAX ? realloc(p->ids, capacity * sizeof *ids) : NULL;
        if (ids) p->ids = ids;
        uint32_t *slots = ids ? realloc(p->slots, capacity * sizeof *slots) : NULL;
        if (slots) p->slots = slots;
        b->failed = !slots;
        if (b->failed) return;
        b->capacity = capacity;
    }
    p->ids[p->count] = id;
    p->slots[p->count++] = slot;
}

static void put_image_tokens(builder *b, uint32_t image_token, uint32_t count) {
    for (uint32_t i = 0; i < count; i++) put(b, image_token, b->prompt->image_tokens++);
}

/// A text in which control tokens count.
static zs_status put_text(builder *b, const zs_tokenizer *tokenizer, const char *text, size_t length, zs_error *error) {
    uint32_t *ids;
    size_t count;
    zs_status status = zs_tokenizer_encode(tokenizer, text, length, true, &ids, &count, error);
    if (status) return status;
    for (size_t i = 0; i < count; i++) put(b, ids[i], IMAGE_PROMPT_TEXT);
    free(ids);
    return ZS_OK;
}

/// The view's tag between two fakes, and its tokens. before: what is in front of them.
static zs_status put_view(builder *b, const zs_tokenizer *tokenizer, uint32_t image_token, const char *before, const char *tag,
                          uint32_t tokens, zs_error *error) {
    char text[96];
    int length = snprintf(text, sizeof text, "%s<fake_token_around_image>%s", before, tag);
    zs_status status = put_text(b, tokenizer, text, (size_t)length, error);
    if (!status) put_image_tokens(b, image_token, tokens);
    return status;
}

/// Each tile under its row and column, a line for each row of them, then the whole image.
static zs_status put_idefics3(builder *b, const zs_tokenizer *tokenizer, uint32_t image_token, const image_tiles *tiles, zs_error *error) {
    zs_status status = ZS_OK;
    for (uint32_t y = 0; y < tiles->grid_rows; y++) {
        for (uint32_t x = 0; x < tiles->grid_columns && !status; x++) {
            char tag[48];
            snprintf(tag, sizeof tag, "<row_%u_col_%u>", y + 1, x + 1);
            status = put_view(b, tokenizer, image_token, x == 0 && y > 0 ? "\n" : "", tag, tiles->tile_tokens, error);
        }
    }
    // The last row's end and the line between are one text.
    if (!status) status = put_view(b, tokenizer, image_token, tiles->grid_rows ? "\n\n" : "", "<global-img>", tiles->tile_tokens, error);
    if (!status) status = put_text(b, tokenizer, "<fake_token_around_image>", strlen("<fake_token_around_image>"), error);
    return status;
}

static zs_status put_image(builder *b, const zs_tokenizer *tokenizer, image_family family, uint32_t image_token, const image_tiles *tiles,
                           zs_error *error) {
    if (family == IMAGE_IDEFICS3) return put_idefics3(b, tokenizer, image_token, tiles, error);
    put_image_tokens(b, image_token, tiles->token_count);
    return ZS_OK;
}

static zs_status check_marks(size_t marks, size_t images, zs_error *error) {
    if (marks == images) return ZS_OK;
    return zs_error_set(error, ZS_ERROR_ARGUMENT, "the prompt has %zu image mark%s (" IMAGE_MARK ") for %zu image%s", marks,
                        marks == 1 ? "" : "s", images, images == 1 ? "" : "s");
}

static zs_status finish(builder *b, zs_status status, zs_error *error) {
    if (!status && b->failed) status = zs_error_set(error, ZS_ERROR_MEMORY, "out of memory for a prompt with images");
    if (status) image_prompt_free(b->prompt);
    return status;
}

zs_status image_prompt_expand(const zs_tokenizer *tokenizer, image_family family, uint32_t image_token, const uint32_t *ids, size_t count,
                              const image_tiles *images, size_t image_count, image_prompt *prompt, zs_error *error) {
    *prompt = (image_prompt){0};
    builder b = {.prompt = prompt};
    size_t marks = 0;
    for (size_t i = 0; i < count; i++) marks += ids[i] == image_token;
    zs_status status = check_marks(marks, image_count, error);
    for (size_t i = 0; i < count && !status; i++) {
        if (ids[i] == image_token)
            status = put_image(&b, tokenizer, family, image_token, images++, error);
        else
            put(&b, ids[i], IMAGE_PROMPT_TEXT);
    }
    return finish(&b, status, error);
}

/// The next mark in [text, end), or end.
static const char *find_mark(const char *text, const char *end) {
    const size_t size = strlen(IMAGE_MARK);
    while ((size_t)(end - text) >= size && memcmp(text, IMAGE_MARK, size) != 0) text++;
    return (size_t)(end - text) >= size ? text : end;
}

/// Texts between marks one by one, for vocabularies that do not know the mark.
static zs_status encode_pieces(builder *b, const zs_tokenizer *tokenizer, image_family family, uint32_t image_token, const char *text,
                               size_t length, const image_tiles *images, size_t image_count, zs_error *error) {
    const char *end = text + length;
    size_t marks = 0;
    for (const char *p = find_mark(text, end); p < end; p = find_mark(p + 1, end)) marks++;
    zs_status status = check_marks(marks, image_count, error);
    while (!status && text < end) {
        const char *mark = find_mark(text, end);
        status = put_text(b, tokenizer, text, (size_t)(mark - text), error);
        if (status || mark == end) break;
        status = put_image(b, tokenizer, family, image_token, images++, error);
        text = mark + strlen(IMAGE_MARK);
    }
    return status;
}

zs_status image_prompt_encode(const zs_tokenizer *tokenizer, image_family family, uint32_t image_token, const char *text, size_t length,
                              const image_tiles *images, size_t image_count, image_prompt *prompt, zs_error *error) {
    const char *spelling;
    size_t size = zs_tokenizer_token_bytes(tokenizer, image_token, true, &spelling), count;
    *prompt = (image_prompt){0};
    if (size != strlen(IMAGE_MARK) || memcmp(spelling, IMAGE_MARK, size) != 0) {
        builder b = {.prompt = prompt};
        return finish(&b, encode_pieces(&b, tokenizer, family, image_token, text, length, images, image_count, error), error);
    }
    uint32_t *ids;
    zs_status status = zs_tokenizer_encode(tokenizer, text, length, true, &ids, &count, error);
    if (status) return status;
    status = image_prompt_expand(tokenizer, family, image_token, ids, count, images, image_count, prompt, error);
    free(ids);
    return status;
}

void image_prompt_free(image_prompt *prompt) {
    free(prompt->ids);
    free(prompt->slots);
    *prompt = (image_prompt){0};
}
