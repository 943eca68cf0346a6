// Signed bytes: an arithmetic shift brings each one down.
vec4 signed_bytes_to_vec4(uint w) {
    int i = int(w);
    return vec4((i << 24) >> 24, (i << 16) >> 24, (i << 8) >> 24, i >> 24);
}
