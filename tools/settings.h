/// What an interrupted run was asked for, so that only the same one goes on from it.
#ifndef TOOLS_SETTINGS_H
#define TOOLS_SETTINGS_H

#include "data_file.h"

/// Contents as a short text.
json_t *settings_items(const data_item *items, size_t count);
json_t *settings_experts(const zs_expert_set *experts, const zs_expert *another); // either may be NULL
uint64_t settings_file_bytes(const char *path);
/// What of an engine answers depend on.
void settings_add_engine(json_t *settings, const zs_engine *engine);
/// ZS_ERROR_EXISTS where a member of `now` is another in `then`, which was read from path; the message names the first.
zs_status settings_check(const json_t *now, const json_t *then, const char *path, zs_error *error);

#endif
