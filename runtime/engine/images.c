/// Images in prompts: encoded once, kept as rows of features, referred to by ids behind the vocabulary.
#include "engine/engine.h"
#include "model/workspace.h"
#include "vision/image.h"
#include "vision/image_prompt.h"

#include <stdlib.h>
#include <string.h>

// ---- the store -----------------------------------------------------------------------------------------------------

static stored_image *find_id(const zs_engine *engine, uint32_t id) {
    for (uint32_t i = 0; i < engine->images.count; i++) {
        stored_image *image = &engine->images.images[i];
        if (id >= image->first_id && id - image->first_id < image->rows) return image;
    }
    return NULL;
}

bool engine_knows_token(const zs_engine *engine, uint32_t id) { return id < engine->model->config.vocab || find_id(engine, id); }

bool engine_find_image(const zs_engine *engine, uint32_t id, uint32_t *first_id) {
    const stored_image *image = find_id(engine, id);
    if (image) *first_id = image->first_id;
    return image != NULL;
}

uint32_t engine_row_token(const zs_engine *engine, uint32_t id) {
    uint32_t vocab = engine->model->config.vocab;
    const stored_image *image = id < vocab ? NULL : find_id(engine, id);
    return image ? vocab + image->first_row + (id - image->first_id) : id;
}

/// Whether a live session has the image in its prompt: it may have to read it again.
static bool is_in_use(const zs_engine *engine, const stored_image *image) {
    for (uint32_t i = 0; i < engine->params.max_sessions; i++) {
        const zs_session *session = engine->sessions[i];
        for (uint32_t t = 0; session && t < session->seq.count; t++) {
            if (session->seq.tokens[t] >= image->first_id && session->seq.tokens[t] - image->first_id < image->rows) return true;
        }
    }
    return false;
}

static void drop_image(image_store *store, uint32_t i) {
    memmove(&store->images[i], &store->images[i + 1], (store->count - i - 1) * sizeof *store->images);
    store->count--;
}

/// Drops the image that was not used for longest and is not in use; false when there is none. `since`: newer ones stay.
static bool drop_oldest(zs_engine *engine, uint64_t since) {
    image_store *store = &engine->images;
    uint32_t oldest = store->count;
    for (uint32_t i = 0; i < store->count; i++) {
        const stored_image *image = &store->images[i];
        if (image->used > since || (oldest < store->count && image->used >= store->images[oldest].used)) continue;
        if (!is_in_use(engine, image)) oldest = i;
    }
    if (oldest == store->count) return false;
    drop_image(store, oldest);
    return true;
}

void engine_drop_images(zs_engine *engine) {
    while (drop_oldest(engine, UINT64_MAX)) {
    }
}

/// A gap of `rows` rows: where it begins, and the place in the list.
static bool find_gap(const image_store *store, uint32_t rows, uint32_t *row, uint32_t *place) {
    uint32_t end = 0;
    for (uint32_t i = 0; i <= store->count; i++) {
        uint32_t next = i < store->count ? store->images[i].first_row : store->capacity;
        if (next - end >= rows) {
            *row = end;
            *place = i;
            return true;
        }
        if (i < store->count) end = next + store->images[i].rows;
    }
    return false;
}

/// Ids run out after some million images; then they begin anew, without those that they stood for.
static zs_status renew_ids(zs_engine *engine, uint32_t rows, uint64_t since, zs_error *error) {
    image_store *store = &engine->images;
    if (store->next_id == 0) store->next_id = engine->model->config.vocab;
    if (NO_TOKEN - store->next_id > rows) return ZS_OK;
    while (drop_oldest(engine, since)) {
    }
    if (store->count)
        return zs_error_set(error, ZS_ERROR_ARGUMENT, "no ids are left for images: end the sessions that have some in their prompts");
    engine_drop_prefixes(engine);
    store->next_id = engine->model->config.vocab;
    return ZS_OK;
}

static zs_status add_image(zs_engine *engine, const stored_image *image, uint64_t since, stored_image *added, zs_error *error) {
    image_store *store = &engine->images;
    uint32_t place = 0;
    *added = *image;
    zs_status status = renew_ids(engine, image->rows, since, error);
    if (status) return status;
    while (!find_gap(store, image->rows, &added->first_row, &place)) {
        if (!drop_oldest(engine, since))
            return zs_error_set(
                error, ZS_ERROR_CONTEXT,
                "the images of this prompt and of live sessions take more than the %u tokens that all sessions share: raise --ctx (the "
                "model allows %u) or use fewer or smaller images",
                store->capacity, engine->model->config.context);
    }
    stored_image *grown = realloc(store->images, (store->count + 1) * sizeof *grown);
    if (!grown) return zs_error_set(error, ZS_ERROR_MEMORY, "out of memory for an image");
    store->images = grown;
    memmove(&grown[place + 1], &grown[place], (store->count - place) * sizeof *grown);
    added->first_id = store->next_id;
    added->used = ++engine->clock;
    store->next_id += added->rows;
    grown[place] = *added;
    store->count++;
    return ZS_OK;
}

