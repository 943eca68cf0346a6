#include "harness.h"

#include "loader/tensor_type.h"

#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    ARENA_BYTES = 64 << 20,
    GUARD_BYTES = 256,
    MAX_REGIONS = 512,
    MAX_TALLIES = 1024,
    MAX_SHOWN = 5, // failures printed in full per operation and variant
};

typedef enum region_type { REGION_F32, REGION_F16, REGION_IGNORED } region_type;

typedef struct region {
    region_type type;
    size_t offset, count;
    const expect *expected, *half, *dot; // half: with matrix units, dot: with products of integers, if not NULL
} region;

typedef struct tally {
    char op[48];
    const char *variant;
    uint32_t cases, failed;
    double worst;
} tally;

typedef struct allocation {
    struct allocation *next;
    max_align_t bytes[];
} allocation;

struct harness {
    harness_params params;
    zs_device *device;
    gpu_command *command;
    gpu_buffer arena;
    uint8_t *before, *after; // [ARENA_BYTES]
    size_t used;
    variant variants[MAX_VARIANTS];
    uint32_t variant_count;

    // the case
    char op[48], label[192];
    uint64_t random;
    uint64_t seed; // of the running case
    allocation *allocations;
    region regions[MAX_REGIONS];
    uint32_t region_count, run_regions; // the first of a run's own

    // the run
    double worst;
    char failure[256];

    tally tallies[MAX_TALLIES];
    uint32_t tally_count;
    uint32_t passed, failed;
    bool gave_up;
};

// ---- variants -------------------------------------------------------------------------------------------------------

static bool is_wanted(const char *name, const char *part) { return part == NULL || strstr(name, part) != NULL; }

/// The next variant, still without a name, which keep_variant makes one of those that run; NULL: there is no room.
static variant *new_variant(harness *h, bool lanes, uint32_t tiers, uint32_t subgroup_size) {
    if (h->variant_count == MAX_VARIANTS) return NULL;
    variant *v = &h->variants[h->variant_count];
    v->policy = (op_policy){.tiers = tiers, .subgroup_size = subgroup_size, .lanes = lanes};
    if (!lanes) v->policy.wide = op_wide(gpu_device_caps(h->device));
    op_matvec_defaults(&v->policy, gpu_device_caps(h->device)->cpu);
    return v;
}

static void keep_variant(harness *h, const variant *v) { h->variant_count += is_wanted(v->name, h->params.variant); }

static void add_variant(harness *h, bool lanes, uint32_t tiers, uint32_t subgroup_size, bool deterministic) {
    variant *v = new_variant(h, lanes, tiers, subgroup_size);
    if (!v) return;
    char subgroup[24] = "";
    if (tiers & ZS_TIER_SUBGROUP) snprintf(subgroup, sizeof subgroup, "+subgroup%" PRIu32, subgroup_size);
    snprintf(v->name, sizeof v->name, "%s/%s%s%s%s%s", lanes ? "lanes" : "tiles", tiers ? "" : "strict",
             tiers & ZS_TIER_SUBGROUP ? subgroup + 1 : "",
             tiers & ZS_TIER_STORAGE ? (tiers & ZS_TIER_SUBGROUP ? "+storage" : "storage") : "", tiers & ZS_TIER_HALF ? "+half" : "",
             deterministic ? "/deterministic" : "");
    v->policy.deterministic = deterministic;
    keep_variant(h, v);
}

static void make_variants(harness *h) {
    // Kernels with subgroups read halves as words: with 16-bit storage as well they are the same ones.
    static const uint32_t masks[] = {0, ZS_TIER_SUBGROUP, ZS_TIER_STORAGE, ZS_TIER_ALL};
    const gpu_caps *caps = gpu_device_caps(h->device);
    for (int lanes = 1; lanes >= 0; lanes--) {
        uint32_t last = ~0u;
        for (size_t m = 0; m < sizeof masks / sizeof masks[0]; m++) {
            uint32_t tiers = caps->tiers & masks[m];
            if (tiers == last || (masks[m] != ZS_TIER_ALL && tiers != masks[m])) continue;
            last = tiers;
            bool sized = !lanes && (tiers & ZS_TIER_SUBGROUP);
            uint32_t smallest = sized ? caps->min_subgroup_size : caps->subgroup_size;
            uint32_t largest = sized ? caps->max_subgroup_size : caps->subgroup_size;
            for (uint32_t size = smallest; size <= largest; size *= 2) {
                add_variant(h, lanes, tiers, size, false);
                add_variant(h, lanes, tiers, size, true);
            }
        }
    }
}

