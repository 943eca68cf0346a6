/// Compiles every kernel that runtime/ops chooses on a GPU and prints what the driver's compiler says of it: registers, spills,
/// occupancy. For drivers on null hardware (RADV_FORCE_FAMILY), which compile for a card that is not there and run nothing.
///
/// Fails where a kernel does not compile, spills registers or keeps arrays in scratch memory, or where a module of
/// shaders/variants.h that is neither for CPUs alone nor beyond the device's tiers is never chosen.
#include "compile/recording.h"
#include "gpu/device_private.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const compile_shape shapes[] = {
    {"smollm2-135m", 576, 9, 3, 64, 1536, 49152, false},
    {"llama3-8b", 4096, 32, 8, 128, 14336, 128256, false},
    {"gemma3-270m", 640, 4, 1, 256, 2048, 262144, true},
};
enum { SHAPES = sizeof shapes / sizeof shapes[0] };

/// Tiers left unused in turn, so that the variants below the best one come up too.
static const uint32_t disabled[] = {0, ZS_TIER_SUBGROUP, ZS_TIER_STORAGE, ZS_TIER_ALL};
enum { DISABLED = sizeof disabled / sizeof disabled[0] };

typedef struct statistics {
    double vgprs, sgprs, spilled, scratch, lds, code, occupancy, latency, throughput;
    bool told; // that the driver counts spills at all
} statistics;

enum { NAME = 128, MAX_KERNELS = 8192 };

typedef struct totals {
    char (*names)[NAME];               // [kernels]
    uint32_t kernels, failures, tiers; // tiers: of the device
    bool compiled[SHADER_COUNT];
    double most_vgprs;
} totals;

static void note(void *user, const char *name, double value) {
    statistics *s = user;
    const struct {
        const char *name;
        double *to;
    } known[] = {
        {"VGPRs", &s->vgprs},    {"SGPRs", &s->sgprs},     {"Scratch size", &s->scratch},         {"LDS size", &s->lds},
        {"Code size", &s->code}, {"Latency", &s->latency}, {"Subgroups per SIMD", &s->occupancy}, {"Inverse Throughput", &s->throughput},
    };
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++)
        if (strcmp(name, known[i].name) == 0) *known[i].to = value;
    if (strcmp(name, "Spilled VGPRs") && strcmp(name, "Spilled SGPRs")) return;
    s->spilled += value;
    s->told = true;
}

static zs_status print_kernel(zs_device *device, const gpu_kernel *kernel, totals *t, zs_error *error) {
    char name[NAME];
    statistics s = {0};
    gpu_kernel_describe(kernel, name, sizeof name);
    // What is chosen although more tiers are in use is chosen again when they are not.
    for (uint32_t i = 0; i < t->kernels; i++)
        if (strcmp(t->names[i], name) == 0) return ZS_OK;
    if (t->kernels == MAX_KERNELS) return zs_error_set(error, ZS_ERROR_MEMORY, "more than %d kernels", MAX_KERNELS);
    zs_status status = gpu_kernel_statistics(device, kernel, note, &s, error);
    if (status) return status;
    bool bad = !s.told || s.spilled > 0 || s.scratch > 0;
    printf("%-60s %5.0f %5.0f %7.0f %7.0f %6.0f %6.0f %5.0f %8.0f %9.0f%s\n", name, s.vgprs, s.sgprs, s.spilled, s.scratch, s.lds, s.code,
           s.occupancy, s.latency, s.throughput,
           !s.told ? "  FAILED: nothing said about spills"
           : bad   ? "  FAILED: spills"
                   : "");
    t->compiled[gpu_kernel_module(kernel) - shader_modules] = true;
    memcpy(t->names[t->kernels++], name, NAME);
    t->failures += bad;
    if (s.vgprs > t->most_vgprs) t->most_vgprs = s.vgprs;
    return ZS_OK;
}

// ---- a device that records nothing: the driver for null hardware cannot even begin a command buffer --------------------------

