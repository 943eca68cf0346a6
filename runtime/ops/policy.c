#include "ops/ops.h"

op_policy op_policy_of(const zs_device *device) {
    const gpu_caps *caps = gpu_device_caps(device);
    return (op_policy){.tiers = caps->tiers, .subgroup_size = caps->subgroup_size, .lanes = caps->cpu};
}
