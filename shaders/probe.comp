// The self-test of a device: out[i] = in[i] · factor + i. Variants compute the same by a way of their tier and give NaN where
// the two ways disagree.
//   (none)    plain f32
//   SUBGROUP  subgroup sums and shuffles against each other
//   STORAGE   in[i] put together again from 16-bit and 8-bit loads
//   HALF      the product of two small integers in f16
//   DOT       the product of four signed bytes against what it is made of
//   CHAIN     the product by one workgroup, the sum by another, which waits for all products; the first takes its time
//
// Grid: x = elements / workgroup size, CHAIN: twice as many. An invocation takes one element. Reads it once (STORAGE: three times), writes one.
// Constants: 0 workgroup size
// Tiers: strict, or that of the variant.
#version 450
#include "refs.glsl"
#ifdef SUBGROUP
#extension GL_KHR_shader_subgroup_arithmetic : require
#extension GL_KHR_shader_subgroup_ballot : require
#extension GL_KHR_shader_subgroup_shuffle : require
#endif
#ifdef STORAGE
#extension GL_EXT_shader_16bit_storage : require
#extension GL_EXT_shader_8bit_storage : require
#endif
#ifdef DOT
#include "dot.glsl"
#endif
#ifdef HALF
#extension GL_EXT_shader_explicit_arithmetic_types_float16 : require
#endif

layout(local_size_x_id = 0, local_size_y = 1, local_size_z = 1) in;
layout(constant_id = 0) const uint WORKGROUP = 64;
layout(push_constant, std430) uniform Push { PushProbe push; };

#ifdef SUBGROUP
// Sum over the subgroup's active invocations, once by the reduction and once by reading every other's value. Small integers:
// any order of adding gives the same.
bool agrees(uint i) {
    float value = float(i & 63u);
    float sum = subgroupAdd(value), slow = 0.0;
    uvec4 active_lanes = subgroupBallot(true);
    for (uint lane = 0u; lane < gl_SubgroupSize; lane++) {
        float other = subgroupShuffle(value, lane);
        if (subgroupBallotBitExtract(active_lanes, lane)) slow += other;
    }
    return sum == slow && subgroupExclusiveAdd(1u) == subgroupBallotExclusiveBitCount(active_lanes);
}
#elif defined(STORAGE)
layout(buffer_reference, std430, buffer_reference_align = 2) readonly buffer Uint16Ref { uint16_t v[]; };
layout(buffer_reference, std430, buffer_reference_align = 1) readonly buffer Uint8Ref { uint8_t v[]; };

bool agrees(uint i) {
    Uint16Ref halves = Uint16Ref(uvec2(push.in_));
    Uint8Ref bytes = Uint8Ref(uvec2(push.in_));
    uint by_halves = uint(halves.v[2u * i]) | uint(halves.v[2u * i + 1u]) << 16;
    uint by_bytes = uint(bytes.v[4u * i]) | uint(bytes.v[4u * i + 1u]) << 8 | uint(bytes.v[4u * i + 2u]) << 16 | uint(bytes.v[4u * i + 3u]) << 24;
    uint word = floatBitsToUint(push.in_.v[i]);
    return by_halves == word && by_bytes == word;
}
#elif defined(HALF)
bool agrees(uint i) {
    uint a = i & 31u, b = (i >> 5) & 31u; // products below 1024 and their sum below 2048 are exact in f16
    float16_t product = float16_t(float(a)) * float16_t(float(b)) + float16_t(float(a));
    return float(product) == float(a * b + a);
}
#elif defined(DOT)
int byte_of(uint word, uint k) { return int(word << (24u - 8u * k)) >> 24; } // −128 … 127

bool agrees(uint i) {
    uint a = i * 0x9e3779b9u, b = i * 0x85ebca6bu ^ 0x80808080u;
    int slow = 0;
    for (uint k = 0u; k < 4u; k++) slow += byte_of(a, k) * byte_of(b, k);
    return dot_bytes(a, b) == slow;
}
#else
bool agrees(uint i) { return true; }
#endif

#ifdef CHAIN
layout(buffer_reference, std430, buffer_reference_align = 4) coherent buffer CounterRef { uint v[]; };
const uint TURNS = 100000u; // more than some drivers let a loop have
shared uint number, turns;

// Counters behind the results: workgroups that have begun, that have multiplied, and turns of the first one's loop.
uint count(uint counter, uint more) { return atomicAdd(CounterRef(uvec2(push.out_)).v[push.count + counter], more); }

void main() {
    uint groups = (push.count + WORKGROUP - 1u) / WORKGROUP;
    if (gl_LocalInvocationID.x == 0u) {
        number = count(0u, 1u);
        if (number == 0u)
            for (uint turn = 0u; turn < TURNS; turn++) count(2u, 1u);
        else if (number >= groups)
            for (uint done = 0u; done < groups;) done = count(1u, 0u);
        turns = count(2u, 0u);
    }
    barrier();
    memoryBarrierBuffer();
    uint i = number % groups * WORKGROUP + gl_LocalInvocationID.x;
    if (i < push.count)
        push.out_.v[i] = number < groups ? push.in_.v[i] * push.factor : turns == TURNS ? push.out_.v[i] + float(i) : uintBitsToFloat(0x7fc00000u);
    memoryBarrierBuffer();
    barrier();
    if (gl_LocalInvocationID.x == 0u && number < groups) count(1u, 1u);
}
#else
void main() {
    uint i = gl_GlobalInvocationID.x;
    bool agreed = i < push.count && agrees(i);
    if (i < push.count) push.out_.v[i] = agreed ? push.in_.v[i] * push.factor + float(i) : uintBitsToFloat(0x7fc00000u);
}
#endif