/// Shapes of matvec.comp beside the one that serves on CPU drivers, the smallest: what serves elsewhere, the largest, and by products of
/// integers.
static void add_matvec_variants(harness *h) {
    static const struct {
        op_matvec shape;
        bool dot;
    } choices[] = {{{2, 2, 8}, false}, {{4, 4, 8}, false}, {{2, 2, 4}, true}};
    const gpu_caps *caps = gpu_device_caps(h->device);
    if (!(caps->tiers & ZS_TIER_SUBGROUP)) return;
    for (size_t i = 0; i < sizeof choices / sizeof *choices; i++) {
        const op_matvec *shape = &choices[i].shape;
        if (choices[i].dot && !(caps->tiers & ZS_TIER_DOT)) continue;
        variant *v = new_variant(h, false, caps->tiers, caps->subgroup_size);
        if (!v) return;
        snprintf(v->name, sizeof v->name, "matvec%" PRIu32 "%s/subgroup%" PRIu32, shape->rows, choices[i].dot ? "/integers" : "",
                 caps->subgroup_size);
        v->policy.dot = choices[i].dot;
        for (uint32_t j = 0; j < MATRIX_TYPES * OP_MATVEC_CLASSES; j++) {
            v->policy.matvec[j / OP_MATVEC_CLASSES][j % OP_MATVEC_CLASSES] = *shape;
            if (choices[i].dot) v->policy.integers[j / OP_MATVEC_CLASSES][j % OP_MATVEC_CLASSES] = *shape;
        }
        keep_variant(h, v);
    }
}

/// Matrix units, where the device has them, on the kernels for GPUs: the smallest tiles, and the largest with what
/// VK_NV_cooperative_matrix2 adds.
static void add_matrix_variants(harness *h) {
    const gpu_caps *caps = gpu_device_caps(h->device);
    if (!(caps->tiers & ZS_TIER_MATRIX)) return;
    for (uint32_t tile = 4 * caps->matrix.m; tile <= 8 * caps->matrix.m; tile *= 2) {
        uint32_t twice = tile / (4 * caps->matrix.m); // 1 or 2: the smallest of everything and the largest
        uint32_t tiers = twice == 1 ? caps->tiers & ~(uint32_t)ZS_TIER_MATRIX2 : caps->tiers;
        variant *v = new_variant(h, false, tiers, caps->subgroup_size);
        if (!v) return;
        snprintf(v->name, sizeof v->name, "matrix%" PRIu32 "%s/%" PRIu32 "x%" PRIu32 "x%" PRIu32 "/subgroup%" PRIu32, tile,
                 tiers & ZS_TIER_MATRIX2 ? "/2" : "", caps->matrix.m, caps->matrix.n, caps->matrix.k, caps->subgroup_size);
        v->policy.matrix_shape = (op_matrix_shape){tile, 4 * twice, 4 * twice};
        v->policy.matrix_fill = twice == 2 ? 1024 : 0; // sums are split, or not
        v->policy.matrix_attention = tiers & ZS_TIER_MATRIX2 ? ZS_TIER_MATRIX2 : ZS_TIER_MATRIX;
        v->policy.matrix = caps->matrix;
        v->policy.shared_bytes = caps->shared_bytes;
        keep_variant(h, v);
    }
}

/// Where sizes of matrices are free, those that most cards have: heads are not always a multiple of them. Not with reductions by
/// VK_NV_cooperative_matrix2: of matrices that it puts together from smaller ones, Mesa 26.1's lavapipe reduces the first rows alone.
static void add_flexible_variant(harness *h) {
    const gpu_caps *caps = gpu_device_caps(h->device);
    if (!(caps->tiers & ZS_TIER_MATRIX2) || caps->matrix.n >= 16) return;
    variant *v = new_variant(h, false, caps->tiers, caps->subgroup_size);
    if (!v) return;
    snprintf(v->name, sizeof v->name, "flexible/16x16x16/subgroup%" PRIu32, caps->subgroup_size);
    v->policy.matrix = (gpu_matrix_units){.m = 16, .n = 16, .k = 16, .half_sums = true};
    v->policy.matrix_shape = op_matrix_smallest(&v->policy.matrix);
    v->policy.matrix_attention = ZS_TIER_MATRIX;
    v->policy.shared_bytes = caps->shared_bytes;
    keep_variant(h, v);
}