static VkResult VKAPI_CALL begin(VkCommandBuffer buffer, const VkCommandBufferBeginInfo *info) {
    (void)buffer, (void)info;
    return VK_SUCCESS;
}
static VkResult VKAPI_CALL end(VkCommandBuffer buffer) {
    (void)buffer;
    return VK_SUCCESS;
}
static void VKAPI_CALL barrier(VkCommandBuffer buffer, const VkDependencyInfo *info) { (void)buffer, (void)info; }
static void VKAPI_CALL write_timestamp(VkCommandBuffer buffer, VkPipelineStageFlags2 stage, VkQueryPool pool, uint32_t query) {
    (void)buffer, (void)stage, (void)pool, (void)query;
}
static void VKAPI_CALL reset_queries(VkCommandBuffer buffer, VkQueryPool pool, uint32_t first, uint32_t count) {
    (void)buffer, (void)pool, (void)first, (void)count;
}
static void VKAPI_CALL bind(VkCommandBuffer buffer, VkPipelineBindPoint point, VkPipeline pipeline) {
    (void)buffer, (void)point, (void)pipeline;
}
static void VKAPI_CALL push_constants(VkCommandBuffer buffer, VkPipelineLayout layout, VkShaderStageFlags stages, uint32_t offset,
                                      uint32_t size, const void *values) {
    (void)buffer, (void)layout, (void)stages, (void)offset, (void)size, (void)values;
}
static void VKAPI_CALL dispatch(VkCommandBuffer buffer, uint32_t x, uint32_t y, uint32_t z) { (void)buffer, (void)x, (void)y, (void)z; }

static void VKAPI_CALL copy(VkCommandBuffer buffer, VkBuffer from, VkBuffer to, uint32_t count, const VkBufferCopy *regions) {
    (void)buffer, (void)from, (void)to, (void)count, (void)regions;
}
static void VKAPI_CALL fill(VkCommandBuffer buffer, VkBuffer to, VkDeviceSize offset, VkDeviceSize size, uint32_t value) {
    (void)buffer, (void)to, (void)offset, (void)size, (void)value;
}

static void record_nothing(struct VolkDeviceTable *vk) {
    vk->vkCmdCopyBuffer = copy;
    vk->vkCmdFillBuffer = fill;
    vk->vkBeginCommandBuffer = begin;
    vk->vkEndCommandBuffer = end;
    vk->vkCmdPipelineBarrier2 = barrier;
    vk->vkCmdWriteTimestamp2 = write_timestamp;
    vk->vkCmdResetQueryPool = reset_queries;
    vk->vkCmdBindPipeline = bind;
    vk->vkCmdPushConstants = push_constants;
    vk->vkCmdDispatch = dispatch;
}

// ---- what is compiled -------------------------------------------------------------------------------------------------

/// What the device itself is tried with.
static zs_status compile_probes(zs_device *device, zs_error *error) {
    static const uint32_t probes[] = {SHADER_probe,     SHADER_probe_subgroup, SHADER_probe_storage, SHADER_probe_half,
                                      SHADER_probe_dot, SHADER_peak_read,      SHADER_peak_fma,      SHADER_peak_matrix};
    zs_status status = ZS_OK;
    for (size_t i = 0; i < sizeof probes / sizeof probes[0] && !status; i++) {
        const gpu_kernel *kernel;
        const gpu_matrix_units *m = &device->caps.matrix;
        const bool units = probes[i] == SHADER_peak_matrix;
        const gpu_kernel_key key = {.module = probes[i],
                                    .subgroup_size = units ? device->caps.subgroup_size : 0,
                                    .constant_count = units ? 4 : 1,
                                    .constants = {units ? 4 * device->caps.subgroup_size : 64, m->m, m->n, m->k}};
        if ((shader_modules[probes[i]].tiers & ~device->caps.tiers) == 0) status = gpu_kernel_get(device, &key, &kernel, error);
    }
    return status;
}

