// Rows of VECS vectors that all invocations of a subgroup read alike. CPU drivers load for each invocation separately even then: with
// SUBGROUP each loads its share of a row, and they hand the vectors round; without, each is loaded where it is used. SUBGROUP_SIZE, VECS and
// kv.glsl come first; whole subgroups call, and d is constant.
#ifdef SUBGROUP
#extension GL_KHR_shader_subgroup_ballot : require
const uint SHARES = (VECS + SUBGROUP_SIZE - 1u) / SUBGROUP_SIZE; // vectors of a row that an invocation loads
struct Share { vec4 part[SHARES]; };
uint share_place(uint i) { return min(i * SUBGROUP_SIZE + gl_SubgroupInvocationID, VECS - 1u); }
vec4 share_take(Share share, uint d) { return subgroupBroadcast(share.part[d / SUBGROUP_SIZE], d % SUBGROUP_SIZE); }

void share_kv(out Share share, uvec2 page, uint at) {
    KvRow row = kv_row(page, at);
    [[unroll]] for (uint i = 0u; i < SHARES; i++) share.part[i] = kv_take(row, share_place(i));
}
vec4 share_kv_take(Share share, uvec2 page, uint at, uint d) { return share_take(share, d); }

void share_row(out Share share, uvec2 x, uint from) {
    [[unroll]] for (uint i = 0u; i < SHARES; i++) share.part[i] = ConstVec4Ref(x).v[from + share_place(i)];
}
vec4 share_row_take(Share share, uvec2 x, uint from, uint d) { return share_take(share, d); }
#else
struct Share { uint nothing; };
void share_kv(out Share share, uvec2 page, uint at) { share.nothing = 0u; }
vec4 share_kv_take(Share share, uvec2 page, uint at, uint d) { return kv_load(page, at + 4u * d); }
void share_row(out Share share, uvec2 x, uint from) { share.nothing = 0u; }
vec4 share_row_take(Share share, uvec2 x, uint from, uint d) { return ConstVec4Ref(x).v[from + d]; }
#endif