// ---- memory --------------------------------------------------------------------------------------------------------

/// Of as many rows of the decoder's width as tokens, which is what live sessions can have in their prompts.
static uint64_t features_bytes(const vision_tower *tower, uint32_t tokens) {
    return 4ull * tokens * vision_stride(tower->config.text_hidden);
}

/// A tower's heads may be of any length, so bytes do not serve it.
static vision_encoder_params encoder_params(const op_policy *policy, kv_type kv, uint32_t tiles) {
    return (vision_encoder_params){.tiles = tiles, .kv = kv == KV_F32 ? KV_F32 : KV_F16, .policy = *policy};
}

static uint64_t projected_bytes(const vision_tower *tower, uint32_t tiles) {
    uint64_t rows = (uint64_t)tiles * vision_config_features(&tower->config) + 1; // and the newline
    return 4 * rows * vision_stride(tower->config.text_hidden);
}

uint64_t engine_image_bytes(const zs_model *model, const model_workspace_params *params, uint32_t kv_tokens) {
    const vision_tower *tower = model->tower;
    const op_policy policy = model_workspace_policy(model, params);
    uint32_t tiles = params->context / vision_config_features(&tower->config) + 1;
    const vision_encoder_params encoder = encoder_params(&policy, params->kv, vision_encoder_tiles(tower, tiles, 0));
    return features_bytes(tower, kv_tokens) + vision_encoder_bytes(tower, &encoder) + projected_bytes(tower, tiles);
}

/// Room for `tiles` tiles whose rows are `tokens` in all.
static zs_status prepare(zs_engine *engine, uint32_t tiles, uint32_t tokens, zs_error *error) {
    image_store *store = &engine->images;
    zs_device *device = engine->model->device;
    const vision_tower *tower = engine->model->tower;
    uint32_t turn = vision_encoder_tiles(tower, tiles, 0);
    const vision_encoder_params encoder = encoder_params(&engine->workspace->policy, engine->workspace->params.kv, turn);
    store->stride = vision_stride(tower->config.text_hidden);
    store->capacity = engine->params.kv_tokens;
    zs_status status =
        gpu_buffer_reserve(device, GPU_MEMORY_DEVICE, features_bytes(tower, store->capacity), "image features", &store->features, error);
    if (!status && !store->command) status = gpu_command_create(device, "images", &store->command, error);
    if (!status && store->encoder && vision_encoder_capacity(store->encoder) < turn) vision_encoder_destroy(&store->encoder);
    if (!status && !store->encoder) status = vision_encoder_create(device, tower, &encoder, &store->encoder, error);
    if (!status)
        status = gpu_buffer_reserve(device, GPU_MEMORY_DEVICE, projected_bytes(tower, tiles), "projected", &store->projected, error);
    if (!status) status = gpu_buffer_reserve(device, GPU_MEMORY_SHARED, 4ull * (tokens + 1), "image rows", &store->index, error);
    return status;
}

void engine_destroy_images(zs_engine *engine) {
    image_store *store = &engine->images;
    vision_encoder_destroy(&store->encoder);
    gpu_command_destroy(&store->command);
    gpu_buffer *const buffers[] = {&store->features, &store->projected, &store->index};
    for (size_t i = 0; i < sizeof buffers / sizeof *buffers; i++) gpu_buffer_destroy(engine->model->device, buffers[i]);
    free(store->images);
    *store = (image_store){0};
}

// ---- encoding ------------------------------------------------------------------------------------------------------

/// The images of one prompt.
typedef struct prompt_images {
    zs_engine *engine;
    const zs_image *const *images;
    size_t count;
    uint32_t expert;
    uint64_t serial;           // of the expert, where it touches the tower
    uint64_t since;            // images used later than this are the prompt's
    image_tiles *tiles;        // [count]; with pixels where the image is new
    stored_image *stored;      // [count]
    const image_tiles **fresh; // [fresh_count] of tiles
    size_t *fresh_index;
    size_t fresh_count;
} prompt_images;

static stored_image *find_image(const image_store *store, const uint64_t hash[2], uint64_t serial) {
    for (uint32_t i = 0; i < store->count; i++) {
        stored_image *image = &store->images[i];
        if (image->serial == serial && memcmp(image->hash, hash, sizeof image->hash) == 0) return image;
    }
    return NULL;
}