void harness_list_variants(const harness *h) {
    for (uint32_t i = 0; i < h->variant_count; i++) printf("  %s\n", h->variants[i].name);
}

// ---- life -----------------------------------------------------------------------------------------------------------

static void print_log(void *user, zs_log_level level, const char *message) {
    (void)user;
    if (level <= ZS_LOG_WARNING) fprintf(stderr, "%s\n", message);
}

static void free_allocations(harness *h) {
    while (h->allocations) {
        allocation *next = h->allocations->next;
        free(h->allocations);
        h->allocations = next;
    }
}

void harness_destroy(harness **handle) {
    harness *h = *handle;
    if (h == NULL) return;
    free_allocations(h);
    gpu_command_destroy(&h->command);
    if (h->device) gpu_buffer_destroy(h->device, &h->arena);
    zs_device_destroy(&h->device);
    free(h->before);
    free(h->after);
    free(h);
    *handle = NULL;
}

static harness *give_up(harness *h, const zs_error *error) {
    fprintf(stderr, "test_ops: %s\n", error->message);
    harness_destroy(&h);
    return NULL;
}

harness *harness_create(const harness_params *params) {
    zs_error error = {.message = "out of memory"};
    harness *h = calloc(1, sizeof *h);
    if (h == NULL) return NULL;
    h->params = *params;
    h->before = malloc(ARENA_BYTES);
    h->after = malloc(ARENA_BYTES);
    if (h->before == NULL || h->after == NULL) return give_up(h, &error);
    zs_device_params device = {
        .cache_dir = params->cache_dir, .validate = params->validate, .timeout_ms = 600000, .log = {.write = print_log}};
    if (zs_device_create(&device, &h->device, &error)) return give_up(h, &error);
    if (gpu_command_create(h->device, "operation test", &h->command, &error)) return give_up(h, &error);
    if (gpu_buffer_create(h->device, GPU_MEMORY_SHARED, ARENA_BYTES, false, "arena", &h->arena, &error)) return give_up(h, &error);
    make_variants(h);
    add_matvec_variants(h);
    add_matrix_variants(h);
    add_flexible_variant(h);
    const zs_device_info *info = zs_device_get_info(h->device);
    printf("%s, %s, subgroups of %" PRIu32 "\n", info->name, info->driver, info->subgroup_size);
    return h;
}

int harness_report(const harness *h) {
    uint32_t messages = zs_device_validation_count(h->device);
    printf("\n%-18s %-44s %6s %6s  %s\n", "operation", "variant", "cases", "failed", "worst error / bound");
    for (uint32_t i = 0; i < h->tally_count; i++) {
        const tally *t = &h->tallies[i];
        printf("%-18s %-44s %6" PRIu32 " %6" PRIu32 "  %.3f\n", t->op, t->variant, t->cases, t->failed, t->worst);
    }
    if (h->params.validate) printf("\nvalidation messages: %" PRIu32 "\n", messages);
    if (h->gave_up) printf("\nstopped early: the device failed\n");
    printf("\n%" PRIu32 " passed, %" PRIu32 " failed\n", h->passed, h->failed);
    return h->failed == 0 && h->passed > 0 && messages == 0 && !h->gave_up ? EXIT_SUCCESS : EXIT_FAILURE;
}

// ---- cases ----------------------------------------------------------------------------------------------------------

bool harness_case(harness *h, const char *op, const char *format, ...) {
    if (h->gave_up) return false;
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(h->label, sizeof h->label, format, arguments);
    va_end(arguments);
    snprintf(h->op, sizeof h->op, "%s", op);
    free_allocations(h);
    memset(h->before, 0xff, h->used + GUARD_BYTES);
    h->used = GUARD_BYTES;
    h->region_count = 0;
    h->worst = 0;
    h->failure[0] = 0;
    h->random = 0xcbf29ce484222325u; // FNV-1a of the names: a case's data do not depend on the cases before it
    for (const char *c = h->op; *c; c++) h->random = (h->random ^ (uint8_t)*c) * 0x100000001b3u;
    for (const char *c = h->label; *c; c++) h->random = (h->random ^ (uint8_t)*c) * 0x100000001b3u;
    h->seed = h->random;
    return is_wanted(h->op, h->params.op) && is_wanted(h->label, h->params.only_case);
}

