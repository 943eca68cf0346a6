#include "cli.h"

#include <math.h>
#include <string.h>

// ---- show ----------------------------------------------------------------------------------------------------------

typedef struct spread {
    double count, sum, squares, least, most;
} spread;

static void add_value(spread *s, double value) {
    s->least = s->count ? fmin(s->least, value) : value;
    s->most = s->count ? fmax(s->most, value) : value;
    s->count++;
    s->sum += value;
    s->squares += value * value;
}

static double mean(const spread *s) { return s->sum / s->count; }
static double deviation(const spread *s) { return sqrt(fmax(0, s->squares / s->count - mean(s) * mean(s))); }

enum { KINDS = 32 };

/// Multipliers gathered by matrix kind: the name's last part, "gate_proj".
typedef struct kind_table {
    const char *names[KINDS];
    uint32_t matrices[KINDS];
    spread spreads[KINDS];
    uint32_t count;
} kind_table;

static kind_table gather(const zs_expert *expert) {
    kind_table table = {0};
    const char *name;
    const float *m;
    uint32_t rank;
    for (uint32_t i = 0; zs_expert_matrix(expert, i, &name, &rank, &m); i++) {
        const char *dot = strrchr(name, '.'), *kind = dot ? dot + 1 : name;
        uint32_t k = 0;
        while (k < table.count && strcmp(table.names[k], kind) != 0) k++;
        if (k == KINDS) continue;
        if (k == table.count) table.names[table.count++] = kind;
        table.matrices[k]++;
        for (uint32_t r = 0; r < rank; r++) add_value(&table.spreads[k], (double)m[r]);
    }
    return table;
}

static void print_expert_json(const zs_expert_info *info, const kind_table *table) {
    json_t *kinds = json_object();
    for (uint32_t k = 0; k < table->count; k++) {
        const spread *s = &table->spreads[k];
        json_object_set_new(kinds, table->names[k],
                            json_pack("{s:i, s:f, s:f, s:f, s:f}", "matrices", (int)table->matrices[k], "mean", mean(s), "deviation",
                                      deviation(s), "min", s->least, "max", s->most));
    }
    cli_print_json(json_pack("{s:s, s:s, s:s, s:s, s:s, s:s, s:f, s:i, s:I, s:o}", "name", info->name, "description", info->description,
                             "role", info->dispatcher ? "dispatcher" : "expert", "base_model", info->base_model, "parameterisation",
                             info->sigmoid ? "sigmoid" : "scale", "normalise", info->trace ? "trace" : "none", "max_mult", info->max_mult,
                             "matrices", (int)info->matrix_count, "values", (json_int_t)info->value_count, "kinds", kinds));
}

static int show(const cli_common *common, const char *path) {
    zs_error error;
    zs_expert *expert = NULL;
    if (zs_expert_load(path, &expert, &error)) return cli_fail(&error);
    const zs_expert_info *info = zs_expert_get_info(expert);
    kind_table table = gather(expert);
    if (common->json) {
        print_expert_json(info, &table);
    } else {
        printf(
            "name         %s (%s)\ndescription  %s\nbase model   %s\nstored as    %s, normalise %s\nmatrices     %u with %llu values\n\n",
            info->name, info->dispatcher ? "dispatcher" : "expert", info->description, info->base_model,
            info->sigmoid ? "sigmoid" : "scale", info->trace ? "trace" : "none", info->matrix_count, (unsigned long long)info->value_count);
        printf("%-12s %8s %9s %9s %9s %9s\n", "kind", "matrices", "mean z", "deviation", "min", "max");
        for (uint32_t k = 0; k < table.count; k++) {
            const spread *s = &table.spreads[k];
            printf("%-12s %8u %9.4f %9.4f %9.4f %9.4f\n", table.names[k], table.matrices[k], mean(s), deviation(s), s->least, s->most);
        }
    }
    zs_expert_destroy(&expert);
    return CLI_DONE;
}

