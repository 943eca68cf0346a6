// Draws one token per logit row; filters in Hugging Face's order: repetition penalty, temperature, top-k (ties at the cut kept),
// top-p (the smallest set of likeliest tokens whose mass reaches p, ties kept), min-p. Greedy at temperature 0, ties to the
// lowest id. Random numbers by counter: Philox4x32-10 (Salmon et al. 2011) of (seed; stream, position of the new token).
//
// Both cuts are thresholds on the scaled logit, found by bisection over its bits: 32 passes over the vocabulary, no sort.
//
// Grid: x = logit rows. Reads a row of logits up to 70 times (cached), writes one Sampled and, with push.advance, the row.
// Constants: 0 workgroup size (a power of two)
// Tiers: strict.
#version 450
#include "refs.glsl"

layout(local_size_x_id = 0, local_size_y = 1, local_size_z = 1) in;
layout(constant_id = 0) const uint WORKGROUP = 128;
layout(push_constant, std430) uniform Push { PushSample push; };
#include "reduce.glsl"
#include "softmax.glsl"

const float EXCLUDED = -3.4e38;

shared float chunk_mass[WORKGROUP];
shared uint drawn;

uvec4 philox(uvec4 counter, uvec2 key) {
    for (uint round = 0u; round < 10u; round++) {
        uint high0, low0, high1, low1;
        umulExtended(0xD2511F53u, counter.x, high0, low0);
        umulExtended(0xCD9E8D57u, counter.z, high1, low1);
        counter = uvec4(high1 ^ counter.y ^ key.x, low1, high0 ^ counter.w ^ key.y, low0);
        key += uvec2(0x9E3779B9u, 0xBB67AE85u);
    }
    return counter;
}

bool has_bit(UintRef bits, uint i) { return (bits.v[i / 32u] >> (i % 32u) & 1u) != 0u; }

// The logit of a token after penalty and temperature; EXCLUDED where it is not allowed.
float scaled_logit(Sampler how, bool restricted, bool penalised, float temperature, uint from, uint i) {
    if (restricted && !has_bit(UintRef(how.allowed), i)) return EXCLUDED;
    float logit = push.logits.v[from + i];
    if (penalised && has_bit(UintRef(how.seen), i)) logit = logit > 0.0 ? logit / how.repetition_penalty : logit * how.repetition_penalty;
    return logit / temperature;
}

// Floats in the order of unsigned integers.
uint ordered(float x) {
    uint bits = floatBitsToUint(x);
    return (bits & 0x80000000u) != 0u ? ~bits : bits | 0x80000000u;
}

struct Choice {
    Sampler how;
    bool restricted, penalised;
    float temperature;
    uint from;
};

float value_at(Choice row, uint i) { return scaled_logit(row.how, row.restricted, row.penalised, row.temperature, row.from, i); }

void argmax(Choice row, out float top, out uint token) {
    top = EXCLUDED;
    token = NO_TOKEN;
    for (uint i = gl_LocalInvocationID.x; i < push.vocab; i += WORKGROUP) {
        float value = value_at(row, i);
        if (value > top) {
            top = value;
            token = i;
        }
    }
    workgroup_argmax(top, token);
}

// Number (top == 0) or mass Σ exp(value − top) of tokens whose key is at least `cut`.
float count_above(Choice row, uint cut, bool mass, float top) {
    float sum = 0.0;
    for (uint i = gl_LocalInvocationID.x; i < push.vocab; i += WORKGROUP) {
        float value = value_at(row, i);
        if (value > EXCLUDED && ordered(value) >= cut) sum += mass ? exp(value - top) : 1.0;
    }
    return workgroup_sum(sum);
}

// What keys must reach for top-k and top-p: for each in turn the highest cut, from the cut so far on, at which count_above reaches what is
// wanted; counts are exact in f32 up to 2^24 tokens. Both in one loop with one count_above, for the sake of CPU drivers' compilers.
uint find_cut(Choice row, float top) {
    uint low = ordered(-3.3e38);
    [[dont_unroll]] for (uint turn = 0u; turn < 2u; turn++) {
        bool mass = turn == 1u; // top-p; else top-k
        if (mass ? row.how.top_p >= 1.0 : row.how.top_k == 0u || row.how.top_k >= push.vocab) continue;
        uint high = ordered(top); // low always reaches it or is the least
        float wanted = float(row.how.top_k);
        bool known = !mass; // top-p's share is of the mass that top-k left, which the first count finds
        while (!known || low < high) {
            uint middle = known ? low + (high - low + 1u) / 2u : low;
            float above = count_above(row, middle, mass, top);
            if (!known) wanted = row.how.top_p * above;
            else if (above >= wanted) low = middle;
            else high = middle - 1u;
            known = true;
        }
    }
    return low;
}

