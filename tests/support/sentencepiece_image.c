#include "support/sentencepiece_image.h"

#include <stdio.h>
#include <string.h>

#define SPACE "\xe2\x96\x81"

const sentencepiece_piece tiny_pieces[] = {
    {"<unk>", 0, 2}, {"<s>", 0, 3},   {"</s>", 0, 3},       {SPACE "t", -1, 0},   {"he", -2, 0},  {SPACE "the", -3, 0}, {"er", -4, 1},
    {"th", -5, 0},   {"ther", -6, 0}, {SPACE SPACE, -7, 0}, {SPACE "o", -8, 0},   {SPACE, -9, 0}, {"t", -10, 0},        {"h", -11, 0},
    {"e", -12, 0},   {"r", -13, 0},   {"o", -14, 0},        {"\xc3\xa9", -15, 0}, {"a", -16, 0},  {"\n", -17, 0},       {NULL, 0, 0},
};

static void put_raw_varint(byte_buffer *message, uint64_t value) {
    for (; value >= 0x80; value >>= 7) byte_buffer_put(message, &(uint8_t){(uint8_t)(value | 0x80)}, 1);
    byte_buffer_put(message, &(uint8_t){(uint8_t)value}, 1);
}

void protobuf_put_varint(byte_buffer *message, uint32_t field, uint64_t value) {
    put_raw_varint(message, (uint64_t)field << 3);
    put_raw_varint(message, value);
}

void protobuf_put_bytes(byte_buffer *message, uint32_t field, const void *data, size_t size) {
    put_raw_varint(message, (uint64_t)field << 3 | 2);
    put_raw_varint(message, size);
    byte_buffer_put(message, data, size);
}

static void put_float(byte_buffer *message, uint32_t field, float value) {
    put_raw_varint(message, (uint64_t)field << 3 | 5);
    byte_buffer_put(message, &value, sizeof value);
}

/// The part goes into the whole and is freed.
static void put_message(byte_buffer *message, uint32_t field, byte_buffer *part) {
    protobuf_put_bytes(message, field, part->data, part->size);
    byte_buffer_free(part);
}

static void put_piece(byte_buffer *model, const char *text, float score, uint32_t type) {
    byte_buffer piece = {0};
    protobuf_put_bytes(&piece, 1, text, strlen(text));
    put_float(&piece, 2, score);
    if (type) protobuf_put_varint(&piece, 3, type);
    put_message(model, 1, &piece);
}

byte_buffer sentencepiece_image(const sentencepiece_image_params *p) {
    byte_buffer model = {0}, trainer = {0}, normalizer = {0};
    for (size_t i = 0; p->pieces[i].text; i++) {
        put_piece(&model, p->pieces[i].text, p->pieces[i].score, p->pieces[i].type);
        for (int byte = 0; i == 0 && p->bytes && byte < 256; byte++) {
            char text[8];
            snprintf(text, sizeof text, "<0x%02X>", byte);
            put_piece(&model, text, 0, 6);
        }
    }
    protobuf_put_varint(&trainer, 3, p->model_type ? p->model_type : 2);
    if (p->suffixed) protobuf_put_varint(&trainer, 24, 1);
    protobuf_put_varint(&trainer, 43, UINT64_MAX); // pad_id −1
    put_message(&model, 2, &trainer);
    protobuf_put_bytes(&normalizer, 1, "identity", 8);
    if (p->charsmap) protobuf_put_bytes(&normalizer, 2, p->charsmap, strlen(p->charsmap));
    if (p->no_prefix) protobuf_put_varint(&normalizer, 3, 0);
    if (!p->removes) protobuf_put_varint(&normalizer, 4, 0);
    if (p->unescaped) protobuf_put_varint(&normalizer, 5, 0);
    put_message(&model, 3, &normalizer);
    return model;
}
