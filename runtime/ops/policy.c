#include "ops/ops.h"

op_policy op_policy_of(const zs_device *device) {
    const gpu_caps *caps = gpu_device_caps(device);
    // The two output rows of each of the invocations that run together.
    uint32_t group = 2 * (caps->subgroup_size >= 4 ? caps->subgroup_size : 8);
    return (op_policy){
        .tiers = caps->tiers,
        .subgroup_size = caps->subgroup_size,
        .lanes = caps->cpu,
        .weight_group = caps->cpu ? group : 1,
        .matrix = caps->matrix,
    };
}