/// Looks an image up, among those before it too; a new one is cut into tiles.
static zs_status look_up(prompt_images *p, size_t i, zs_error *error) {
    uint64_t hash[2];
    const image_config *config = &p->engine->model->tower->config.image;
    image_hash(p->images[i], hash);
    p->stored[i] = (stored_image){.hash = {hash[0], hash[1]}, .serial = p->serial};
    stored_image *found = find_image(&p->engine->images, hash, p->serial);
    if (found) found->used = ++p->engine->clock;
    for (size_t k = 0; k < p->fresh_count && !found; k++) {
        if (memcmp(p->stored[p->fresh_index[k]].hash, hash, sizeof hash) == 0) found = &p->stored[p->fresh_index[k]];
    }
    if (found) return image_tiles_plan(config, p->images[i]->height, p->images[i]->width, &p->tiles[i], error);
    zs_status status = image_tiles_make(config, p->images[i], &p->tiles[i], error);
    if (status) return status;
    p->stored[i].rows = p->tiles[i].token_count;
    p->fresh[p->fresh_count] = &p->tiles[i];
    p->fresh_index[p->fresh_count++] = i;
    return ZS_OK;
}

static zs_status run(zs_engine *engine, zs_error *error) {
    zs_status status = gpu_command_end(engine->images.command, error);
    if (!status) status = engine_submit(engine, engine->images.command, error);
    return status ? status : engine_drain(engine, error);
}

/// Features of all new tiles, one after another.
static zs_status project(const prompt_images *p, uint32_t tiles, zs_error *error) {
    zs_engine *engine = p->engine;
    image_store *store = &engine->images;
    const vision_scales scales = {.table = engine->experts.scales.address, .stride = engine->model->scale_count, .row = p->expert};
    uint32_t features = vision_config_features(&engine->model->tower->config), turn = vision_encoder_capacity(store->encoder);
    zs_status status = ZS_OK;
    for (uint32_t first = 0; first < tiles && !status; first += turn) {
        uint32_t count = tiles - first < turn ? tiles - first : turn;
        status = engine_check_cancelled(engine, error);
        vision_encoder_fill(store->encoder, p->fresh, first, count, &scales);
        if (!status) status = gpu_command_begin(store->command, error);
        if (status) return status;
        vision_encoder_record(store->encoder, store->command, count, store->projected.address + 4ull * first * features * store->stride,
                              store->stride);
        status = run(engine, error);
    }
    return status;
}

/// Copies an image's rows to their place in the store.
static zs_status place(const prompt_images *p, const stored_image *image, const image_tiles *tiles, uint32_t first_tile, uint32_t all_tiles,
                       zs_error *error) {
    zs_engine *engine = p->engine;
    image_store *store = &engine->images;
    uint32_t features = vision_config_features(&engine->model->tower->config), *index = store->index.mapped;
    if (image->rows == 0) return ZS_OK;
    for (uint32_t t = 0; t < image->rows; t++)
        index[t] = tiles->tokens[t] == IMAGE_NEWLINE ? all_tiles * features : first_tile * features + tiles->tokens[t];
    zs_status status = gpu_command_begin(store->command, error);
    if (status) return status;
    vision_encoder_record_rows(store->encoder, store->command, store->projected.address, all_tiles * features, store->index.address,
                               image->rows, store->features.address + 4ull * image->first_row * store->stride, store->stride);
    return run(engine, error);
}

static zs_status encode(prompt_images *p, zs_error *error) {
    zs_engine *engine = p->engine;
    uint32_t tiles = 0, tokens = 0, first = 0;
    for (size_t k = 0; k < p->fresh_count; k++) {
        tiles += p->fresh[k]->count;
        if (p->fresh[k]->token_count > tokens) tokens = p->fresh[k]->token_count;
    }
    if (tiles == 0) return ZS_OK;
    double start = engine_now_ms();
    zs_status status = engine_drain(engine, error);
    if (!status) status = prepare(engine, tiles, tokens, error);
    if (!status) status = project(p, tiles, error);
    for (size_t k = 0; k < p->fresh_count && !status; k++) {
        stored_image added = {0};
        status = add_image(engine, &p->stored[p->fresh_index[k]], p->since, &added, error);
        if (!status) status = place(p, &added, p->fresh[k], first, tiles, error);
        first += p->fresh[k]->count;
    }
    engine->stats.images += p->fresh_count;
    engine->stats.image_tiles += tiles;
    engine->stats.image_ms += engine_now_ms() - start;
    return status;
}

// ---- prompts -------------------------------------------------------------------------------------------------------