/// Every weight type; factors come in the types that zsigma factor writes.
static zs_status compile_all(zs_device *device, zs_error *error) {
    zs_status status = compile_probes(device, error);
    for (uint32_t shape = 0; shape < SHAPES; shape++) {
        for (uint32_t type = 0; type < MATRIX_TYPES; type++) {
            bool factors = type == MATRIX_F32 || type == MATRIX_F16 || type == MATRIX_Q8;
            kv_type kv = (type + shape) % KV_TYPES, next = (kv + 1) % KV_TYPES;
            if (!status) status = compile_record(device, &shapes[shape], (matrix_type)type, false, kv, false, error);
            if (!status && factors) status = compile_record(device, &shapes[shape], (matrix_type)type, true, kv, true, error);
            if (!status && factors) status = compile_record(device, &shapes[shape], (matrix_type)type, true, next, false, error);
            if (!status && factors) status = compile_record_compose(device, &shapes[shape], (matrix_type)type, error);
            if (!status && !shapes[shape].gemma) status = compile_record_gradient(device, &shapes[shape], (matrix_type)type, false, error);
            if (!status && factors && !shapes[shape].gemma)
                status = compile_record_gradient(device, &shapes[shape], (matrix_type)type, true, error);
            if (!status) status = compile_record_tower(device, (matrix_type)type, kv == KV_F32 ? KV_F32 : KV_F16, error);
        }
    }
    return status;
}

static int by_name(const void *a, const void *b) {
    char names[2][NAME];
    gpu_kernel_describe(*(gpu_kernel *const *)a, names[0], NAME);
    gpu_kernel_describe(*(gpu_kernel *const *)b, names[1], NAME);
    return strcmp(names[0], names[1]);
}

/// What the device has compiled so far.
static zs_status print_kernels(zs_device *device, totals *t, zs_error *error) {
    const gpu_kernel_table *table = &device->kernels;
    gpu_kernel **sorted = calloc(table->count, sizeof *sorted);
    if (!sorted) return zs_error_set(error, ZS_ERROR_MEMORY, "out of memory for %zu kernels", table->count);
    size_t count = 0;
    for (size_t i = 0; i < table->capacity; i++)
        if (table->slots[i]) sorted[count++] = table->slots[i];
    qsort(sorted, count, sizeof *sorted, by_name);
    zs_status status = ZS_OK;
    for (size_t i = 0; i < count && !status; i++) status = print_kernel(device, sorted[i], t, error);
    free(sorted);
    return status;
}

static zs_status compile_with(uint32_t disable, totals *t, zs_error *error) {
    zs_device *device = NULL;
    zs_status status = zs_device_create(&(zs_device_params){.skip_self_test = true, .disable = disable}, &device, error);
    if (status) return status;
    if (t->kernels == 0) printf("%s, %s\n", device->physical.info.name, device->physical.info.driver);
    printf("\n%-60s %5s %5s %7s %7s %6s %6s %5s %8s %9s\n", disable ? "kernels new without some tiers" : "kernels with all tiers", "VGPRs",
           "SGPRs", "spilled", "scratch", "LDS", "code", "waves", "latency", "1/through");
    t->tiers |= device->caps.tiers;
    record_nothing(&device->vk);
    status = compile_all(device, error);
    if (!status) status = print_kernels(device, t, error);
    zs_device_destroy(&device);
    return status;
}

/// linear_lanes, attention_lanes and their like are for CPU drivers, and so are chains.
static uint32_t print_missing(const totals *t) {
    uint32_t missing = 0;
    for (uint32_t i = 0; i < SHADER_COUNT; i++) {
        const shader_module *module = &shader_modules[i];
        if (t->compiled[i] || strstr(module->name, "_lanes") || (module->tiers & ZS_TIER_CHAIN)) continue;
        bool chosen_elsewhere = module->tiers & ~t->tiers;
        printf(chosen_elsewhere ? "not compiled: %s needs tiers that the device lacks\n" : "FAILED: nothing chooses %s\n", module->name);
        missing += !chosen_elsewhere;
    }
    return missing;
}

int main(void) {
    zs_error error;
    totals t = {.names = calloc(MAX_KERNELS, sizeof *t.names)};
    if (!t.names) return 1;
    zs_status status = ZS_OK;
    for (uint32_t i = 0; i < DISABLED && !status; i++) status = compile_with(disabled[i], &t, &error);
    uint32_t missing = status ? 0 : print_missing(&t);
    if (status) printf("FAILED: %s\n", error.message);
    printf("\n%u kernels, at most %.0f VGPRs, %u failed, %u modules not chosen\n", t.kernels, t.most_vgprs, t.failures, missing);
    free(t.names);
    return status || t.failures || missing;
}
