/// zsigma expert show: what is in an expert file.
#include "expert.h"

#include <math.h>
#include <string.h>

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

enum { KINDS = 32, NAME_BYTES = 48 };

/// Multipliers gathered by matrix kind: the name's last part, "gate_proj"; of an image tower "tower q_proj", and "projector.0".
typedef struct kind_table {
    char names[KINDS][NAME_BYTES];
    uint32_t matrices[KINDS];
    spread spreads[KINDS];
    uint32_t count;
} kind_table;

static void write_kind(const char *name, char kind[NAME_BYTES]) {
    const char *dot = strncmp(name, "projector.", 10) == 0 ? NULL : strrchr(name, '.');
    snprintf(kind, NAME_BYTES, "%s%s", strncmp(name, "vision.", 7) == 0 ? "tower " : "", dot ? dot + 1 : name);
}

static kind_table gather(const zs_expert *expert) {
    kind_table table = {0};
    const char *name;
    const float *m;
    uint32_t rank;
    for (uint32_t i = 0; zs_expert_matrix(expert, i, &name, &rank, &m); i++) {
        char kind[NAME_BYTES];
        uint32_t k = 0;
        write_kind(name, kind);
        while (k < table.count && strcmp(table.names[k], kind) != 0) k++;
        if (k == KINDS) continue;
        if (k == table.count) memcpy(table.names[table.count++], kind, sizeof kind);
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

int expert_show(const cli_common *common, const char *path) {
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
        printf("%-14s %8s %9s %9s %9s %9s\n", "kind", "matrices", "mean z", "deviation", "min", "max");
        for (uint32_t k = 0; k < table.count; k++) {
            const spread *s = &table.spreads[k];
            printf("%-14s %8u %9.4f %9.4f %9.4f %9.4f\n", table.names[k], table.matrices[k], mean(s), deviation(s), s->least, s->most);
        }
    }
    zs_expert_destroy(&expert);
    return CLI_DONE;
}
