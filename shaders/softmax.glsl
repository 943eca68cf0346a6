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
    uint nans = 0u;
    for (uint i = gl_LocalInvocationID.x; i < count; i += WORKGROUP) {
        float value = x.v[from + i];
        // By its bits: compilers may assume that floats are numbers.
        if ((floatBitsToUint(value) & 0x7fffffffu) > 0x7f800000u) nans++;
        if (value > result.maximum) {
            result.maximum = value;
            result.index = i;
        }
    }
    workgroup_argmax(result.maximum, result.index);
    float sum = 0.0;
    for (uint i = gl_LocalInvocationID.x; i < count; i += WORKGROUP) sum += exp(x.v[from + i] - result.maximum);
    result.sum = workgroup_sum(sum);
    result.nan = workgroup_sum_uint(nans) > 0u;
    return result;
}
