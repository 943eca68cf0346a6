/// --dump-gradient: d Σ log π(answer | prompt) / dz of a data file.
#include "train.h"
#include "whole_file.h"

#include <stdlib.h>

typedef struct dumping {
    const train_options *options;
    cli_stack stack;
    train_data data;
    zs_gradient_item *terms; // [data.count]
    float *logprobs;
    zs_gradient *gradient;
} dumping;

static zs_status make_terms(dumping *d, zs_error *error) {
    size_t tokens = 0, done = 0;
    for (size_t i = 0; i < d->data.count; i++) tokens += d->data.items[i].answer_count;
    d->terms = calloc(d->data.count, sizeof *d->terms);
    d->logprobs = calloc(tokens, sizeof *d->logprobs);
    if (!d->terms || !d->logprobs) return zs_error_set(error, ZS_ERROR_MEMORY, "out of memory for the data");
    for (size_t i = 0; i < d->data.count; i++) {
        const zs_train_item *item = &d->data.items[i];
        d->terms[i] = (zs_gradient_item){.prompt = item->prompt,
                                         .prompt_count = item->prompt_count,
                                         .answer = item->answer,
                                         .answer_count = item->answer_count,
                                         .weight = 1,
                                         .logprobs = d->logprobs + done};
        done += item->answer_count;
    }
    return ZS_OK;
}

/// With passes long enough for every line.
static zs_status open_gradient(dumping *d, zs_error *error) {
    zs_gradient_params params = {.precision = cli_precision(d->options->common), .progress = cli_progress(d->options->common)};
    for (size_t i = 0; i < d->data.count; i++) {
        uint32_t rows = (uint32_t)(d->terms[i].prompt_count + d->terms[i].answer_count - 1);
        if (rows > params.min_rows) params.min_rows = rows;
    }
    return zs_gradient_create(d->stack.model, &params, &d->gradient, error);
}

static zs_status set_expert(dumping *d, zs_error *error) {
    if (!d->options->expert) return ZS_OK;
    zs_expert *expert = NULL;
    zs_status status = zs_expert_load(d->options->expert, &expert, error);
    if (!status) status = zs_gradient_set_expert(d->gradient, expert, d->options->transfer.wanted, error);
    if (!status) transfer_tell(&d->options->transfer, d->options->common, d->stack.model, NULL, expert);
    zs_expert_destroy(&expert);
    return status;
}

static void report(const dumping *d, double seconds) {
    const train_options *o = d->options;
    double sum = 0;
    size_t answer_tokens = 0, tokens = 0;
    for (size_t i = 0; i < d->data.count; i++) {
        answer_tokens += d->terms[i].answer_count;
        tokens += d->terms[i].prompt_count + d->terms[i].answer_count - 1;
    }
    for (size_t k = 0; k < answer_tokens; k++) sum += (double)d->logprobs[k];
    if (o->common->json) {
        cli_print_json(json_pack("{s:s, s:f, s:I, s:I, s:I, s:I, s:f, s:f}", "output", o->gradient, "logprob", sum, "lines",
                                 (json_int_t)d->data.count, "left_out", (json_int_t)d->data.left_out.count, "tokens", (json_int_t)tokens,
                                 "answer_tokens", (json_int_t)answer_tokens, "seconds", seconds, "tokens_per_s", (double)tokens / seconds));
    } else if (!o->common->quiet) {
        printf("%zu lines (%u left out), %zu tokens, %zu of them answers: log-probability %.5f\n", d->data.count, d->data.left_out.count,
               tokens, answer_tokens, sum);
        printf("%s: gradient of %u matrices in %.1f s, %.1f tokens/s\n", o->gradient, zs_model_get_info(d->stack.model)->matrices, seconds,
               (double)tokens / seconds);
    }
}

static zs_status dump(dumping *d, zs_error *error) {
    const train_options *o = d->options;
    zs_status status = whole_file_check(o->gradient, o->common->force, error);
    if (!status) status = train_data_read(&(task_files){.data = o->data}, NULL, &d->data, error);
    if (!status) status = cli_open_model(o->common, o->model, &d->stack, error);
    if (!status)
        status = train_data_encode(&d->data, d->stack.model, &(train_data_params){.context = train_context(o, d->stack.model)}, error);
    if (!status) status = make_terms(d, error);
    if (!status) status = open_gradient(d, error);
    if (!status) status = set_expert(d, error);
    double start = cli_now_seconds();
    if (!status) status = zs_gradient_add(d->gradient, d->terms, d->data.count, error);
    double seconds = cli_now_seconds() - start;
    if (!status) status = zs_gradient_save(d->gradient, o->gradient, o->common->force, error);
    if (!status) report(d, seconds);
    return status;
}

zs_status train_dump_gradient(const train_options *options, zs_error *error) {
    dumping d = {.options = options};
    zs_status status = dump(&d, error);
    zs_gradient_destroy(&d.gradient);
    free(d.terms);
    free(d.logprobs);
    train_data_free(&d.data);
    cli_close(&d.stack);
    return status;
}
