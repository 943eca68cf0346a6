#include "loader/protobuf.h"

#include <string.h>

/// At most ten bytes of seven bits, the last of which adds one.
static bool take_varint(protobuf_walk *w, uint64_t *value) {
    *value = 0;
    for (unsigned shift = 0; shift < 70 && w->at < w->size; shift += 7) {
        uint8_t byte = w->data[w->at++];
        if (shift == 63 && byte > 1) return false;
        *value |= (uint64_t)(byte & 0x7f) << shift;
        if (!(byte & 0x80)) return true;
    }
    return false;
}

static bool take_fixed(protobuf_walk *w, size_t size, uint64_t *value) {
    if (w->size - w->at < size) return false;
    *value = 0;
    for (size_t i = 0; i < size; i++) *value |= (uint64_t)w->data[w->at + i] << 8 * i;
    w->at += size;
    return true;
}

static bool take_bytes(protobuf_walk *w, protobuf_field *field) {
    uint64_t size;
    if (!take_varint(w, &size) || size > w->size - w->at) return false;
    field->data = w->data + w->at;
    field->size = (size_t)size;
    w->at += field->size;
    return true;
}

static bool take_field(protobuf_walk *w, protobuf_field *field) {
    uint64_t tag;
    *field = (protobuf_field){0};
    if (!take_varint(w, &tag) || tag >> 3 == 0 || tag >> 3 > (1u << 29) - 1) return false;
    field->number = (uint32_t)(tag >> 3);
    field->type = (protobuf_type)(tag & 7);
    switch (field->type) {
    case PROTOBUF_VARINT: return take_varint(w, &field->value);
    case PROTOBUF_64: return take_fixed(w, 8, &field->value);
    case PROTOBUF_BYTES: return take_bytes(w, field);
    case PROTOBUF_32: return take_fixed(w, 4, &field->value);
    default: return false; // groups are no longer written by anything
    }
}

bool protobuf_next(protobuf_walk *walk, protobuf_field *field) {
    if (walk->damaged || walk->at == walk->size) return false;
    walk->damaged = !take_field(walk, field);
    return !walk->damaged;
}

float protobuf_float(const protobuf_field *field) {
    uint32_t bits = (uint32_t)field->value;
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}