// ---- compare -------------------------------------------------------------------------------------------------------

typedef struct comparison {
    uint32_t shared, only_a, only_b;
    double dot, aa, bb; // of z − 1
    double largest;     // |z_a − z_b|
} comparison;

static bool find_matrix(const zs_expert *expert, const char *name, uint32_t *rank, const float **m) {
    const char *other;
    for (uint32_t i = 0; zs_expert_matrix(expert, i, &other, rank, m); i++) {
        if (strcmp(other, name) == 0) return true;
    }
    return false;
}

static comparison compare(const zs_expert *a, const zs_expert *b) {
    comparison c = {0};
    const char *name;
    const float *ma, *mb;
    uint32_t ra, rb;
    for (uint32_t i = 0; zs_expert_matrix(a, i, &name, &ra, &ma); i++) {
        if (!find_matrix(b, name, &rb, &mb) || ra != rb) {
            c.only_a++;
            continue;
        }
        c.shared++;
        for (uint32_t r = 0; r < ra; r++) {
            double da = (double)ma[r] - 1, db = (double)mb[r] - 1;
            c.dot += da * db;
            c.aa += da * da;
            c.bb += db * db;
            c.largest = fmax(c.largest, fabs(da - db));
        }
    }
    c.only_b = zs_expert_get_info(b)->matrix_count - c.shared;
    return c;
}

static void print_comparison(const cli_common *common, const zs_expert *a, const zs_expert *b) {
    comparison c = compare(a, b);
    double base = 0, cosine = c.aa > 0 && c.bb > 0 ? c.dot / sqrt(c.aa * c.bb) : 0;
    bool has_base = zs_expert_compare(a, b, &base);
    if (common->json) {
        cli_print_json(json_pack("{s:i, s:i, s:i, s:f, s:f, s:f, s:f, s:o}", "shared_matrices", (int)c.shared, "only_first", (int)c.only_a,
                                 "only_second", (int)c.only_b, "cosine", cosine, "norm_first", sqrt(c.aa), "norm_second", sqrt(c.bb),
                                 "largest_difference", c.largest, "base_cosine", has_base ? json_real(base) : json_null()));
        return;
    }
    printf("shared matrices     %u (only in the first %u, only in the second %u)\n", c.shared, c.only_a, c.only_b);
    printf("‖z − 1‖             %.4f and %.4f\ncosine of z − 1     %.4f\nlargest difference  %.4f\n", sqrt(c.aa), sqrt(c.bb), cosine,
           c.largest);
    if (has_base)
        printf("same base model     %s (cosine of the sketches %.4f)\n", base >= 0.9 ? "yes" : "no", base);
    else
        puts("same base model     unknown (no sketches)");
}

static int compare_files(const cli_common *common, const char *first, const char *second) {
    zs_error error;
    zs_expert *a = NULL, *b = NULL;
    zs_status status = zs_expert_load(first, &a, &error);
    if (!status) status = zs_expert_load(second, &b, &error);
    if (!status) print_comparison(common, a, b);
    zs_expert_destroy(&a);
    zs_expert_destroy(&b);
    return status ? cli_fail(&error) : CLI_DONE;
}

int cmd_expert(int argc, char **argv) {
    cli_common common = {0};
    const cli_command command = {"expert",
                                 "show FILE | compare FILE FILE",
                                 "shows or compares experts",
                                 "zsigma expert compare assets/experts/math.safetensors assets/experts/code.safetensors",
                                 NULL,
                                 &common};
    int positional;
    bool stop;
    int result = cli_parse(&command, argc, argv, &positional, &stop);
    if (result || stop) return result;
    if (positional == 2 && strcmp(argv[0], "show") == 0) return show(&common, argv[1]);
    if (positional == 3 && strcmp(argv[0], "compare") == 0) return compare_files(&common, argv[1], argv[2]);
    return cli_usage(&command, "show FILE, or compare FILE FILE, is expected");
}
