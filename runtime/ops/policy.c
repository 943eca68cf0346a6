#include "ops/ops.h"

const char *op_matvec_class_name(op_matvec_class class) {
    static const char *const names[OP_MATVEC_CLASSES] = {"few_rows", "many_rows", "pair"};
    return names[class];
}

void op_matvec_defaults(op_policy *policy, bool cpu) {
    for (uint32_t i = 0; i < MATRIX_TYPES * OP_MATVEC_CLASSES && cpu; i++)
        policy->matvec[i / OP_MATVEC_CLASSES][i % OP_MATVEC_CLASSES] = (op_matvec){.rows = 1, .depth = 1, .subgroups = 2};
    for (uint32_t type = 0; type < MATRIX_TYPES && !cpu; type++) {
        policy->matvec[type][OP_MATVEC_FEW_ROWS] = (op_matvec){.rows = 2, .depth = 2, .subgroups = 4};
        policy->matvec[type][OP_MATVEC_MANY_ROWS] = (op_matvec){.rows = 2, .depth = 2, .subgroups = 8};
        policy->matvec[type][OP_MATVEC_PAIR] = (op_matvec){.rows = 2, .depth = 2, .subgroups = 8};
    }
}

uint32_t op_wide(const gpu_caps *caps) {
    uint32_t size = 128;
    while (!caps->cpu && size < 1024 && size * 2 <= caps->max_invocations) size *= 2;
    return size;
}

op_policy op_policy_of(const zs_device *device) {
    const gpu_caps *caps = gpu_device_caps(device);
    // The two output rows of each of the invocations that run together.
    uint32_t group = 2 * (caps->subgroup_size >= 4 ? caps->subgroup_size : 8);
    // Some drivers extend indices by their sign, some multiply them in 32 bits: offsets stay below 2³¹. And an allocation that
    // is nearly the largest leaves no room for aligning what lies in it.
    uint64_t limit = caps->max_allocation - caps->max_allocation / 64;
    op_policy policy = {
        .tiers = caps->tiers,
        .subgroup_size = caps->subgroup_size,
        .lanes = caps->cpu,
        .weight_group = caps->cpu ? group : 1,
        .part_limit = limit < INT32_MAX ? limit : INT32_MAX,
        .matrix = caps->matrix,
        .shared_bytes = caps->shared_bytes,
        .wide = op_wide(caps),
    };
    op_matvec_defaults(&policy, caps->cpu);
    return policy;
}

op_policy op_policy_within(const op_policy *policy, bool fast, kv_type kv) {
    op_policy within = *policy;
    if (!fast) within.matrix_shape.tile = 0;
    if (!fast || kv == KV_F32) within.matrix_attention = 0;
    within.dot = fast && (policy->tiers & ZS_TIER_DOT);
    return within;
}
