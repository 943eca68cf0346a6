/// Images: what the tower takes, and what a prompt with one takes to its first token and after it.
#include "bench.h"

#include <stdlib.h>

enum { SIDE = 672, QUESTION = 16 }; // pixels: under LLaVA-NeXT's tiles of 336, the whole image and four of it

/// Where the time of one image's answer went.
typedef struct image_times {
    double prepare_ms; // reading pixels into tiles
    double encode_ms;
    double prefill_ms, decode_ms;
    size_t prompt_tokens;
    uint64_t tiles;
} image_times;

typedef struct image_samples {
    double *encode, *images, *tiles, *prepare, *first, *prefill, *decode; // [runs]
} image_samples;

/// Never the same picture twice, so that none is known already.
static zs_status draw_image(bench *b, zs_image **image, zs_error *error) {
    uint8_t *pixels = malloc((size_t)SIDE * SIDE * 3);
    if (!pixels) return zs_error_set(error, ZS_ERROR_MEMORY, "out of memory for an image");
    for (size_t i = 0; i < (size_t)SIDE * SIDE * 3; i++) {
        b->random = b->random * 1664525u + 1013904223u;
        pixels[i] = (uint8_t)(b->random >> 24);
    }
    zs_status status = zs_image_create(pixels, SIDE, SIDE, image, error);
    free(pixels);
    return status;
}

/// The image's mark and a question, as ids.
static zs_status encode_prompt(bench *b, const zs_image *image, uint32_t **ids, size_t *count, zs_error *error) {
    uint32_t marked[1 + QUESTION];
    const zs_image *const images[] = {image};
    marked[0] = zs_model_get_info(b->stack.model)->image_token;
    bench_draw_ids(b, marked + 1, QUESTION);
    const zs_prompt prompt = {.ids = marked, .id_count = 1 + QUESTION, .images = images, .image_count = 1};
    return zs_engine_encode_prompt(b->stack.engine, &prompt, ids, count, error);
}

static zs_status time_answer(bench *b, const uint32_t *ids, size_t count, image_times *times, zs_error *error) {
    zs_session *session = NULL;
    zs_status status = zs_session_create(b->stack.engine, &(zs_session_params){.ignore_end = true}, &session, error);
    double start = bench_now_ms();
    if (!status) status = zs_session_set_prompt(session, ids, count, error);
    if (!status) status = zs_session_generate(session, 1, error);
    if (!status) status = zs_engine_run(b->stack.engine, NULL, NULL, error);
    times->prefill_ms = bench_now_ms() - start;
    start = bench_now_ms();
    if (!status) status = zs_session_generate(session, b->decode_tokens, error);
    if (!status) status = zs_engine_run(b->stack.engine, NULL, NULL, error);
    times->decode_ms = bench_now_ms() - start;
    zs_session_destroy(&session);
    return status;
}

static zs_status time_image(bench *b, image_times *times, zs_error *error) {
    zs_image *image = NULL;
    uint32_t *ids = NULL;
    zs_status status = draw_image(b, &image, error);
    zs_engine_reset_stats(b->stack.engine);
    double start = bench_now_ms();
    if (!status) status = encode_prompt(b, image, &ids, &times->prompt_tokens, error);
    const zs_engine_stats *stats = zs_engine_get_stats(b->stack.engine);
    times->encode_ms = stats->image_ms;
    times->tiles = stats->image_tiles;
    times->prepare_ms = bench_now_ms() - start - times->encode_ms;
    if (!status) status = time_answer(b, ids, times->prompt_tokens, times, error);
    free(ids);
    zs_image_destroy(&image);
    return status;
}

static void take(const bench *b, const image_times *t, image_samples *s, uint32_t run) {
    s->encode[run] = t->encode_ms;
    s->images[run] = 1e3 / t->encode_ms;
    s->tiles[run] = 1e3 * (double)t->tiles / t->encode_ms;
    s->prepare[run] = t->prepare_ms;
    s->first[run] = t->prepare_ms + t->encode_ms + t->prefill_ms;
    s->prefill[run] = 1e3 * (double)t->prompt_tokens / t->prefill_ms;
    s->decode[run] = 1e3 * b->decode_tokens / t->decode_ms;
}

zs_status bench_vision(bench *b, zs_error *error) {
    double *all = calloc(7 * (size_t)b->runs, sizeof *all);
    image_samples s = {0};
    double **const lists[] = {&s.encode, &s.images, &s.tiles, &s.prepare, &s.first, &s.prefill, &s.decode};
    for (uint32_t i = 0; all && i < 7; i++) *lists[i] = all + (size_t)i * b->runs;
    image_times times = {0};
    zs_status status = all ? time_image(b, &times, error) : zs_error_set(error, ZS_ERROR_MEMORY, "out of memory");
    for (uint32_t run = 0; run < b->runs && !status; run++) {
        status = time_image(b, &times, error);
        if (!status) take(b, &times, &s, run);
    }
    if (!status) {
        figures_add_value(&b->figures, "image_tiles", "tiles", (double)times.tiles);
        figures_add_value(&b->figures, "image_prompt", "tokens", (double)times.prompt_tokens);
        figures_add(&b->figures, "image_prepare", "ms", s.prepare, b->runs);
        figures_add(&b->figures, "image_encode", "ms", s.encode, b->runs);
        figures_add(&b->figures, "images_encoded", "images/s", s.images, b->runs);
        figures_add(&b->figures, "tiles_encoded", "tiles/s", s.tiles, b->runs);
        figures_add(&b->figures, "image_first_token", "ms", s.first, b->runs);
        figures_add(&b->figures, "image_prefill", "tokens/s", s.prefill, b->runs);
        figures_add(&b->figures, "image_decode", "tokens/s", s.decode, b->runs);
    }
    free(all);
    return status;
}
