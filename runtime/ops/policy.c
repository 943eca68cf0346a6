#include "ops/ops.h"

op_policy op_policy_of(const zs_device *device) {
    const gpu_caps *caps = gpu_device_caps(device);
    // The two output rows of each of the invocations that run together.
    uint32_t group = 2 * (caps->subgroup_size >= 4 ? caps->subgroup_size : 8);
    // Some drivers extend indices by their sign, some multiply them in 32 bits: offsets stay below 2³¹. And an allocation that
    // is nearly the largest leaves no room for aligning what lies in it.
    uint64_t limit = caps->max_allocation - caps->max_allocation / 64;
    return (op_policy){
        .tiers = caps->tiers,
        .subgroup_size = caps->subgroup_size,
        .lanes = caps->cpu,
        .weight_group = caps->cpu ? group : 1,
        .part_limit = limit < INT32_MAX ? limit : INT32_MAX,
        .matrix = caps->matrix,
    };
}
