// dot_bytes(a, b): Σ of the products of the signed bytes of two words, what dotPacked4x8EXT is, for compilers that do not know that yet:
// OpSDot with its capabilities. Tier: dot.
#extension GL_EXT_spirv_intrinsics : require
spirv_instruction(capabilities = [6018, 6019], id = 4450) int dot_packed(uint a, uint b, spirv_literal int format);
int dot_bytes(uint a, uint b) { return dot_packed(a, b, 0); }
