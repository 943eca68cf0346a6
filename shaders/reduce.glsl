// Sums and maxima over a workgroup of WORKGROUP invocations (a power of two), through shared memory; every invocation gets the
// result and all of them must call.
shared float reduce_floats[WORKGROUP];
shared uint reduce_uints[WORKGROUP];

float workgroup_sum(float value) {
    uint id = gl_LocalInvocationID.x;
    reduce_floats[id] = value;
    barrier();
    for (uint span = WORKGROUP / 2u; span > 0u; span /= 2u) {
        if (id < span) reduce_floats[id] += reduce_floats[id + span];
        barrier();
    }
    float result = reduce_floats[0];
    barrier();
    return result;
}

uint workgroup_sum_uint(uint value) {
    uint id = gl_LocalInvocationID.x;
    reduce_uints[id] = value;
    barrier();
    for (uint span = WORKGROUP / 2u; span > 0u; span /= 2u) {
        if (id < span) reduce_uints[id] += reduce_uints[id + span];
        barrier();
    }
    uint result = reduce_uints[0];
    barrier();
    return result;
}

// The largest value and, among equals, the lowest index that comes with it.
void workgroup_argmax(inout float value, inout uint index) {
    uint id = gl_LocalInvocationID.x;
    reduce_floats[id] = value;
    reduce_uints[id] = index;
    barrier();
    for (uint span = WORKGROUP / 2u; span > 0u; span /= 2u) {
        if (id < span) {
            float other = reduce_floats[id + span];
            uint other_index = reduce_uints[id + span];
            if (other > reduce_floats[id] || (other == reduce_floats[id] && other_index < reduce_uints[id])) {
                reduce_floats[id] = other;
                reduce_uints[id] = other_index;
            }
        }
        barrier();
    }
    value = reduce_floats[0];
    index = reduce_uints[0];
    barrier();
}