bool harness_leaves_out(const harness *h, uint32_t variety, size_t index) {
    if (variety == 0) return h->params.half > 0 && index % 2 != h->params.half - 1;
    return h->params.sample > 1 && (index + variety) % h->params.sample != 0;
}

void *harness_alloc(harness *h, size_t count, size_t size) {
    allocation *a = calloc(1, sizeof *a + count * size);
    if (a == NULL) {
        fprintf(stderr, "test_ops: out of memory\n");
        exit(EXIT_FAILURE);
    }
    a->next = h->allocations;
    h->allocations = a;
    return a->bytes;
}

uint32_t harness_pick(const harness *h, uint32_t n) { return (uint32_t)(h->seed >> 32) % n; }

uint64_t random_bits(harness *h) { // splitmix64
    uint64_t x = h->random += 0x9E3779B97F4A7C15u;
    x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9u;
    x = (x ^ x >> 27) * 0x94D049BB133111EBu;
    return x ^ x >> 31;
}

uint32_t random_below(harness *h, uint32_t n) { return (uint32_t)((random_bits(h) >> 32) * n >> 32); }

float random_between(harness *h, float low, float high) {
    return low + (high - low) * (float)(random_bits(h) >> 40) * (1.0f / 16777216.0f);
}

float random_normal(harness *h) {
    float sum = 0; // of 12 uniform numbers: variance 1
    for (int i = 0; i < 12; i++) sum += random_between(h, -0.5f, 0.5f);
    return sum;
}

float *random_floats(harness *h, size_t count, float deviation) {
    float *values = harness_alloc(h, count, sizeof *values);
    for (size_t i = 0; i < count; i++) values[i] = deviation * random_normal(h);
    return values;
}

// ---- device memory --------------------------------------------------------------------------------------------------

uint64_t harness_put(harness *h, const void *data, size_t bytes) {
    size_t offset = h->used, end = (offset + bytes + GUARD_BYTES - 1) / GUARD_BYTES * GUARD_BYTES + GUARD_BYTES;
    if (bytes > ARENA_BYTES || end + GUARD_BYTES > ARENA_BYTES) {
        fprintf(stderr, "test_ops: %s %s needs more than the arena's %d bytes\n", h->op, h->label, ARENA_BYTES);
        exit(EXIT_FAILURE);
    }
    h->used = end;
    memset(h->before + offset, 0xff, end - offset);
    if (data && bytes) memcpy(h->before + offset, data, bytes);
    return h->arena.address + offset;
}

void *harness_before(harness *h, uint64_t address) { return h->before + (address - h->arena.address); }

const void *harness_after(const harness *h, uint64_t address) { return h->after + (address - h->arena.address); }

static void add_region(harness *h, region_type type, uint64_t address, const expect *expected, size_t count) {
    if (h->region_count == MAX_REGIONS) {
        fprintf(stderr, "test_ops: %s %s has too many outputs\n", h->op, h->label);
        exit(EXIT_FAILURE);
    }
    h->regions[h->region_count++] =
        (region){.type = type, .offset = (size_t)(address - h->arena.address), .count = count, .expected = expected};
}

void harness_expect_f32(harness *h, uint64_t address, const expect *expected, size_t count) {
    add_region(h, REGION_F32, address, expected, count);
}

void harness_expect_f32_or(harness *h, uint64_t address, const expect *expected, const expect *half, const expect *dot, size_t count) {
    add_region(h, REGION_F32, address, expected, count);
    h->regions[h->region_count - 1].half = half;
    h->regions[h->region_count - 1].dot = dot;
}

void harness_expect_f16(harness *h, uint64_t address, const expect *expected, size_t count) {
    add_region(h, REGION_F16, address, expected, count);
}

void harness_ignore(harness *h, uint64_t address, size_t bytes) { add_region(h, REGION_IGNORED, address, NULL, bytes); }

// ---- comparing ------------------------------------------------------------------------------------------------------

void harness_fail(harness *h, const char *format, ...) {
    if (h->failure[0]) return;
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(h->failure, sizeof h->failure, format, arguments);
    va_end(arguments);
}

void harness_ratio(harness *h, double ratio) {
    if (!(ratio <= h->worst)) h->worst = ratio; // a NaN stays
}

