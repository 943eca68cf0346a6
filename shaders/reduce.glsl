// Sums and maxima over a workgroup of WORKGROUP invocations (a power of two), through shared memory; every invocation gets the
// result and all of them must call. The first REDUCE_PARTS take WORKGROUP / REDUCE_PARTS values each, then everybody takes their results:
// two barriers. CPU drivers keep what lives across a barrier in memory; their compilers take seconds over dozens of them.
const uint REDUCE_PARTS = WORKGROUP > 512u ? 32u : WORKGROUP > 128u ? 16u : WORKGROUP > 32u ? 8u : WORKGROUP > 8u ? 4u : WORKGROUP > 2u ? 2u : 1u;
shared float reduce_floats[WORKGROUP], reduce_float_parts[REDUCE_PARTS];
shared uint reduce_uints[WORKGROUP], reduce_uint_parts[REDUCE_PARTS];

float workgroup_sum(float value) {
    uint id = gl_LocalInvocationID.x;
    reduce_floats[id] = value;
    barrier();
    if (id < REDUCE_PARTS) {
        float part = reduce_floats[id];
        [[dont_unroll]] for (uint i = id + REDUCE_PARTS; i < WORKGROUP; i += REDUCE_PARTS) part += reduce_floats[i];
        reduce_float_parts[id] = part;
    }
    barrier();
    float result = reduce_float_parts[0];
    [[dont_unroll]] for (uint i = 1u; i < REDUCE_PARTS; i++) result += reduce_float_parts[i];
    return result;
}

void reduce_larger(inout float value, inout uint index, float other, uint other_index) {
    if (other > value || (other == value && other_index < index)) {
        value = other;
        index = other_index;
    }
}

// The largest value and, among equals, the lowest index that comes with it.
void workgroup_argmax(inout float value, inout uint index) {
    uint id = gl_LocalInvocationID.x;
    reduce_floats[id] = value;
    reduce_uints[id] = index;
    barrier();
    if (id < REDUCE_PARTS) {
        [[dont_unroll]] for (uint i = id + REDUCE_PARTS; i < WORKGROUP; i += REDUCE_PARTS) reduce_larger(value, index, reduce_floats[i], reduce_uints[i]);
        reduce_float_parts[id] = value;
        reduce_uint_parts[id] = index;
    }
    barrier();
    value = reduce_float_parts[0];
    index = reduce_uint_parts[0];
    [[dont_unroll]] for (uint i = 1u; i < REDUCE_PARTS; i++) reduce_larger(value, index, reduce_float_parts[i], reduce_uint_parts[i]);
}
