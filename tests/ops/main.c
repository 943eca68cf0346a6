/// Operation tests: every operation, under every choice of kernels, against plain references. The device is what the environment's
/// Vulkan drivers offer.
///
///     test_ops [--op PART] [--variant PART] [--case PART] [--sample N] [--half 1|2] [--validate] [--cache FOLDER] [--list]
#include "cases.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct {
    const char *name;
    void (*run)(harness *h);
} operations[] = {
    {"pack", cases_pack},
    {"linear", cases_linear},
    {"linear_rows", cases_linear_rows},
    {"chain", cases_chain},
    {"rms_norm", cases_rms_norm},
    {"layer_norm", cases_layer_norm},
    {"gelu", cases_gelu},
    {"gather", cases_gather},
    {"gather_sum", cases_gather_sum},
    {"embed", cases_embed},
    {"rope_kv", cases_rope_kv},
    {"attention", cases_attention},
    {"attention_rows", cases_attention_rows},
    {"sample", cases_sample},
    {"logprobs", cases_logprobs},
    {"compose", cases_compose},
    {"linear_back", cases_linear_back},
    {"scale", cases_scale},
    {"silu_mul", cases_silu_mul},
    {"rms_norm_back", cases_rms_norm_back},
    {"layer_norm_back", cases_layer_norm_back},
    {"rope_back", cases_rope_back},
    {"attention_back", cases_attention_back},
    {"logprobs_back", cases_logprobs_back},
    {"logprobs_kl_back", cases_logprobs_kl_back},
};

int main(int argc, char **argv) {
    harness_params params = {0};
    bool list = false;
    for (int i = 1; i < argc; i++) {
        const char *value = i + 1 < argc ? argv[i + 1] : NULL;
        if (strcmp(argv[i], "--list") == 0)
            list = true;
        else if (strcmp(argv[i], "--validate") == 0)
            params.validate = true;
        else if (strcmp(argv[i], "--op") == 0 && value)
            params.op = argv[++i];
        else if (strcmp(argv[i], "--variant") == 0 && value)
            params.variant = argv[++i];
        else if (strcmp(argv[i], "--case") == 0 && value)
            params.only_case = argv[++i];
        else if (strcmp(argv[i], "--sample") == 0 && value)
            params.sample = (uint32_t)strtoul(argv[++i], NULL, 10);
        else if (strcmp(argv[i], "--half") == 0 && value && (strcmp(value, "1") == 0 || strcmp(value, "2") == 0))
            params.half = (uint32_t)strtoul(argv[++i], NULL, 10);
        else if (strcmp(argv[i], "--cache") == 0 && value)
            params.cache_dir = argv[++i];
        else {
            fprintf(stderr, "usage: test_ops [--op PART] [--variant PART] [--case PART] [--sample N] [--half 1|2] [--validate] [--cache "
                            "FOLDER] [--list]\n");
            return 2;
        }
    }
    harness *h = harness_create(&params);
    if (h == NULL) return EXIT_FAILURE;
    if (list) {
        for (size_t i = 0; i < sizeof operations / sizeof operations[0]; i++) printf("%s\n", operations[i].name);
        harness_list_variants(h);
        harness_destroy(&h);
        return EXIT_SUCCESS;
    }
    for (size_t i = 0; i < sizeof operations / sizeof operations[0]; i++) operations[i].run(h);
    int status = harness_report(h);
    harness_destroy(&h);
    return status;
}