/// Ids of the rows in the places of the prompt.
static zs_status number(const prompt_images *p, const image_prompt *prompt, uint32_t **ids, size_t *count, zs_error *error) {
    uint32_t *out = malloc((prompt->count + 1u) * sizeof *out), *places = malloc((prompt->image_tokens + 1u) * sizeof *places), at = 0;
    zs_status status = out && places ? ZS_OK : zs_error_set(error, ZS_ERROR_MEMORY, "out of memory for a prompt");
    for (size_t i = 0; i < p->count && !status; i++) {
        const stored_image *image = find_image(&p->engine->images, p->stored[i].hash, p->serial);
        for (uint32_t t = 0; image && t < image->rows && at < prompt->image_tokens; t++) places[at++] = image->first_id + t;
    }
    if (!status && at != prompt->image_tokens)
        status = zs_error_set(error, ZS_ERROR_CONTEXT, "the context of %u tokens does not hold all images of the prompt: raise --ctx",
                              p->engine->params.context);
    for (uint32_t t = 0; t < prompt->count && !status; t++)
        out[t] = prompt->slots[t] == IMAGE_PROMPT_TEXT ? prompt->ids[t] : places[prompt->slots[t]];
    free(places);
    if (status) {
        free(out);
        return status;
    }
    *ids = out;
    *count = prompt->count;
    return ZS_OK;
}

static zs_status check_fit(const zs_engine *engine, const image_prompt *prompt, zs_error *error) {
    if (prompt->count < engine->params.context) return ZS_OK;
    return zs_error_set(
        error, ZS_ERROR_CONTEXT,
        "the prompt has %u tokens, %u of them for its images, and the context holds %u: raise --ctx (the model allows %u) or "
        "use fewer or smaller images",
        prompt->count, prompt->image_tokens, engine->params.context, engine->model->config.context);
}

static zs_status start(prompt_images *p, zs_error *error) {
    p->tiles = calloc(p->count + 1, sizeof *p->tiles);
    p->stored = calloc(p->count + 1, sizeof *p->stored);
    p->fresh = calloc(p->count + 1, sizeof *p->fresh);
    p->fresh_index = calloc(p->count + 1, sizeof *p->fresh_index);
    if (!p->tiles || !p->stored || !p->fresh || !p->fresh_index) return zs_error_set(error, ZS_ERROR_MEMORY, "out of memory for images");
    p->since = p->engine->clock;
    if (model_tower_is_factored(p->engine->model)) p->serial = expert_table_serial(&p->engine->experts, p->expert);
    zs_status status = ZS_OK;
    for (size_t i = 0; i < p->count && !status; i++) status = look_up(p, i, error);
    return status;
}

static void finish(prompt_images *p) {
    for (size_t i = 0; p->tiles && i < p->count; i++) image_tiles_free(&p->tiles[i]);
    free(p->tiles);
    free(p->stored);
    free(p->fresh);
    free(p->fresh_index);
}

zs_status zs_engine_encode_prompt(zs_engine *engine, const zs_prompt *prompt, uint32_t **ids, size_t *count, zs_error *error) {
    const zs_model *model = engine->model;
    prompt_images p = {.engine = engine, .images = prompt->images, .count = prompt->image_count, .expert = prompt->expert};
    const image_family family = model->tower ? model->tower->config.image.family : IMAGE_LLAVA;
    if (!model->tokenizer && (prompt->text || family == IMAGE_IDEFICS3)) // whose tags are text
        return zs_error_set(error, ZS_ERROR_ARGUMENT, "%s has no tokenizer", model->path);
    if (p.count && !model->tower) return model_refuse_images(model, error);
    if (!expert_table_serial(&engine->experts, p.expert))
        return zs_error_set(error, ZS_ERROR_ARGUMENT, "no expert with id %u is attached", p.expert);
    if (!p.count && !model->tower && prompt->text)
        return zs_tokenizer_encode(model->tokenizer, prompt->text, prompt->length, true, ids, count, error);
    const uint32_t token = model->info.image_token;
    image_prompt expanded = {0};
    zs_status status = start(&p, error);
    if (!status)
        status =
            prompt->text
                ? image_prompt_encode(model->tokenizer, family, token, prompt->text, prompt->length, p.tiles, p.count, &expanded, error)
                : image_prompt_expand(model->tokenizer, family, token, prompt->ids, prompt->id_count, p.tiles, p.count, &expanded, error);
    if (!status) status = check_fit(engine, &expanded, error);
    if (!status) status = encode(&p, error);
    if (!status) status = number(&p, &expanded, ids, count, error);
    image_prompt_free(&expanded);
    finish(&p);
    return status;
}
