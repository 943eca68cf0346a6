/// Models that see images against transformers: token counts, log-probabilities of an answer.
///
///     golden_vision [--fast] MODEL GOLDEN.json IMAGES [BOUND [MMPROJ]]
///
/// --fast: in precision fast, by the kernels for GPUs and on matrix units.
///
/// Weights are f16 computed in f32 on both sides, so the bound of DESIGN.md §6 (2e-3) pays for the images' two resampling back ends too:
/// transformers' own differ by up to 5e-4. The device is Vulkan's choice (VK_DRIVER_FILES).
#include "support/gpu_kernels.h"
#include "zsigma/zsigma.h"

#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_ANSWER = 64 };

static void need(zs_status status, const zs_error *error) {
    if (!status) return;
    fprintf(stderr, "golden_vision: %s\n", error->message);
    exit(1);
}

typedef struct run {
    zs_engine *engine;
    const char *images;
    double bound, worst;
    uint32_t cases, failures;
} run;

static void fail(run *r, const char *image, const char *what, double got, double expected) {
    printf("FAILED  %-10s %s: %.6g instead of %.6g\n", image, what, got, expected);
    r->failures++;
}

static size_t count_features(const run *r, const uint32_t *ids, size_t count) {
    size_t features = 0;
    uint32_t vocab = zs_model_get_info(zs_engine_get_model(r->engine))->vocab;
    for (size_t i = 0; i < count; i++) features += ids[i] >= vocab;
    return features;
}

static void check_case(run *r, const json_t *golden) {
    char path[1024];
    zs_error error;
    zs_image *image = NULL;
    uint32_t *ids = NULL, answer[MOST_ANSWER];
    float logprobs[MOST_ANSWER];
    size_t count;
    const char *name = json_string_value(json_object_get(golden, "image")), *text = json_string_value(json_object_get(golden, "prompt"));
    const json_t *expected = json_object_get(golden, "answer_logprobs"), *answer_ids = json_object_get(golden, "answer_ids");
    snprintf(path, sizeof path, "%s/%s.png", r->images, name);
    need(zs_image_load(path, &image, &error), &error);
    const zs_image *const images[] = {image};
    const zs_prompt prompt = {.text = text, .length = strlen(text), .images = images, .image_count = 1};
    need(zs_engine_encode_prompt(r->engine, &prompt, &ids, &count, &error), &error);
    double tokens = (double)json_integer_value(json_object_get(golden, "n_prompt_tokens")),
           features = (double)json_integer_value(json_object_get(golden, "n_image_tokens"));
    if ((double)count != tokens) fail(r, name, "tokens of the prompt", (double)count, tokens);
    if ((double)count_features(r, ids, count) != features)
        fail(r, name, "tokens of the image", (double)count_features(r, ids, count), features);

    size_t answer_count = json_array_size(answer_ids);
    for (size_t i = 0; i < answer_count && i < MOST_ANSWER; i++) answer[i] = (uint32_t)json_integer_value(json_array_get(answer_ids, i));
    const zs_score_item item = {
        .prefix = ids, .prefix_count = count, .continuation = answer, .continuation_count = answer_count, .logprobs = logprobs};
    need(zs_engine_score(r->engine, &item, 1, NULL, 0, &error), &error);
    double largest = 0;
    for (size_t i = 0; i < answer_count; i++) {
        double difference = fabs((double)logprobs[i] - json_number_value(json_array_get(expected, i)));
        if (!(difference <= r->bound))
            fail(r, name, "log-probability", (double)logprobs[i], json_number_value(json_array_get(expected, i)));
        largest = difference > largest ? difference : largest;
    }
    printf("        %-10s %4zu tokens, log-probabilities off by %.2e\n", name, count, largest);
    r->worst = largest > r->worst ? largest : r->worst;
    r->cases++;
    free(ids);
    zs_image_destroy(&image);
}

int main(int argc, char **argv) {
    const bool fast = argc > 1 && strcmp(argv[1], "--fast") == 0;
    argc -= fast;
    argv += fast;
    if (argc < 4) {
        fprintf(stderr, "usage: golden_vision [--fast] MODEL GOLDEN.json IMAGES [BOUND [MMPROJ]]\n");
        return 2;
    }
    json_error_t problem;
    json_t *golden = json_load_file(argv[2], 0, &problem);
    if (!golden) {
        fprintf(stderr, "golden_vision: %s: %s\n", argv[2], problem.text);
        return 1;
    }
    zs_error error;
    zs_device *device = NULL;
    zs_model *model = NULL;
    run r = {.images = argv[3], .bound = argc > 4 ? strtod(argv[4], NULL) : 2e-3};
    const zs_model_params params = {.mmproj = argc > 5 ? argv[5] : NULL};
    need(zs_device_create(NULL, &device, &error), &error);
    if (fast && !(zs_device_get_info(device)->tiers & ZS_TIER_MATRIX)) {
        fprintf(stderr, "golden_vision: --fast is for devices with matrix units\n");
        return 1;
    }
    if (fast) gpu_kernels_use(device);
    need(fast ? gpu_kernels_load(device, argv[1], &params, &model, &error) : zs_model_load(device, argv[1], &params, &model, &error),
         &error);
    const zs_engine_params engine = {.precision = fast ? ZS_PRECISION_FAST : ZS_PRECISION_EXACT, .context = 2048};
    need(zs_engine_create(model, &engine, &r.engine, &error), &error);
    size_t i;
    json_t *entry;
    json_array_foreach(golden, i, entry) check_case(&r, entry);
    printf("%s: %u images, %u failures, worst %.2e (bound %.0e)\n", zs_device_get_info(device)->name, r.cases, r.failures, r.worst,
           r.bound);
    bool passed = r.failures == 0 && r.cases > 0;
    zs_engine_destroy(&r.engine);
    zs_model_destroy(&model);
    zs_device_destroy(&device);
    json_decref(golden);
    return passed ? 0 : 1;
}
