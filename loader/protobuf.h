/// Protocol buffers, read field by field within their bytes. Knows no schema.
#ifndef LOADER_PROTOBUF_H
#define LOADER_PROTOBUF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef enum protobuf_type { PROTOBUF_VARINT = 0, PROTOBUF_64 = 1, PROTOBUF_BYTES = 2, PROTOBUF_32 = 5 } protobuf_type;

typedef struct protobuf_field {
    uint32_t number;
    protobuf_type type;
    uint64_t value;      // varint, or the bits of a fixed number
    const uint8_t *data; // bytes, strings, messages
    size_t size;
} protobuf_field;

/// A walk over one message; at moves on.
typedef struct protobuf_walk {
    const uint8_t *data;
    size_t size, at;
    bool damaged; // the walk ended at bytes that are no field
} protobuf_walk;

/// The next field; false at the message's end and where it is damaged.
bool protobuf_next(protobuf_walk *walk, protobuf_field *field);
/// A fixed 32-bit field as a float.
float protobuf_float(const protobuf_field *field);

#endif
