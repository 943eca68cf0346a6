#include "train_reward.h"

#include <stdlib.h>
#include <string.h>

zs_status train_reward_open(const train_options *o, const train_data *data, const train_data *valid, train_reward *reward,
                            zs_error *error) {
    *reward = (train_reward){.options = o, .data = data, .valid = valid};
    const scorer_params params = {.command = o->reward_command, .timeout_ms = 1000 * o->timeout_s, .unsafe_code = o->unsafe_code};
    return scorer_create(o->task, &params, &reward->scorer, error);
}

void train_reward_close(train_reward *reward) { scorer_destroy(&reward->scorer); }

zs_status train_reward_score(void *user, bool valid, size_t item, const char *answer, double *score, zs_error *error) {
    const train_reward *reward = user;
    const train_data *data = valid ? reward->valid : reward->data;
    const char *stop = reward->options->scored->stop, *end = stop ? strstr(answer, stop) : NULL;
    const data_item *line = &data->file.items[data->lines[item]];
    if (!end) return scorer_score(reward->scorer, line, answer, score, error);
    char *cut = strndup(answer, (size_t)(end - answer));
    zs_status status = cut ? scorer_score(reward->scorer, line, cut, score, error) : zs_error_set(error, ZS_ERROR_MEMORY, "out of memory");
    free(cut);
    return status;
}

zs_status train_open_engine(const train_options *o, const train_data *data, const train_data *valid, cli_stack *stack, zs_error *error) {
    uint32_t answers = o->scored ? o->batch * (o->greedy ? 1 : o->rollouts) : 1, sessions = answers < o->sessions ? answers : o->sessions;
    uint32_t context = (uint32_t)(data->longest > valid->longest ? data->longest : valid->longest) + o->max_tokens + 1;
    // The images of a step are there together.
    bool images = data->shelf.count || valid->shelf.count;
    uint64_t tokens = (uint64_t)context * (images && sessions < o->batch ? o->batch : sessions);
    const zs_engine_params params = {.context = context,
                                     .max_sessions = sessions,
                                     .kv_tokens = tokens < UINT32_MAX ? (uint32_t)tokens : UINT32_MAX,
                                     .max_experts = 2,
                                     .deterministic = o->deterministic};
    cli_common common = *o->common;
    common.ctx = 0; // it has left out lines already
    return cli_open_engine(&common, &params, stack, error);
}