static float region_value(const region *r, const uint8_t *bytes, size_t i) {
    uint16_t half;
    float value;
    if (r->type == REGION_F16) {
        memcpy(&half, bytes + r->offset + 2 * i, 2);
        return half_to_float(half);
    }
    memcpy(&value, bytes + r->offset + 4 * i, 4);
    return value;
}

/// Compares what may have changed and then makes it equal, so that what is left can be compared as a whole.
static void compare_region(harness *h, const variant *v, uint32_t number, const region *r) {
    const expect *expected = v->policy.matrix_shape.tile && r->half ? r->half : v->policy.dot && r->dot ? r->dot : r->expected;
    size_t width = r->type == REGION_F32 ? 4 : r->type == REGION_F16 ? 2 : 1;
    for (size_t i = 0; i < r->count && expected; i++) {
        const expect *e = &expected[i];
        size_t at = r->offset + width * i;
        if (e->bound < 0) {
            if (memcmp(h->before + at, h->after + at, width))
                harness_fail(h, "output %" PRIu32 ": value %zu was overwritten by %g", number, i, (double)region_value(r, h->after, i));
            continue;
        }
        double value = (double)region_value(r, h->after, i), error = fabs(value - e->value);
        if (!(error <= e->bound))
            harness_fail(h, "output %" PRIu32 ": value %zu is %.9g, not %.9g ± %.2g", number, i, value, e->value, e->bound);
        harness_ratio(h, e->bound > 0 ? error / e->bound : error > 0 ? INFINITY : error);
    }
    memcpy(h->after + r->offset, h->before + r->offset, width * r->count);
}

static void compare_rest(harness *h) {
    if (memcmp(h->before, h->after, h->used) == 0) return;
    size_t i = 0;
    while (h->before[i] == h->after[i]) i++;
    harness_fail(h, "wrote outside of its outputs, at byte %zu of the arena", i);
}

// ---- running --------------------------------------------------------------------------------------------------------

static bool submit(harness *h, const variant *v, harness_record *record, void *user) {
    zs_error error = {0};
    uint64_t value;
    if (gpu_command_begin(h->command, &error)) goto failed;
    record(h, &(op_recorder){.command = h->command, .policy = v->policy}, user);
    if (gpu_command_end(h->command, &error)) {
        harness_fail(h, "recording: %s", error.message);
        return false;
    }
    memcpy(h->arena.mapped, h->before, h->used);
    if (gpu_command_submit(h->command, &value, &error)) goto failed;
    if (gpu_device_wait(h->device, value, &error)) goto failed;
    if (gpu_buffer_read(h->device, &h->arena, 0, h->used, h->after, &error)) goto failed;
    return true;
failed:
    harness_fail(h, "%s", error.message);
    h->gave_up = true;
    return false;
}

static tally *find_tally(harness *h, const char *variant_name) {
    for (uint32_t i = h->tally_count; i-- > 0;)
        if (strcmp(h->tallies[i].op, h->op) == 0 && strcmp(h->tallies[i].variant, variant_name) == 0) return &h->tallies[i];
    if (h->tally_count == MAX_TALLIES) return &h->tallies[MAX_TALLIES - 1];
    tally *t = &h->tallies[h->tally_count++];
    *t = (tally){.variant = variant_name};
    snprintf(t->op, sizeof t->op, "%s", h->op);
    return t;
}

static void count_run(harness *h, const char *variant_name) {
    tally *t = find_tally(h, variant_name);
    t->cases++;
    if (!(h->worst <= t->worst)) t->worst = h->worst;
    if (h->failure[0] == 0) {
        h->passed++;
        return;
    }
    h->failed++;
    if (t->failed++ < MAX_SHOWN) fprintf(stderr, "FAILED %s, %s, %s: %s\n", h->op, variant_name, h->label, h->failure);
}

void harness_count(harness *h) { count_run(h, "host"); }

void harness_run(harness *h, harness_record *record, harness_check *check, void *user) {
    h->run_regions = h->region_count;
    for (uint32_t i = 0; i < h->variant_count && !h->gave_up; i++) {
        const variant *v = &h->variants[i];
        h->region_count = h->run_regions;
        h->worst = 0;
        h->failure[0] = 0;
        if (submit(h, v, record, user)) {
            if (check) check(h, v, user);
            for (uint32_t r = 0; r < h->region_count; r++) compare_region(h, v, r, &h->regions[r]);
            compare_rest(h);
        }
        count_run(h, v->name);
    }
}