// The first id in id order whose cumulated mass exceeds u · total, among tokens with keys ≥ cut.
uint draw(Choice row, uint cut, float top, float u) {
    uint id = gl_LocalInvocationID.x;
    uint share = (push.vocab + WORKGROUP - 1u) / WORKGROUP;
    uint begin = id * share, end = min(push.vocab, begin + share);
    float mass = 0.0;
    for (uint i = begin; i < end; i++) {
        float value = value_at(row, i);
        if (value > EXCLUDED && ordered(value) >= cut) mass += exp(value - top);
    }
    chunk_mass[id] = mass;
    if (id == 0u) drawn = NO_TOKEN;
    barrier();
    float before = 0.0, total = 0.0;
    for (uint i = 0u; i < WORKGROUP; i++) {
        if (i < id) before += chunk_mass[i];
        total += chunk_mass[i];
    }
    float wanted = u * total;
    // Rounding may leave no chunk that holds `wanted`; then it is the last one with mass.
    bool later = false;
    for (uint i = id + 1u; i < WORKGROUP; i++) later = later || chunk_mass[i] > 0.0;
    if (mass > 0.0 && before <= wanted && (wanted < before + mass || !later)) {
        float sum = before;
        uint token = NO_TOKEN;
        for (uint i = begin; i < end; i++) {
            float value = value_at(row, i);
            if (!(value > EXCLUDED) || ordered(value) < cut) continue;
            token = i;
            sum += exp(value - top);
            if (sum > wanted) break;
        }
        atomicMin(drawn, token);
    }
    barrier();
    return drawn;
}

uint sample_token(Choice row, Row step_row, float top, uint best) {
    if (row.how.temperature <= 0.0) return best;
    uint cut = find_cut(row, top);
    // p_i ≥ min_p · p_max  ⇔  value_i ≥ top + log min_p
    if (row.how.min_p > 0.0) cut = max(cut, ordered(top + log(row.how.min_p)));
    uvec4 random = philox(uvec4(row.how.stream_low, row.how.stream_high, step_row.position + 1u, 0u), uvec2(row.how.seed_low, row.how.seed_high));
    return draw(row, cut, top, float(random.x >> 8) * (1.0 / 16777216.0));
}

void main() {
    uint j = gl_WorkGroupID.x;
    uint r = push.index.v[j];
    Row step_row = RowRef(push.step.v.rows).v[r];
    Choice row;
    row.how = push.samplers.v[step_row.sequence];
    row.restricted = row.how.allowed != uvec2(0);
    row.penalised = row.how.repetition_penalty != 1.0;
    row.temperature = row.how.temperature > 0.0 ? row.how.temperature : 1.0;
    row.from = j * push.logits_stride;

    Softmax softmax = softmax_of(push.logits, row.from, push.vocab);
    float top = softmax.maximum / row.temperature;
    uint best = softmax.index;
    if (row.restricted || row.penalised) argmax(row, top, best);
    uint token = softmax.nan ? NO_TOKEN : sample_token(row, step_row, top, best);
    if (gl_LocalInvocationID.x != 0u) return;

    Sampled result;
    result.token = token;
    result.logprob = token == NO_TOKEN ? 0.0 : push.logits.v[row.from + token] - softmax.maximum - log(softmax.sum);
    result.flags = softmax.nan ? SAMPLED_NAN : 0u;
    result.position = step_row.position + 1u;
    push.results.v[step_row.sequence * SAMPLED_RING + result.position % SAMPLED_RING] = result;
    if (token != NO_TOKEN && row.penalised) atomicOr(UintRef(row.how.seen).v[token / 32u], 1u << (token % 32u));
    if (push.advance != 0u) {
        step_row.token = token == NO_TOKEN ? 0u : token;
        step_row.position++;
        RowRef(push.step.v.rows).v[r] = step_row;
    }
}
