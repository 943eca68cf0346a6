// Largest value, where it is first, Σ exp(x − maximum) and whether a NaN is among x[from … from + count). Whole workgroup.
struct Softmax {
    float maximum;
    uint index;
    float sum;
    bool nan;
};

Softmax softmax_of(FloatRef x, uint from, uint count) {
    Softmax result;
    result.maximum = -3.4e38;
    result.index = 0xffffffffu;
    bool nan = false;
    // Four values at a time: one after another, each would wait for memory.
    for (uint i = gl_LocalInvocationID.x; i < count; i += 4u * WORKGROUP) {
        float values[4];
        [[unroll]] for (uint j = 0u; j < 4u; j++) values[j] = x.v[from + min(i + j * WORKGROUP, count - 1u)];
        [[unroll]] for (uint j = 0u; j < 4u; j++) {
            // By its bits: compilers may assume that floats are numbers.
            if ((floatBitsToUint(values[j]) & 0x7fffffffu) > 0x7f800000u) nan = true;
            if (values[j] > result.maximum) {
                result.maximum = values[j];
                result.index = min(i + j * WORKGROUP, count - 1u);
            }
        }
    }
    workgroup_argmax(result.maximum, result.index);
    float sum = 0.0;
    for (uint i = gl_LocalInvocationID.x; i < count; i += 4u * WORKGROUP) {
        float values[4];
        [[unroll]] for (uint j = 0u; j < 4u; j++) values[j] = x.v[from + min(i + j * WORKGROUP, count - 1u)];
        [[unroll]] for (uint j = 0u; j < 4u; j++)
            if (i + j * WORKGROUP < count) sum += exp(values[j] - result.maximum);
    }
    result.sum = workgroup_sum(nan ? -1.0e30 : sum); // the largest value's own part makes a sum without NaN at least 1
    result.nan = result.sum < 0.0;
    return result;
}
